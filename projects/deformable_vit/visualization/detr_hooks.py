"""Record multi-scale deformable attention: Deformable DETR, DINO, the pixel decoder of Mask2Former.

The modules are mmcv's and mmdet's. The outputs of their linear layers for offsets and weights are recorded as they are;
reference points come from their arguments.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor, nn

from .affine import Affine
from .hooks import to_numpy
from .layer_data import Layer, PointsLayer


@contextmanager
def record_points(
    model: nn.Module, to_image: Affine, input_size: list[tuple[int, int]], layers: list[Layer]
) -> Iterator[None]:
    """Append to ``layers`` what each multi-scale deformable attention uses.

    Args:
        model: The model; its input must be one image.
        to_image: Maps pixels of the network's input to pixels of the image.
        input_size: Holds (height, width) of the network's input with its padding, once it is known.
        layers: The layers so far.
    """

    def keep(outputs: dict[str, Tensor], linear: str, _module: nn.Module, _args: Any, out: Tensor) -> None:
        outputs[linear] = out

    def append(
        name: str, outputs: dict[str, Tensor], module: nn.Module, _args: Any, kwargs: dict[str, Any], _out: Any
    ) -> None:
        layer = _points_layer(module, outputs, kwargs, to_image, input_size[0], name)
        layer.block = 1 + sum(isinstance(x, PointsLayer) and x.is_encoder == layer.is_encoder for x in layers)
        layers.append(layer)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, MultiScaleDeformableAttention):
                outputs: dict[str, Tensor] = {}
                for linear in ('sampling_offsets', 'attention_weights'):
                    hook = partial(keep, outputs, linear)
                    stack.callback(module.get_submodule(linear).register_forward_hook(hook).remove)
                stack.callback(module.register_forward_hook(partial(append, name, outputs), with_kwargs=True).remove)
        yield


def _points_layer(
    module: Any,
    outputs: dict[str, Tensor],
    kwargs: dict[str, Any],
    to_image: Affine,
    input_size: tuple[int, int],
    name: str,
) -> PointsLayer:
    reference, shapes = kwargs['reference_points'], kwargs['spatial_shapes']
    heads, levels, points = module.num_heads, module.num_levels, module.num_points
    offsets, weights = outputs['sampling_offsets'], outputs['attention_weights']
    if len(offsets) != 1:
        raise ValueError(f'recording takes one image at a time, got a batch of {len(offsets)}')
    offsets = offsets.unflatten(-1, (heads, levels, points, 2))
    sizes = tuple((int(h), int(w)) for h, w in shapes.tolist())
    extents = np.array([level_extent(hw, input_size) for hw in sizes])
    if reference.shape[-1] == 2:
        offsets = offsets / shapes.flip(-1)[:, None]
    else:  # a fraction of half the reference box
        offsets = offsets / points * reference[:, :, None, :, None, 2:] * 0.5
    locations = reference[:, :, None, :, None, :2] + offsets  # of the levels' (width, height), padding included
    counts = [h * w for h, w in sizes]
    is_encoder = offsets.shape[1] == sum(counts)
    # A pixel of the encoder is where it is in its own level; object queries are points of the first level.
    own = np.repeat(np.arange(levels), counts) if is_encoder else np.zeros(len(locations[0]), int)
    first = to_numpy(reference[0])[np.arange(len(own)), own, :2]
    return PointsLayer(
        kind='deformable_detr',
        stage=0,
        block=0,
        name=name,
        query_grid=(1, offsets.shape[1]),
        to_image=to_image,
        heads=heads,
        groups=heads,
        levels=sizes,
        locations=to_image(to_numpy(locations[0]) * extents[:, None] - 0.5),
        weights=to_numpy(weights[0].unflatten(-1, (heads, -1)).softmax(-1).unflatten(-1, (levels, points))),
        reference=to_image(first * extents[own] - 0.5),
        is_encoder=is_encoder,
    )


def level_extent(level: tuple[int, int], input_size: tuple[int, int]) -> tuple[float, float]:
    """Return (width, height) in pixels of the network's input that a level covers.

    A level of stride s has ceil(H / s) rows, so it ends at or beyond the end of the input. Strides are powers of two;
    a level that has none covers the input. Both arguments are (height, width), that of the input with its padding.
    """
    stride = 2 ** round(math.log2(max(n / m for n, m in zip(input_size, level, strict=True))))
    for s in (stride, 2 * stride):
        if all(-(-n // s) == m for n, m in zip(input_size, level, strict=True)):
            return level[1] * s, level[0] * s
    return input_size[1], input_size[0]


@contextmanager
def record_objects(
    model: nn.Module, image_size: tuple[int, int], to_image: Affine, layers: list[Layer]
) -> Iterator[None]:
    """Add to the decoder's layers the box, class and score of each object query, from the head's last output.

    Args:
        model: The model.
        image_size: (height, width) of the network's input without padding, the unit of the boxes.
        to_image: Maps pixels of the network's input to pixels of the image.
        layers: The recorded layers.
    """

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        decoder = [x for x in layers if isinstance(x, PointsLayer) and not x.is_encoder]
        if not decoder:
            return
        logits, boxes = (out[-1][0].float() for out in output[:2])  # (queries, classes), (queries, 4) as cx, cy, w, h
        scores, labels = logits.sigmoid().max(-1)
        center, half = boxes[:, :2], boxes[:, 2:] / 2
        corners = torch.stack([center - half, center + half], dim=1) * center.new_tensor(image_size).flip(0)
        for layer in decoder:
            layer.boxes = to_image(to_numpy(corners) - 0.5).reshape(-1, 4)
            layer.labels, layer.scores = labels.cpu().numpy(), to_numpy(scores)

    head = getattr(model, 'bbox_head', None)
    with ExitStack() as stack:
        if head is not None:
            stack.callback(head.register_forward_hook(hook).remove)
        yield
