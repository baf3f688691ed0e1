"""tools/export.py as users run it, and tools/test.py with the files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from running import ROOT, read_metrics


def write_checkpoint(config: Path, path: Path) -> Path:
    """Write the untrained model of a config."""
    loaded = Config.fromfile(config)
    init_default_scope(loaded.default_scope)
    loaded.model.backbone.init_cfg = None
    if loaded.default_scope == 'mmpretrain':
        loaded.model.data_preprocessor = loaded.data_preprocessor
    torch.save(dict(state_dict=MODELS.build(loaded.model).state_dict(), meta={}), path)
    return path


@pytest.mark.slow
def test_a_segmentor_has_the_metric_of_its_checkpoint(tool, config, tmp_path: Path) -> None:
    """As logits of any size, and as label maps from bytes."""
    cfg = config('fpn_pvtv2_shapes.py')
    tool('train.py', cfg, '--work-dir', 'run')
    tool('test.py', cfg, 'run/iter_4.pth', '--work-dir', 'checkpoint', '--out', 'maps')
    expected = read_metrics(tmp_path / 'checkpoint')['mIoU']
    assert expected > 0
    for run, name, flags in (
        ('logits', 'a.onnx', []),
        ('labels', 'b.xml', ['--argmax', '--with-preprocessing', '--shape', 96, 96]),
    ):
        tool('export.py', cfg, 'run/iter_4.pth', '--out', name, *flags)
        tool('test.py', cfg, name, '--work-dir', run, '--out', f'{run}_maps', '--show-dir', 'seen')
        assert read_metrics(tmp_path / run)['mIoU'] == pytest.approx(expected, abs=0.1)
        for file in (tmp_path / 'maps').iterdir():
            a, b = (cv2.imread(str(maps / file.name), -1) for maps in (tmp_path / 'maps', tmp_path / f'{run}_maps'))
            assert np.mean(a != b) < 1e-3
    assert list((tmp_path / 'seen').rglob('*.png'))
