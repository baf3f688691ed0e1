"""tools/convergence_check.py: what it trains, what it reads from the logs, what it writes."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import _training
import convergence_check
import pytest
from _convergence_report import HEADS, Head, Result, combinations, plot, read_log, read_results, table, write_result
from _progress import Display
from convergence_check import read_config, set_aside, train
from running import ROOT, exit_status

from deformable_vit.engine import UserError

# The project's goals for each head on the synthetic images.
MINIMUM = dict.fromkeys(('retinanet', 'atss', 'gfl'), 0.7) | dict.fromkeys(('mask-rcnn', 'cascade-mask-rcnn'), 0.8)
MINIMUM |= dict.fromkeys(('fpn', 'upernet', 'mask2former-semantic'), 70) | {'': 90, 'detr': None}


def test_every_small_config_is_trained_and_has_a_minimum() -> None:
    configs = sorted(file.stem for file in (ROOT / 'configs' / 'demo').glob('*.py'))
    assert sorted(head.config(backbone) for head, backbone in combinations()) == configs
    for head in HEADS:
        assert head.minimum == MINIMUM.get(head.name, 0.6)


def write_scalars(work_dir: Path, *entries: dict) -> Path:
    file = work_dir / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    return file


def test_read_log_counts_the_repeated_iterations_of_a_resumed_run_once(tmp_path: Path) -> None:
    first = [dict(loss=3.0, iter=50, step=50), dict(loss=2.0, iter=100, step=100), {'coco/bbox_mAP_50': 0.1, 'step': 1}]
    killed = write_scalars(tmp_path / '20260101_000000', *first, dict(loss=1.9, iter=150, step=150))
    with killed.open('a') as file:
        file.write('{"loss": 1.8, "it')
    second = [dict(loss=1.5, iter=150, step=150), {'coco/bbox_mAP_50': 0.3, 'step': 2}]
    write_scalars(tmp_path / '20260101_010000', *second)
    losses, validations = read_log(tmp_path)
    assert losses == [(50, 3.0), (100, 2.0), (150, 1.5)]
    assert [v['coco/bbox_mAP_50'] for v in validations] == [0.1, 0.3]


def test_table_and_plot_show_every_result(tmp_path: Path) -> None:
    heads = {head.name: head for head in HEADS}
    metrics = {'coco/bbox_mAP_50': 0.81, 'coco/segm_mAP_50': 0.7}
    results = [
        (heads['mask-rcnn'], Result('dat', 'mask-rcnn', metrics, True, 120, [(1, 2.0)])),
        (heads['fpn'], Result('datpp', 'fpn', {'mIoU': 69.96}, True, 60, [(1, 2.0), (2, 1.0)])),
        (heads['detr'], Result('dat', 'detr', {'coco/bbox_mAP_50': 0.2}, False, 60, [(1, 2.0)])),
    ]
    assert [result.converges(head) for head, result in results] == [True, False, False]
    rows = table(results).splitlines()[2:]
    assert rows[0] == '| Mask R-CNN | DAT | 0.810 | 0.700 |  |  | 0.8 | 2.0 | converges |'
    assert rows[1] == '| Semantic FPN | DAT++ |  |  | 70.0 |  | 70 | 1.0 | **does not converge** |'
    assert rows[2].endswith('| improving | 1.0 | **does not converge** |')
    plot(results, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').stat().st_size > 5000


@pytest.mark.parametrize(
    ('changed', 'again', 'stays'), [(False, False, True), (False, True, False), (True, False, False)]
)
def test_set_aside_keeps_the_work_dir_of_another_config(
    tmp_path: Path, changed: bool, again: bool, stays: bool
) -> None:
    work_dir = tmp_path / 'pvt_shapes'
    work_dir.mkdir()
    trained_with = 'model = None' if changed else read_config('pvt_shapes').pretty_text
    (work_dir / 'trained_with.py').write_text(trained_with)
    set_aside(work_dir, 'pvt_shapes', again)
    assert work_dir.exists() == stays
    (kept,) = tmp_path.glob('pvt_shapes*')
    assert (kept / 'trained_with.py').read_text() == trained_with


def test_read_config_ignores_the_variables_of_a_config() -> None:
    """A change of a variable that another config uses must not train this one again."""
    config = read_config('pvt_shapes')
    assert {'model', 'train_dataloader', 'optim_wrapper', 'param_scheduler'} <= set(config)
    assert not any(key.startswith(('small_', 'shapes_')) for key in config)


def test_configs_with_bases_of_other_packages_are_read_in_several_threads() -> None:
    names = ['mask2former_datpp_shapes', 'mask2former-semantic_datpp_shapes', 'atss_pvtv2_shapes', 'gfl_pvtv2_shapes']
    with ThreadPoolExecutor(4) as pool:
        assert all('model' in config for config in pool.map(read_config, names * 3))


@pytest.mark.parametrize(
    ('name', 'tested', 'reached', 'improved', 'validates'),
    [
        ('mask-rcnn', {'coco/bbox_mAP_50': 0.9, 'data_time': 0.1}, {'coco/bbox_mAP_50': 0.9}, True, False),
        ('mask-rcnn', {'data_time': 0.1}, {'coco/bbox_mAP_50': 0.0}, False, False),  # mmdet's result of no detections
        ('detr', {'coco/bbox_mAP_50': 0.2}, {'coco/bbox_mAP_50': 0.2}, True, True),
    ],
)
def test_train_resumes_tests_and_writes_the_result(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    tested: dict,
    reached: dict,
    improved: bool,
    validates: bool,
) -> None:
    (head,) = (head for head in HEADS if head.name == name)
    work_dir = tmp_path / f'{name}_dat_shapes'
    commands: list = []

    def start_tool(*command: object, **_: object) -> subprocess.Popen:
        commands.append([str(word) for word in command])
        if command[0] == 'train.py':
            validation = {'coco/bbox_mAP_50': 0.1, 'step': 1}
            write_scalars(work_dir / '20260101_000000', dict(loss=3.0, iter=50, step=50), validation)
            (work_dir / 'last_checkpoint').write_text('epoch_9.pth')
        else:
            (work_dir / 'test' / '20260101_010000').mkdir(parents=True)
            (work_dir / 'test' / '20260101_010000' / '20260101_010000.json').write_text(json.dumps(tested))
        process = subprocess.Popen([sys.executable, '-c', ''])
        process.wait()
        return process

    monkeypatch.setattr(_training, 'start_tool', start_tool)
    with Display() as display:
        train(head, 'dat', tmp_path, display, 1, threading.Event())
    (result,) = read_results(tmp_path)
    assert result[0] == head
    assert (result[1].metrics, result[1].improved, result[1].losses) == (reached, improved, [[50, 3.0]])
    training, testing = commands
    assert training[:2] == ['train.py', f'configs/demo/{name}_dat_shapes.py']
    assert '--resume' in training
    assert ('train_cfg.val_interval=1000000' in training) != validates
    assert testing[2] == 'epoch_9.pth'


def test_train_names_the_log_of_a_failed_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = [sys.executable, '-c', 'raise SystemExit(1)']
    monkeypatch.setattr(_training, 'start_tool', lambda *_, **__: subprocess.Popen(failed))
    with (
        Display() as display,
        pytest.raises(UserError, match=r'^training Mask R-CNN, DAT failed; see .*/mask-rcnn_dat_shapes/log\.txt$'),
    ):
        train(HEADS[1], 'dat', tmp_path, display, 1, threading.Event())
    assert read_results(tmp_path) == []


Check = Callable[..., int]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run the tool's main function with a fast stand-in for training; return its exit status."""

    def run(train: Callable[[str, threading.Event], float], *args: str) -> int:
        def fast(head: Head, backbone: str, out: Path, _display: object, _threads: int, stop: threading.Event) -> None:
            metrics = {head.metric: train(backbone, stop)}
            (out / head.config(backbone)).mkdir(parents=True)
            result = Result(backbone, head.name, metrics, True, 60.0, [(1, 2.0), (2, 1.0)])
            write_result(result, out / head.config(backbone))

        monkeypatch.setattr(convergence_check, 'run_tool', lambda *_, **__: None)
        monkeypatch.setattr(convergence_check.signal, 'signal', lambda *_: None)
        monkeypatch.setattr(convergence_check, 'train', fast)
        monkeypatch.setattr(sys, 'argv', ['convergence_check.py', '--out', str(tmp_path), *args])
        return exit_status(convergence_check.main)

    return run


def test_combinations_train_in_parallel_and_only_once(
    check: Check, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    together, trained = threading.Barrier(2, timeout=60), []

    def train(backbone: str, _stop: threading.Event) -> float:
        together.wait()  # passes only if both train at the same time
        trained.append(backbone)
        return 95.0

    combinations = ['--only', 'dat_shapes', 'pvt_shapes', '--jobs', '2']
    assert check(train, *combinations) == 0
    assert sorted(trained) == ['dat', 'pvt']
    written = (tmp_path / 'table.md').read_text()
    assert written.count('| 95.0 | 90 | 1.0 | converges |') == 2
    assert written in capsys.readouterr().out
    assert (tmp_path / 'curves.png').exists()
    assert check(train, *combinations) == 0
    assert len(trained) == 2


def test_a_failing_combination_does_not_stop_the_others(
    check: Check, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def train(backbone: str, _stop: threading.Event) -> float:
        if backbone == 'pvt':
            raise UserError('pvt_shapes failed; see log.txt')
        return 95.0 if backbone == 'dat' else 50.0

    assert check(train, '--only', 'pvt_shapes', 'dpt_shapes', 'dat_shapes', '--jobs', '1') == 2
    message = capsys.readouterr().err
    assert 'pvt_shapes failed; see log.txt' in message
    assert 'dpt_shapes does not converge' in message
    assert 'dat_shapes' not in message
    assert '| 95.0 | 90 | 1.0 | converges |' in (tmp_path / 'table.md').read_text()


def test_ctrl_c_stops_running_trainings_and_starts_no_others(
    check: Check, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    started, stopped = threading.Event(), []

    def train(backbone: str, stop: threading.Event) -> float:
        started.set()
        stopped.append((backbone, stop.wait(60)))
        raise UserError('stopped')

    def interrupt(_futures: object) -> None:
        assert started.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(convergence_check, 'as_completed', interrupt)
    assert check(train, '--only', 'pvt_shapes', 'dat_shapes', '--jobs', '1') == 2
    assert stopped == [('pvt', True)]
    assert 'run the same command to resume' in capsys.readouterr().err


def test_an_unknown_combination_is_a_one_line_error(check: Check, capsys: pytest.CaptureFixture) -> None:
    assert check(lambda *_: 0.0, '--only', 'mask-rcnn_resnet_shapes') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        'convergence_check.py: error: --only: mask-rcnn_resnet_shapes is not a combination; --list shows all names'
    )
