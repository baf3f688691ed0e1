"""Record one image of one model: the entry point."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.base import PyramidBackbone
from .affine import Affine, Array
from .detr_hooks import record_objects, record_points
from .hooks import record_backbone
from .layer_data import Layer, PointsLayer
from .model_input import prepare


@dataclass
class Recording:
    """A forward pass: the image, and what each layer used.

    Attributes:
        size: (height, width) of the image in pixels.
        input_box: x0, y0, x1, y1 of what the network saw of the image, from border to border, in pixels of the image.
        layers: In the order in which they ran.
        output: The model's return value.
        image: (height, width, 3), RGB; None if the model got a tensor.
    """

    size: tuple[int, int]
    input_box: tuple[float, ...] = (0, 0, 0, 0)
    layers: list[Layer] = field(default_factory=list)
    output: Any = None
    image: Array | None = None

    def default_query(self) -> tuple[float, float]:
        """Return the center of the most confident object query's box, else of the image, (x, y) in pixels."""
        for layer in reversed(self.layers):
            if isinstance(layer, PointsLayer) and layer.boxes is not None and layer.scores is not None:
                x0, y0, x1, y1 = layer.boxes[int(layer.scores.argmax())].tolist()
                return (x0 + x1) / 2, (y0 + y1) / 2
        height, width = self.size
        return (width - 1) / 2, (height - 1) / 2


def record(model: nn.Module, image: Tensor | str | Path | Array) -> Recording:
    """Run a model on one image and return what each layer used; see :mod:`.layer_data` for the arrays and their units.

    Forward hooks record, and are removed again; outputs are those of a run without them.

    Args:
        model: A backbone, or a model of mmdet, mmseg or mmpretrain with one, in evaluation mode. For an image that is
            not a tensor it needs its config as ``model.cfg``, as ``init_detector`` and the inferencers set it.
        image: (1, 3, H, W), the input of ``model.forward``, as it is; or a path or an (H, W, 3) array in BGR, which
            pass the test pipeline of the config.

    Raises:
        ValueError: There is more than one image, the model has no config, or a recorded number is not finite.
    """
    if isinstance(image, Tensor):
        if image.ndim != 4 or len(image) != 1:
            raise ValueError(f'record takes one image (1, 3, H, W), got a tensor of shape {tuple(image.shape)}')
        size = (int(image.shape[-2]), int(image.shape[-1]))
        return _run(model, Recording(size), Affine(), size, partial(model, image))
    if getattr(model, 'cfg', None) is None:
        raise ValueError('record needs the config as model.cfg to prepare an image; set it, or pass a tensor')
    inputs = prepare(model.cfg, image)
    recording = Recording(inputs.image.shape[:2], image=inputs.image)
    step: Any = model.test_step
    return _run(model, recording, inputs.to_image, inputs.size, lambda: step(inputs.data)[0])


def _run(model: nn.Module, recording: Recording, to_image: Affine, size: tuple[int, int], forward: Any) -> Recording:
    padded: list[tuple[int, int]] = []

    def keep_size(_module: nn.Module, args: tuple[Any, ...]) -> None:
        padded.append((int(args[0].shape[-2]), int(args[0].shape[-1])))

    with torch.no_grad(), ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, PyramidBackbone):
                stack.enter_context(record_backbone(module, name, to_image, recording.layers))
        backbone = getattr(model, 'backbone', model)
        stack.callback(backbone.register_forward_pre_hook(keep_size).remove)
        stack.enter_context(record_points(model, to_image, padded, recording.layers))
        stack.enter_context(record_objects(model, size, to_image, recording.layers))
        recording.output = forward()
    if len(padded) != 1:
        raise ValueError(
            f'the backbone ran {len(padded)} times; set model.test_cfg to whole images without augmentation'
        )
    corners = to_image(np.array([(-0.5, -0.5), (size[1] - 0.5, size[0] - 0.5)]))
    recording.input_box = tuple(corners.ravel().tolist())
    return recording
