"""What a training says about its config and data before it starts: errors end it, warnings are one list."""

from pathlib import Path

import pytest
from mmengine.config import Config
from running import ROOT

from deformable_vit.apis import train
from deformable_vit.checks import Problem, Report
from deformable_vit.errors import UserError

DETECTOR = str(ROOT / 'configs' / 'demo' / 'retinanet_pvtv2_shapes.py')


def printed(monkeypatch: pytest.MonkeyPatch, *problems: Problem) -> str:
    lines: list[str] = []
    report = Report()
    report += problems
    monkeypatch.setattr(train, 'check', lambda *args, **kwargs: report)
    monkeypatch.setattr(train, 'print_log', lambda text, **kwargs: lines.append(text))
    train.check_before_training(Config(), 'own.py')
    assert len(lines) <= 1
    return ''.join(lines)


def test_warnings_are_one_line_for_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch) == ''
    many = [Problem('warning', 'train_dataloader', 'no box', 'train.json', f'image {i}') for i in range(30)]
    found = printed(monkeypatch, *many, Problem('warning', 'config', "nothing reads 'gpu_ids'", detail='today it is X'))
    first, *lines = found.splitlines()
    assert first.startswith('31 warnings')
    assert 'check_data.py own.py' in first
    assert lines == [
        '  train_dataloader: train.json, image 0: no box and 29 more',
        "  config: nothing reads 'gpu_ids' (today it is X)",
    ]


def test_an_error_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem('error', 'config', "nothing reads 'optimizer'", detail='today it is optim_wrapper.optimizer')
    with pytest.raises(UserError, match=r"^config: nothing reads 'optimizer' .*, and 1 more; .* --no-check"):
        printed(monkeypatch, problem, problem, Problem('warning', 'config', 'less'))


def test_errors_of_the_config_are_found_with_those_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / 'own.py'
    path.write_text(
        f"_base_ = {DETECTOR!r}\ntotal_epochs = 3\ntrain_dataloader = dict(sampler=dict(type='InfiniteSampler'))\n"
    )
    report = train.check(Config.fromfile(path), quick=True, loaders=('train_dataloader',))
    kinds = [problem.kind for problem in report.errors if problem.loader == 'config']
    assert len(kinds) == 2
    assert any('total_epochs' in kind for kind in kinds)
    assert any('InfiniteSampler' in kind for kind in kinds)
