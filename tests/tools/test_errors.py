"""Errors of users: one line that names the value and the fix, and no traceback."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import ROOT

DETECTOR = 'retinanet_pvtv2_shapes.py'


def the_line(tool: str, stderr: str) -> str:
    """Return the one line that a tool printed when it failed."""
    assert 'Traceback' not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith(f'{tool}: error: ')]
    assert len(lines) == 1, stderr[-2000:]
    return lines[0]


@pytest.fixture
def error_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., str]:
    """Run a tool that fails, in this process, because a start takes seconds; return its message."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')  # the tools set it

    def run(tool: str, *args: object) -> str:
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
        assert ended.value.code == 2
        return the_line(tool, capfd.readouterr().err)

    return run


@pytest.mark.slow
def test_wrong_options_are_named(error_of, config) -> None:
    path = config(DETECTOR)
    for option, words in (
        ('optim_wraper.optimizer.lr=1', ["unknown key 'optim_wraper'", "did you mean 'optim_wrapper'"]),
        ('model.backbone.archh=tiny', ["unknown key 'archh'", "did you mean 'arch'"]),
        ('model.backbone.arch=b9', ["no arch 'b9'", 'b0, b1, b2, b2-li']),
        ('model.backbone.type=PVTv3', ['PVTv3 is not in the mmdet::model registry']),
        ('train_cfg.max_epoch=3', ["'max_epoch'"]),
        ('train_dataloader.batchsize=3', ["'batchsize'"]),
        ('train_dataloader.dataset.ann_file=nowhere.json', ['nowhere.json']),
        ('custom_hooks=[dict(type="EMAHook",momentum=0.1)]', ['write custom_hooks in a config', "_base_ = '"]),
        ('efficient_conv_bn_eval=[backbone]', ['TraceError']),
    ):
        line = error_of('train.py', path, '--cfg-options', option)
        assert all(word in line for word in words), line


@pytest.mark.slow
def test_wrong_environment_variables_are_named(tool, config) -> None:
    done = tool('train.py', config(DETECTOR), ok=False, DEFORMABLE_VIT_BACKEND='fast')
    assert done.returncode == 2
    words = 'DEFORMABLE_VIT_BACKEND must be one of auto, reference, chunked'
    assert words in the_line('train.py', done.stderr)


def test_wrong_paths_are_named(error_of, config, tmp_path: Path) -> None:
    cfg = config(DETECTOR)
    near = cfg.with_name(cfg.name.replace('shapes', 'shape'))
    assert f'config {near} does not exist; did you mean {cfg}?' in error_of('train.py', near)
    assert 'gone.pth does not exist' in error_of('train.py', cfg, '--resume', 'gone.pth')
    (tmp_path / 'broken.py').write_text('model = dict(')
    assert 'broken.py cannot be read: SyntaxError' in error_of('train.py', 'broken.py')
    (tmp_path / 'other.py').write_text("model = dict(type='X')\ndefault_scope = 'mmpose'\n")
    assert "default_scope 'mmpose' is not mmdet, mmseg or mmpretrain" in error_of('train.py', 'other.py')


@pytest.mark.skipif(torch.cuda.is_available(), reason='tests machines without a GPU')
def test_arguments_that_need_a_gpu_are_refused_without_one(error_of, config) -> None:
    cfg = config(DETECTOR)
    assert '--amp needs a GPU' in error_of('train.py', cfg, '--amp')
    assert '--launcher slurm needs GPUs' in error_of('train.py', cfg, '--launcher', 'slurm')
    assert 'expects torchrun to set RANK' in error_of('train.py', cfg, '--launcher', 'pytorch')


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.slow
def test_wrong_and_unsafe_checkpoints_are_refused(error_of, config, tmp_path: Path) -> None:
    cfg = config(DETECTOR)
    assert 'gone.pth does not exist' in error_of('test.py', cfg, 'gone.pth')

    other = {'state_dict': {'backbone.layer1.0.conv1.weight': torch.zeros(1)}}
    torch.save(other, tmp_path / 'resnet.pth')
    line = error_of('test.py', cfg, 'resnet.pth')
    assert 'resnet.pth does not fit the model of this config: 0 of ' in line
    assert 'backbone.layer1.0.conv1.weight' in line

    torch.save(other | {'evil': Evil(tmp_path / 'victim')}, tmp_path / 'evil.pth')
    assert 'evil.pth is refused' in error_of('test.py', cfg, 'evil.pth')
    for option in (['--resume', 'evil.pth'], ['--cfg-options', 'load_from=evil.pth']):
        assert 'evil.pth is refused' in error_of('train.py', cfg, *option)
    assert not (tmp_path / 'victim').exists()


def test_out_overwrites_nothing_and_fits_the_task(error_of, config, tmp_path: Path) -> None:
    cfg = config(DETECTOR)
    (tmp_path / 'mine.pkl').write_text('precious')
    assert '--out mine.pkl exists already' in error_of('test.py', cfg, 'x.pth', '--out', 'mine.pkl')
    assert (tmp_path / 'mine.pkl').read_text() == 'precious'
    assert 'name a .pkl file' in error_of('test.py', cfg, 'x.pth', '--out', 'directory')
    assert 'name a directory' in error_of('test.py', config('fpn_pvt_shapes.py'), 'x.pth', '--out', 'p.pkl')
