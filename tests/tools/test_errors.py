"""Errors of users: one line that names the value and the fix, and no traceback."""

from pathlib import Path

import pytest
import torch

DETECTOR = 'retinanet_pvtv2_shapes.py'


def error_of(done) -> str:
    """Return the one line that a tool printed when it failed."""
    assert done.returncode == 2, done.stderr[-2000:]
    assert 'Traceback' not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(('train.py: error: ', 'test.py: error: '))]
    assert len(lines) == 1, done.stderr[-2000:]
    return lines[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['optim_wraper.optimizer.lr=1'], ["unknown key 'optim_wraper'", "did you mean 'optim_wrapper'"]),
        (['model.backbone.archh=tiny'], ["unknown key 'archh'", "did you mean 'arch'"]),
        (['model.backbone.arch=b9'], ["no arch 'b9'", 'b0, b1, b2, b2-li']),
        (['model.backbone.type=PVTv3'], ["there is no 'PVTv3'", "did you mean 'PVTv2'"]),
        (['train_cfg.max_epoch=3'], ["'max_epoch'"]),
        (['train_dataloader.batchsize=3'], ["'batchsize'"]),
        (['train_dataloader.dataset.ann_file=nowhere.json'], ['nowhere.json']),
        (['custom_hooks=[dict(type="EMAHook",momentum=0.1)]'], ['write custom_hooks in a config', "_base_ = '"]),
        (['efficient_conv_bn_eval=[backbone]'], ["efficient_conv_bn_eval=['backbone']", 'torch.fx', 'remove it']),
    ],
)
def test_wrong_options_are_named(tool, config, options: list[str], words: list[str]) -> None:
    line = error_of(tool('train.py', config(DETECTOR), '--cfg-options', *options, ok=False))
    assert all(word in line for word in words), line


@pytest.mark.slow
def test_wrong_environment_variables_are_named(tool, config) -> None:
    for variable, words in (
        (dict(DEFORMABLE_VIT_PATH='auto'), 'DEFORMABLE_VIT_PATH was renamed: unset it and set DEFORMABLE_VIT_BACKEND'),
        (dict(DEFORMABLE_VIT_BACKEND='fast'), 'DEFORMABLE_VIT_BACKEND must be one of auto, reference, chunked'),
    ):
        assert words in error_of(tool('train.py', config(DETECTOR), ok=False, **variable))


@pytest.mark.slow
def test_wrong_paths_are_named(tool, config, tmp_path: Path) -> None:
    cfg = config(DETECTOR)
    near = cfg.with_name(cfg.name.replace('shapes', 'shape'))
    line = error_of(tool('train.py', near, ok=False))
    assert f'config {near} does not exist; did you mean {cfg}?' in line
    assert 'gone.pth does not exist' in error_of(tool('train.py', cfg, '--resume', 'gone.pth', ok=False))
    (tmp_path / 'broken.py').write_text('model = dict(')
    assert 'broken.py cannot be read: SyntaxError' in error_of(tool('train.py', 'broken.py', ok=False))
    (tmp_path / 'other.py').write_text("model = dict(type='X')\ndefault_scope = 'mmpose'\n")
    assert "default_scope 'mmpose' is not mmdet, mmseg or mmpretrain" in error_of(
        tool('train.py', 'other.py', ok=False)
    )


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='tests machines without a GPU')
def test_arguments_that_need_a_gpu_are_refused_without_one(tool, config) -> None:
    cfg = config(DETECTOR)
    assert '--amp needs a GPU' in error_of(tool('train.py', cfg, '--amp', ok=False))
    assert '--launcher slurm needs GPUs' in error_of(tool('train.py', cfg, '--launcher', 'slurm', ok=False))
    assert 'expects torchrun to set RANK' in error_of(tool('train.py', cfg, '--launcher', 'pytorch', ok=False))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.slow
def test_wrong_and_unsafe_checkpoints_are_refused(tool, config, tmp_path: Path) -> None:
    cfg = config(DETECTOR)
    assert 'gone.pth does not exist' in error_of(tool('test.py', cfg, 'gone.pth', ok=False))

    other = {'state_dict': {'backbone.layer1.0.conv1.weight': torch.zeros(1)}}
    torch.save(other, tmp_path / 'resnet.pth')
    line = error_of(tool('test.py', cfg, 'resnet.pth', ok=False))
    assert 'resnet.pth does not fit the model of this config: 0 of ' in line
    assert 'backbone.layer1.0.conv1.weight' in line

    torch.save(other | {'evil': Evil(tmp_path / 'victim')}, tmp_path / 'evil.pth')
    assert 'evil.pth is refused' in error_of(tool('test.py', cfg, 'evil.pth', ok=False))
    for option in (['--resume', 'evil.pth'], ['--cfg-options', 'load_from=evil.pth']):
        assert 'evil.pth is refused' in error_of(tool('train.py', cfg, *option, ok=False))
    assert not (tmp_path / 'victim').exists()


@pytest.mark.slow
def test_out_overwrites_nothing_and_fits_the_task(tool, config, tmp_path: Path) -> None:
    cfg = config(DETECTOR)
    (tmp_path / 'mine.pkl').write_text('precious')
    assert '--out mine.pkl exists already' in error_of(tool('test.py', cfg, 'x.pth', '--out', 'mine.pkl', ok=False))
    assert (tmp_path / 'mine.pkl').read_text() == 'precious'
    assert 'name a .pkl file' in error_of(tool('test.py', cfg, 'x.pth', '--out', 'directory', ok=False))
    segmentor = config('fpn_pvt_shapes.py')
    assert 'name a directory' in error_of(tool('test.py', segmentor, 'x.pth', '--out', 'p.pkl', ok=False))
