"""From an image to the input of a model, by the test pipeline of its config, and back to pixels of the image."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope

from .._nested import test_dataset, type_name
from ..apis.bands import is_bgr, loading_step, to_rgb
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


def prepare(config: Config, image: str | Path | Array) -> ModelInput:
    """Read an image and apply the test pipeline of a config; see :func:`.recording.record` for the arguments.

    Raises:
        UserError: The config has no pipeline that loads images.
    """
    init_default_scope(config.default_scope)
    steps = [copy.deepcopy(dict(step)) for step in test_dataset(config)['pipeline']]
    steps = [step for step in steps if type_name(step['type']) not in _ANNOTATIONS]
    results: dict[str, Any] = dict(img_id=0, seg_fields=[], img_path='')
    if isinstance(image, (str, Path)):
        results['img_path'] = str(image)
    else:
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        steps = [step for step in steps if not type_name(step['type']).startswith('LoadImage')]
    to_image, original = Affine(), None
    for step, transform in zip(steps, Compose(steps).transforms, strict=True):
        before = results.get('img')
        original = before if original is None else original
        packed = transform(results)
        if 'img' not in packed:  # packed for the model
            break
        results, after = packed, packed['img'].shape[:2]
        if before is not None and before.shape[:2] != after:
            to_image = to_image.after(_geometry(type_name(step['type']), before.shape[:2], after))
    assert original is not None
    rgb = to_rgb(original, is_bgr(loading_step(config)))
    size = packed['inputs'].shape[-2:]
    data = dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
    return ModelInput(data, rgb, to_image, (int(size[0]), int(size[1])))


def _geometry(kind: str, before: tuple[int, int], after: tuple[int, int]) -> Affine:
    """Return the map from pixels after a transform to those before it."""
    if 'Pad' in kind:  # at the bottom and right
        return Affine()
    if 'Crop' in kind:
        top, left = (max(0, round((b - a) / 2)) for b, a in zip(before, after, strict=True))
        return Affine(shift=(left, top))
    return Affine.of_resize(before, after)
