"""From an image to the input of a model, by the test pipeline of its config, and back to pixels of the image."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..engine.inference import test_dataset
from ..engine.inputs import swap_channels
from .affine import Affine, Array

# Transforms that need annotations, which an image of one's own does not have.
_ANNOTATIONS = ('LoadAnnotations', 'LoadPanopticAnnotations', 'InstanceNormalize')


@dataclass
class ModelInput:
    """The input of a model.

    Attributes:
        data: Argument of ``model.test_step``.
        image: (height, width, 3), RGB, as it was read.
        to_image: Maps pixels of the network's input to pixels of the image.
        size: (height, width) of the network's input without padding.
    """

    data: dict[str, Any]
    image: Array
    to_image: Affine
    size: tuple[int, int]


def prepare(config: Config, image: str | Path | Array, max_size: int | None = None) -> ModelInput:
    """Read an image and apply the test pipeline of a config.

    Args:
        config: Config with ``test_dataloader`` and ``default_scope``.
        image: Path, or (height, width, 3) in BGR.
        max_size: Limit of the longer side of the network's input in pixels: all sizes of the pipeline shrink alike.

    Raises:
        UserError: The config has no pipeline that loads images.
    """
    init_default_scope(config.default_scope)
    pipeline = test_dataset(config)['pipeline']
    steps = [copy.deepcopy(dict(t)) for t in pipeline if t['type'].split('.')[-1] not in _ANNOTATIONS]
    result = _apply(steps, image)
    longest = max(result.size)
    if max_size is not None and longest > max_size:
        result = _apply([_shrunk(step, max_size / longest) for step in steps], image)
    return result


def _apply(steps: list[dict[str, Any]], image: str | Path | Array) -> ModelInput:
    results: dict[str, Any] = dict(img_id=0, seg_fields=[])
    if isinstance(image, (str, Path)):
        results['img_path'] = str(image)
    else:
        shape = image.shape[:2]
        results.update(img=image, img_path='', img_shape=shape, ori_shape=shape)
        steps = [step for step in steps if not step['type'].split('.')[-1].startswith('LoadImage')]
    to_image, original = Affine(), None
    for step, transform in zip(steps, Compose(steps).transforms, strict=True):
        before = results['img'].shape[:2] if 'img' in results else None
        if original is None and before is not None:
            original = swap_channels(results['img'])
        packed = transform(results)
        if 'img' not in packed:  # packed for the model
            break
        results, after = packed, packed['img'].shape[:2]
        if before is not None and before != after:
            to_image = to_image.after(_geometry(step['type'], before, after))
    size = packed['inputs'].shape[-2:]
    data = dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
    assert original is not None
    return ModelInput(data, original, to_image, (int(size[0]), int(size[1])))


def _geometry(kind: str, before: tuple[int, int], after: tuple[int, int]) -> Affine:
    """Return the map from pixels after a transform to those before it."""
    if 'Pad' in kind:  # at the bottom and right
        return Affine()
    if 'Crop' in kind:
        top, left = (max(0, round((b - a) / 2)) for b, a in zip(before, after, strict=True))
        return Affine(shift=(left, top))
    return Affine.of_resize(before, after)


def _shrunk(step: dict[str, Any], factor: float) -> dict[str, Any]:
    """Return a transform with its sizes multiplied."""

    def shrink(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(shrink(v) for v in value)
        # -1 and infinity stand for no limit.
        return max(32, int(value * factor)) if value > 0 and math.isfinite(value) else value

    return {k: shrink(v) if k in ('scale', 'crop_size', 'size') and v else v for k, v in step.items()}
