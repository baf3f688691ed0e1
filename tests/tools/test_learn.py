"""tools/learn.py: what it trains, what it reads from the logs, what it writes."""

import json
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import learn
import pytest
from learn import HEADS, Head, Result, plot, read_config, read_log, set_aside, steps, table, write_result
from running import ROOT

from deformable_vit.engine import UserError

# From the project's goals: what each head has to reach on the shapes.
MINIMUM = {'retinanet': 0.7, 'mask-rcnn': 0.8, 'cascade-mask-rcnn': 0.8, 'fpn': 70, 'upernet': 70, '': 90, 'detr': None}


def test_every_pair_has_a_config_and_its_threshold() -> None:
    pairs = [(head, backbone) for head in HEADS for backbone in head.backbones]
    assert len(pairs) == 31
    for head, backbone in pairs:
        assert (ROOT / 'configs' / 'demo' / f'{head.config(backbone)}.py').is_file()
        assert head.minimum == MINIMUM.get(head.name, 0.6)


def lines(file: Path, *entries: dict) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))


def test_the_log_of_a_resumed_run(tmp_path: Path) -> None:
    """What was trained again after the last checkpoint counts once."""
    first = [dict(loss=3.0, iter=50, step=50), dict(loss=2.0, iter=100, step=100), {'coco/bbox_mAP_50': 0.1, 'step': 1}]
    lines(tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json', *first, dict(loss=1.9, iter=150, step=150))
    second = [dict(loss=1.5, iter=150, step=150), {'coco/bbox_mAP_50': 0.3, 'step': 2}]
    lines(tmp_path / '20260101_010000' / 'vis_data' / 'scalars.json', *second)
    with (tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json').open('a') as killed:
        killed.write('{"loss": 1.8, "it')
    losses, validations = read_log(tmp_path)
    assert losses == [(50, 3.0), (100, 2.0), (150, 1.5)]
    assert [v['coco/bbox_mAP_50'] for v in validations] == [0.1, 0.3]


@pytest.mark.parametrize(
    ('line', 'limit', 'found'),
    [
        ('nothing yet', 6, (0, None)),
        ('Epoch(train)  [3][ 50/150]  lr: 1e-3', 6, (350, 900)),
        ('Iter(train) [ 500/1000]  lr: 1e-3', 1000, (500, 1000)),
    ],
)
def test_progress_from_the_log(tmp_path: Path, line: str, limit: int, found: tuple) -> None:
    (tmp_path / 'log.txt').write_text(f'mmengine - INFO - {line}\n')
    assert steps(tmp_path / 'log.txt', limit) == found


def test_the_table_and_the_plot(tmp_path: Path) -> None:
    heads = {head.name: head for head in HEADS}
    results = [
        (
            heads['mask-rcnn'],
            Result('dat', 'mask-rcnn', {'coco/bbox_mAP_50': 0.81, 'coco/segm_mAP_50': 0.7}, True, 120, [(1, 2.0)]),
        ),
        (heads['fpn'], Result('datpp', 'fpn', {'mIoU': 69.96}, True, 60, [(1, 2.0), (2, 1.0)])),
        (heads['detr'], Result('dat', 'detr', {'coco/bbox_mAP_50': 0.2}, False, 60, [(1, 2.0)])),
    ]
    assert [result.passed(head) for head, result in results] == [True, False, False]
    rows = table(results).splitlines()[2:]
    assert rows[0] == '| Mask R-CNN | DAT | 0.810 | 0.700 |  |  | 0.8 | 2.0 | learns |'
    assert rows[1] == '| Semantic FPN | DAT++ |  |  | 70.0 |  | 70 | 1.0 | **does not learn** |'
    assert rows[2].endswith('| rising | 1.0 | **does not learn** |')
    plot(results, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').stat().st_size > 5000


def test_what_was_trained_with_another_config_is_put_aside(tmp_path: Path) -> None:
    work_dir, name = tmp_path / 'pvt_shapes', 'pvt_shapes'
    for trained_with, again, stays in (
        (read_config('pvt_shapes').pretty_text, False, True),
        (read_config('pvt_shapes').pretty_text, True, False),
        ('model = None', False, False),
    ):
        work_dir.mkdir(exist_ok=True)
        (work_dir / 'trained_with.py').write_text(trained_with)
        set_aside(work_dir, name, again)
        assert work_dir.exists() == stays
        for moved in tmp_path.glob('pvt_shapes_until_*'):
            assert (moved / 'trained_with.py').read_text() == trained_with  # nothing is lost
            shutil.rmtree(moved)


def test_variables_of_a_config_do_not_count() -> None:
    """A variable that another pair uses does not make this one be trained again."""
    config = read_config('pvt_shapes')
    assert {'model', 'train_dataloader', 'optim_wrapper', 'param_scheduler'} <= set(config)
    assert not any(key.startswith(('small_', 'shapes_')) for key in config)


@pytest.fixture
def run_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The tool's main function with something quick in place of training; returns its exit code."""

    def run(train: Callable[[str, threading.Event], float], *args: str) -> int:
        def quickly(head: Head, backbone: str, out: Path, _progress: object, _threads: int, stop: object) -> None:
            figures = {head.metric: train(backbone, stop)}
            (out / head.config(backbone)).mkdir(parents=True)
            result = Result(backbone, head.name, figures, True, 60.0, [(1, 2.0), (2, 1.0)])
            write_result(result, out / head.config(backbone))

        monkeypatch.setattr(learn, 'run_tool', lambda *_: None)
        monkeypatch.setattr(learn.signal, 'signal', lambda *_: None)
        monkeypatch.setattr(learn, 'train', quickly)
        monkeypatch.setattr(sys, 'argv', ['learn.py', '--out', str(tmp_path), *args])
        try:
            learn.main()
        except SystemExit as stopped:
            return stopped.code
        return 0

    return run


def test_pairs_at_the_same_time(run_learn, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    together, trained = threading.Barrier(2, timeout=60), []

    def train(backbone: str, _stop: object) -> float:
        together.wait()  # passes only where both train
        trained.append(backbone)
        return 95.0

    pairs = ['--only', 'dat_shapes', 'pvt_shapes', '--jobs', '2']
    assert run_learn(train, *pairs) == 0
    assert sorted(trained) == ['dat', 'pvt']
    written = (tmp_path / 'table.md').read_text()
    assert written.count('| 95.0 | 90 | 1.0 | learns |') == 2
    assert written in capsys.readouterr().out
    assert (tmp_path / 'curves.png').exists()
    assert run_learn(train, *pairs) == 0
    assert len(trained) == 2  # not again


def test_a_pair_that_fails_does_not_stop_the_others(run_learn, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def train(backbone: str, _stop: object) -> float:
        if backbone == 'pvt':
            raise UserError('pvt_shapes failed; its messages are in log.txt')
        return 95.0 if backbone == 'dat' else 50.0

    assert run_learn(train, '--only', 'pvt_shapes', 'dpt_shapes', 'dat_shapes', '--jobs', '1') == 2
    message = capsys.readouterr().err
    assert 'pvt_shapes failed; its messages are in log.txt' in message
    assert 'dpt_shapes does not learn' in message
    assert 'dat_shapes' not in message
    assert '| 95.0 | 90 | 1.0 | learns |' in (tmp_path / 'table.md').read_text()


def test_stopping_takes_the_trainings_along(
    run_learn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """What trains is told to stop, what waits is not started."""
    started, told = threading.Event(), []

    def train(backbone: str, stop: threading.Event) -> float:
        started.set()
        told.append((backbone, stop.wait(60)))
        raise UserError('stopped')

    def interrupted(_futures: object) -> None:
        assert started.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(learn, 'as_completed', interrupted)
    assert run_learn(train, '--only', 'pvt_shapes', 'dat_shapes', '--jobs', '1') == 2
    assert told == [('pvt', True)]
    assert 'the same command goes on from here' in capsys.readouterr().err


def test_unknown_pairs(tool) -> None:
    done = tool('learn.py', '--only', 'mask-rcnn_resnet_shapes', ok=False)
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        == 'learn.py: error: --only: mask-rcnn_resnet_shapes is not one of the pairs; --list shows them'
    )
