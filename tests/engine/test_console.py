"""engine/console.py: what the console shows, and that the log file has everything."""

import logging
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.logging import MMLogger, print_log

from deformable_vit.engine.console import VERBOSE, is_noise, quiet_console

ENVIRONMENT = '\n' + '-' * 60 + '\nSystem environment:\n    sys.platform: linux\n'
# Messages as mmengine, mmdet, mmseg and pycocotools write them.
NOISE = [
    ENVIRONMENT,
    "Config:\nmodel = dict(type='RetinaNet')",
    'Hooks will be executed in the following order:\nbefore_run:\n(VERY_HIGH   ) RuntimeInfoHook',
    'paramwise_options -- backbone.stages.0.blocks.0.norm1.weight:weight_decay=0.0',
    'paramwise_options -- neck.fpn_convs.0.bn.weight:lr=0.001',
    'set param backbone.stem.weight as id 0',
    'Param groups = {\n  "layer_0_decay": {}\n}',
    '"FileClient" will be deprecated in future. Please use io functions in https://mmengine.readthedocs.io',
    'index created!',
]
USEFUL = [
    'Epoch(train) [1][ 50/150]  base_lr: 1.9855e-03 lr: 1.9855e-03  eta: 0:05:39  loss: 3.1301',
    'warm-up takes 3 of 4 iterations (75 %), with a low learning rate: set param_scheduler.0.end',
    'the checkpoints of an earlier run in work_dirs/a were moved to work_dirs/a/previous_1',
    'work_dirs/a/epoch_1.pth: 205 of 205 parameters match, none is unexpected',
    'optimizer: AdamW, 4 parameters: 4 with lr 0.001, weight decay 0 (weight)',
    ' Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.637',
    'Configuration of my hook:\nno noise',
]


class Output:
    """The console's text and the log file of a logger."""

    def __init__(self, captured: pytest.CaptureFixture, file: Path) -> None:
        self.captured, self.file, self.text = captured, file, ''

    @property
    def shown(self) -> str:
        self.text += self.captured.readouterr().out
        return self.text

    @property
    def logged(self) -> str:
        return self.file.read_text()


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Iterator[Output]:
    """Capture standard output, and close the log file at the end."""
    monkeypatch.delenv(VERBOSE, raising=False)
    yield Output(capsys, tmp_path / 'run.log')
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()


def start_log(output: Output) -> MMLogger:
    return MMLogger.get_instance('test', log_file=str(output.file), file_mode='a')


def test_noise_is_in_the_log_file_only(output: Output) -> None:
    with quiet_console():
        logger = start_log(output)
        for message in [*NOISE, *USEFUL]:
            logger.info(message)
    assert not [message for message in NOISE if message in output.shown]
    assert not [message for message in USEFUL if message not in output.shown]
    assert not [message for message in NOISE + USEFUL if output.logged.count(message) != 1]
    (line,) = [line for line in output.shown.splitlines() if str(output.file) in line]
    assert f'{VERBOSE}=1 shows them here' in line


def test_colors_of_a_terminal_do_not_hide_noise(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmengine.logging.logger.colored', lambda text, *_, **__: f'\x1b[4m\x1b[37m{text}\x1b[0m')
    with quiet_console():
        logger = start_log(output)
        logger.info('useful')
        logger.info('Config:\nmodel = None')
    assert '\x1b[' in output.shown
    assert 'useful' in output.shown
    assert 'model = None' not in output.shown


def test_verbose_shows_everything(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VERBOSE, '1')
    with quiet_console():
        logger = start_log(output)
        for message in NOISE:
            logger.info(message)
        with warnings.catch_warnings():
            warnings.simplefilter('always')
            warnings.warn_explicit('old', FutureWarning, f'{sysconfig.get_path("purelib")}/mmseg/a.py', 1)
    assert not [message for message in [*NOISE, 'FutureWarning: old'] if output.shown.count(message) != 1]
    assert not [message for message in [*NOISE, 'FutureWarning: old'] if output.logged.count(message) != 1]


def test_what_is_only_printed_goes_to_the_log_file_too(output: Output) -> None:
    with quiet_console():
        print('before there is a log file')
        logger = start_log(output)
        logger.info('first record')
        print('a table:\n  1 2 3')
        print('creating index...')
        print('one ', end='', flush=True)
        print('line')
    assert output.shown.splitlines()[0] == 'before there is a log file'
    assert output.shown.endswith('a table:\n  1 2 3\none line\n')
    lines = output.logged.splitlines()
    assert lines[0] == 'before there is a log file'
    assert lines[1].endswith('first record')
    assert lines[2:] == ['a table:', '  1 2 3', 'creating index...', 'one line']


def test_progress_bars_are_shown_at_once_and_not_logged(output: Output) -> None:
    with quiet_console():
        start_log(output)
        sys.stdout.write('\r10 %')
        assert output.shown == '\r10 %'
        sys.stdout.write('\r20 %\n')
    assert output.shown == '\r10 %\r20 %\n'
    assert '%' not in output.logged


@pytest.mark.parametrize(
    ('category', 'installed', 'shown'),
    [
        (DeprecationWarning, True, False),
        (FutureWarning, True, False),
        (FutureWarning, False, True),
        (UserWarning, True, True),
    ],
)
def test_only_deprecations_inside_installed_packages_are_not_shown(
    output: Output, tmp_path: Path, category: type[Warning], installed: bool, shown: bool
) -> None:
    file = f'{sysconfig.get_path("purelib")}/mmseg/a.py' if installed else str(tmp_path / 'a.py')
    with warnings.catch_warnings():
        warnings.simplefilter('always')
        with quiet_console():
            start_log(output)
            warnings.warn_explicit('use\nb', category, file, 7)
    text = f'{category.__name__}: use b ({"mmseg/a.py" if installed else file}:7)'
    assert (text in output.shown) == shown
    assert output.logged.count(text) == 1


def test_known_warnings_without_use_are_not_shown(output: Output) -> None:
    text = 'Warning: The bbox is out of bounds, the drawn bbox may not be in the image'
    with warnings.catch_warnings():
        warnings.simplefilter('always')
        with quiet_console():
            start_log(output)
            warnings.warn(text, stacklevel=1)
    assert text not in output.shown
    assert f'UserWarning: {text}' in output.logged


def test_output_and_warnings_are_as_before_afterwards(output: Output) -> None:
    before, show = sys.stdout, warnings.showwarning

    @quiet_console()
    def fail() -> None:
        assert sys.stdout is not before
        assert sys.stdout.isatty() == before.isatty()
        print('unfinished', end='')
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sys.stdout is before
    assert warnings.showwarning is show
    assert output.shown == 'unfinished'


def test_warnings_of_the_run_have_the_level_of_warnings(output: Output) -> None:
    with quiet_console():
        start_log(output)
        print_log('too long a warm-up', 'current', logging.WARNING)
    assert ' - WARNING - too long a warm-up' in output.logged
    assert 'too long a warm-up' in output.shown


def test_noise_is_recognized_by_how_a_message_begins() -> None:
    assert is_noise('Config:\nx = 1')
    assert not is_noise('the key Config:\nx = 1')
    assert not is_noise('index created! and more')
