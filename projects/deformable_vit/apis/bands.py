"""Images of any bands and bit depth for drawing: their first three bands, as RGB of 8 bits."""

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from .._nested import type_name, walk

Array = np.ndarray[Any, Any]


def to_rgb(image: Array, is_bgr: bool = True) -> Array:
    """Return the first three bands of an image as RGB of 8 bits, (H, W, 3); of two bands the first.

    Values of other than 8 bits are stretched: the lowest percent is black, the highest white.

    Args:
        image: (H, W) or (H, W, C).
        is_bgr: Whether the first three bands are blue, green and red, as OpenCV reads them.
    """
    bands = np.atleast_3d(image)
    count = bands.shape[-1]
    if count not in (1, 3):
        _say_what_is_drawn(count)
    bands = bands[..., :3] if count >= 3 else bands[..., :1]
    bands = bands[..., ::-1] if is_bgr else bands
    if bands.dtype != np.uint8:
        low, high = np.nanpercentile(bands, (1, 99))
        stretched = (bands - low) * (255 / (high - low) if high > low else 0.0)
        bands = np.nan_to_num(stretched).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(bands, (*bands.shape[:2], 3)))


@cache
def _say_what_is_drawn(count: int) -> None:
    drawn = 'the first is' if count < 3 else 'the first three are'
    print_log(f'images of {count} channels: {drawn} drawn', 'current', logging.WARNING)


def loading_step(config: Config) -> dict[str, Any]:
    """Return the first ``LoadImageFromFile`` of the test pipeline, without ``to_float32``; empty if there is none."""
    for _, step in walk(config.get('test_dataloader'), ''):
        if isinstance(step, dict) and type_name(step.get('type')) == 'LoadImageFromFile':
            return {key: value for key, value in step.items() if key != 'to_float32'}
    return {}


def is_bgr(step: Mapping[str, Any]) -> bool:
    """Return whether a transform loads color images as BGR; tifffile keeps the order of the file."""
    return step.get('imdecode_backend') != 'tifffile'


def read_rgb(path: str | Path, step: Mapping[str, Any]) -> Array:
    """Return an image as the transform ``step`` loads it, as RGB of 8 bits, (H, W, 3)."""
    return to_rgb(Compose([dict(step)])(dict(img_path=str(path)))['img'], is_bgr(step))


class DrawnImageBackend(LocalBackend):
    """mmengine's backend for the images that the visualization hooks of mmdet and mmseg draw on.

    The hooks read them again with OpenCV, as three channels, which fails for those of more than four. With
    ``backend_args=dict(backend='deformable_vit.drawn_image', step=...)`` they get what :func:`read_rgb` returns.
    """

    def __init__(self, step: Mapping[str, Any]) -> None:
        self.step = step

    def get(self, filepath: str | Path) -> bytes:
        return cv2.imencode('.png', read_rgb(filepath, self.step)[..., ::-1])[1].tobytes()


register_backend('deformable_vit.drawn_image', DrawnImageBackend, force=True)
