"""Images of any bands and bit depth are drawn as RGB."""

from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from mmengine.config import Config

from deformable_vit.apis import bands
from deformable_vit.apis.bands import read_rgb, to_rgb
from deformable_vit.apis.test import add_show


def test_the_first_three_bands_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(bands, 'print_log', lambda text, _logger, level: said.append(text))
    bands._say_what_is_drawn.cache_clear()
    image = np.arange(2 * 3 * 6, dtype=np.uint8).reshape(2, 3, 6)
    assert np.array_equal(to_rgb(image), image[..., [2, 1, 0]])
    assert np.array_equal(to_rgb(image, is_bgr=False), image[..., :3])
    assert len(said) == 1  # for each number of channels
    for gray in (image[..., 0], image[..., :1], image[..., :2]):
        assert np.array_equal(to_rgb(gray), np.stack([image[..., 0]] * 3, -1))
    assert ['6 channels' in text or '2 channels' in text for text in said] == [True, True]


def test_other_depths_are_stretched() -> None:
    ramp = np.linspace(100, 4000, 101).astype(np.uint16)[:, None].repeat(2, 1)
    drawn = to_rgb(ramp)
    assert drawn.dtype == np.uint8
    assert drawn[0].max() == 0
    assert drawn[-1].min() == 255
    assert abs(int(drawn[50, 0, 0]) - 127) <= 1
    assert to_rgb(np.full((2, 2), 7.0)).max() == 0
    holes = np.array([[np.nan, 0.0], [1.0, 2.0]])
    assert to_rgb(holes)[0, 0].max() == 0
    assert to_rgb(holes)[1, 1].min() == 255


def test_visualization_hooks_read_as_the_pipeline_does(tmp_path: Path) -> None:
    """OpenCV's three channels of an image of four are others if it is in 16 bits."""
    image = np.random.default_rng(0).integers(0, 4000, (8, 9, 4), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / 'x.png'), image)
    step = dict(type='LoadImageFromFile', color_type='unchanged')
    hook = dict(type='SegVisualizationHook')
    config = Config(
        dict(
            default_scope='mmseg',
            test_dataloader=dict(dataset=dict(pipeline=[step])),
            default_hooks=dict(visualization=hook),
            visualizer=dict(),
        )
    )
    add_show(config, False, str(tmp_path), 0)
    backend_args = config.default_hooks.visualization.backend_args
    seen = mmcv.imread(str(tmp_path / 'x.png'), channel_order='rgb', backend_args=backend_args)
    assert np.array_equal(seen, read_rgb(tmp_path / 'x.png', step))
    assert np.array_equal(seen, to_rgb(image))
    config.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile', backend_args=None)]
    config.default_hooks.visualization = hook
    add_show(config, False, str(tmp_path), 0)
    assert 'backend_args' not in config.default_hooks.visualization
