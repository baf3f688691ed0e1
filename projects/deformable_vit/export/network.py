"""An exported file as a module."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError, shown
from .running import ExportedFile


@MODELS.register_module()
class ExportedNetwork(nn.Module):
    """Run an exported file on batches of any size.

    Images are padded to the size of a file of fixed size, and run one after the other if its batch is 1. What the
    padding adds to logits and label maps is cut off.

    Args:
        file: A file that ``tools/export.py`` wrote.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.name, self.file = file, ExportedFile(Path(file))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W), normalized unless the file does that -> the outputs of the file."""
        metadata, (h, w) = self.file.metadata, images.shape[2:]
        height, width = self._size(h, w)
        padding = (0, width - w, 0, height - h)
        if metadata['preprocessing']:
            mean = images.new_tensor(metadata['mean']).round()[:, None, None]  # 0 when it is normalized
            mean = mean.flip(0) if metadata['channel_order'] == 'RGB' else mean  # the pipeline reads BGR
            x = (F.pad(images - mean, padding) + mean).round().byte().permute(0, 2, 3, 1)
        else:
            x = F.pad(images, padding)
        parts = x.split(1) if metadata['input_shape'][0] == 1 else [x]
        outputs: list[dict[str, Any]] = [self.file(part) for part in parts]
        whole = {name: torch.cat([output[name] for output in outputs]).to(images.device) for name in outputs[0]}
        return tuple(
            y[..., :h, :w] if name in ('logits', 'label_map') and y.dim() > 2 else y for name, y in whole.items()
        )

    def _size(self, h: int, w: int) -> tuple[int, int]:
        """Return the height and the width that the file takes, for an image of h x w pixels."""
        metadata = self.file.metadata
        height, width = metadata['input_shape'][1:3] if metadata['preprocessing'] else metadata['input_shape'][2:]
        if isinstance(height, str):  # dynamic
            return max(h, metadata['smallest']), max(w, metadata['smallest'])
        is_fixed = metadata['task'] == 'classification'  # which padding would change
        if h > height or w > width or (is_fixed and (h, w) != (height, width)):
            raise UserError(
                f'{shown(self.name)} takes images of {height} x {width} pixels, and there is one of {h} x {w}; export '
                'it with another --shape'
            )
        return height, width
