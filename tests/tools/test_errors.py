"""What users get wrong: one line that names it and what to do, and no traceback."""

from pathlib import Path

import pytest
import torch

DETECTOR = 'retinanet_pvtv2_shapes.py'


def complaint(done) -> str:
    """The last line of what a tool printed, when it failed as it should."""
    assert done.returncode == 2, done.stderr[-2000:]
    assert 'Traceback' not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(('train.py: error: ', 'test.py: error: '))]
    assert len(lines) == 1, done.stderr[-2000:]
    return lines[0]


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['optim_wraper.optimizer.lr=1'], ["unknown key 'optim_wraper'", "did you mean 'optim_wrapper'"]),
        (['model.backbone.archh=tiny'], ['PVTv2', "'archh'"]),
        (['model.backbone.arch=b9'], ["no arch 'b9'", 'b0, b1, b2, b2-li']),
        (['model.backbone.type=PVTv3'], ['PVTv3 is not in the']),
        (['train_cfg.max_epoch=3'], ["'max_epoch'"]),
        (['train_dataloader.batchsize=3'], ["'batchsize'"]),
        (['train_dataloader.dataset.ann_file=nowhere.json'], ['nowhere.json']),
    ],
)
def test_train_options(tool, config, options: list[str], words: list[str]) -> None:
    line = complaint(tool('train.py', config(DETECTOR), '--cfg-options', *options, ok=False))
    assert all(word in line for word in words), line


def test_train_paths(tool, config, tmp_path: Path) -> None:
    cfg = config(DETECTOR)
    near = cfg.with_name(cfg.name.replace('shapes', 'shape'))
    line = complaint(tool('train.py', near, ok=False))
    assert f'config {near} does not exist; did you mean {cfg}?' in line
    assert 'gone.pth does not exist' in complaint(tool('train.py', cfg, '--resume', 'gone.pth', ok=False))
    (tmp_path / 'broken.py').write_text('model = dict(')
    assert 'broken.py cannot be read: SyntaxError' in complaint(tool('train.py', 'broken.py', ok=False))
    (tmp_path / 'other.py').write_text("model = dict(type='X')\ndefault_scope = 'mmpose'\n")
    assert "default_scope 'mmpose' is not mmdet, mmseg or mmpretrain" in complaint(
        tool('train.py', 'other.py', ok=False)
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without a GPU')
def test_train_without_gpu(tool, config) -> None:
    cfg = config(DETECTOR)
    assert '--amp needs a GPU' in complaint(tool('train.py', cfg, '--amp', ok=False))
    assert '--launcher slurm needs GPUs' in complaint(tool('train.py', cfg, '--launcher', 'slurm', ok=False))
    assert 'expects torchrun to set RANK' in complaint(tool('train.py', cfg, '--launcher', 'pytorch', ok=False))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_checkpoints_of_test(tool, config, tmp_path: Path) -> None:
    cfg = config(DETECTOR)
    assert 'gone.pth does not exist' in complaint(tool('test.py', cfg, 'gone.pth', ok=False))

    other = {'state_dict': {'backbone.layer1.0.conv1.weight': torch.zeros(1)}}
    torch.save(other, tmp_path / 'resnet.pth')
    line = complaint(tool('test.py', cfg, 'resnet.pth', ok=False))
    assert 'resnet.pth is not of the model of this config: 0 parameters match' in line
    assert 'backbone.layer1.0.conv1.weight' in line

    torch.save(other | {'evil': Evil(tmp_path / 'victim')}, tmp_path / 'evil.pth')
    assert 'evil.pth is refused' in complaint(tool('test.py', cfg, 'evil.pth', ok=False))
    for option in (['--resume', 'evil.pth'], ['--cfg-options', 'load_from=evil.pth']):
        assert 'evil.pth is refused' in complaint(tool('train.py', cfg, *option, ok=False))
    assert not (tmp_path / 'victim').exists()


def test_outputs_of_test(tool, config, tmp_path: Path) -> None:
    cfg = config(DETECTOR)
    (tmp_path / 'mine.pkl').write_text('precious')
    assert '--out mine.pkl exists already' in complaint(tool('test.py', cfg, 'x.pth', '--out', 'mine.pkl', ok=False))
    assert (tmp_path / 'mine.pkl').read_text() == 'precious'
    assert 'name a .pkl file' in complaint(tool('test.py', cfg, 'x.pth', '--out', 'folder', ok=False))
    segmentor = config('fpn_pvt_shapes.py')
    assert 'name a folder' in complaint(tool('test.py', segmentor, 'x.pth', '--out', 'p.pkl', ok=False))
