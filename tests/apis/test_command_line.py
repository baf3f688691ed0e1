"""How errors of users and Ctrl-C end a tool, and how options are parsed."""

import argparse
from typing import Any

import pytest

from deformable_vit.apis.command_line import TRACEBACK, add_config_options, config_errors, one_line_errors
from deformable_vit.errors import TrainingError, UserError


@pytest.mark.parametrize(
    ('error', 'status', 'line'),
    [
        (UserError('config a.py does not exist'), 2, 'train.py: error: config a.py does not exist'),
        (KeyboardInterrupt(), 130, 'train.py: interrupted'),
    ],
)
def test_errors_of_users_and_ctrl_c_are_one_line(
    error: BaseException,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    @one_line_errors
    def main() -> None:
        raise error

    monkeypatch.setattr('sys.argv', ['tools/train.py'])
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    assert capsys.readouterr().err == f'{line}\n'
    monkeypatch.setenv(TRACEBACK, '1')
    with pytest.raises(type(error)):
        main()


def test_one_of_several_processes_prints_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv('RANK', '1')
    for error, is_printed in ((UserError('in all'), False), (TrainingError('in this one'), True)):

        @one_line_errors
        def main(error: Exception = error) -> None:
            raise error

        with pytest.raises(SystemExit):
            main()
        assert bool(capsys.readouterr().err) == is_printed


def test_other_errors_keep_their_traceback() -> None:
    @one_line_errors
    def main() -> None:
        raise ValueError('a defect')

    with pytest.raises(ValueError, match='a defect'):
        main()


def test_errors_before_the_first_batch_are_in_the_config() -> None:
    with (
        pytest.raises(UserError, match=r"config a.py: TypeError: no argument 'x' \(DEFORMABLE_VIT_TRACEBACK=1 shows"),
        config_errors('a.py', lambda: False),
    ):
        raise TypeError("no argument 'x'")
    with pytest.raises(TypeError), config_errors('a.py', lambda: True):
        raise TypeError('a defect')


def parsed(*options: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def test_options() -> None:
    assert parsed(
        'a.b=3', 'c=True', 'd=(256,64)', 'e=0,1', 'f=epoch_{}.pth', 'g=None', 'h=x=y', 'i=run(1).pth'
    ) == dict(zip('cdefghi', (True, (256, 64), [0, 1], 'epoch_{}.pth', None, 'x=y', 'run(1).pth'), strict=True)) | {
        'a.b': 3
    }
    for option, words in (
        ('hooks=[dict(type="EMAHook",momentum=0.1)]', 'dicts cannot be written on the command line'),
        ('model', 'is not KEY=VALUE'),
        ('=3', 'is not KEY=VALUE'),
        ('a=(4', 'unbalanced brackets'),
    ):
        with pytest.raises(UserError, match=words):
            parsed(option)
