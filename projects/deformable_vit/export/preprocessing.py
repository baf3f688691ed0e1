"""What a config does to an image between its pipeline and the network: channel order, mean, std and padding."""

from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..ops import pad_to_multiple


@dataclass(frozen=True)
class Preprocessing:
    """The settings of a data preprocessor in testing.

    Attributes:
        mean: Per channel, in the order of the network.
        std: Per channel, in the order of the network.
        swap: Whether the pipeline reads BGR and the network takes RGB, or the reverse.
        divisor: Height and width are padded to multiples of this, at the bottom and at the right.
        pad_value: The padding, after normalization.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    swap: bool = False
    divisor: int = 1
    pad_value: float = 0.0

    @classmethod
    def of(cls, config: Config) -> 'Preprocessing':
        """Return the settings of a config, under the names of mmdet, mmseg or mmpretrain."""
        found: dict[str, Any] = config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}
        in_testing = found.get('test_cfg') or {}
        return cls(
            mean=tuple(map(float, found.get('mean') or cls.mean)),
            std=tuple(map(float, found.get('std') or cls.std)),
            swap=any(found.get(key, False) for key in ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb')),
            divisor=found.get('pad_size_divisor') or in_testing.get('size_divisor') or 1,
            pad_value=float(found.get('pad_value', found.get('pad_val', 0))),
        )

    @property
    def channel_order(self) -> str:
        """Return the order of the network's channels; pipelines read BGR."""
        return 'RGB' if self.swap else 'BGR'

    def normalize(self, image: Tensor) -> Tensor:
        """(B, H, W, C) as the pipeline reads it, 0 to 255 -> (B, C, H, W) as the network takes it."""
        x = image.permute(0, 3, 1, 2).float()
        x = x.flip(1) if self.swap and image.shape[3] == 3 else x
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (self.mean, self.std))
        return (x - mean) / std


class WithPreprocessing(nn.Module):
    """A module that takes (B, H, W, C) uint8, as the pipeline reads it, and returns maps of that size."""

    def __init__(self, module: Any, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.module, self.preprocessing = module, preprocessing
        self.output_names: tuple[str, ...] = module.output_names

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, C) uint8 -> the outputs of the module; logits and label maps without the padding."""
        (h, w), settings = image.shape[1:3], self.preprocessing
        x = settings.normalize(image)
        if settings.divisor > 1:
            x = pad_to_multiple(x - settings.pad_value, settings.divisor) + settings.pad_value
        outputs = zip(self.output_names, self.module(x), strict=True)
        return tuple(_crop(y, h, w) if name in ('logits', 'label_map') and y.dim() > 2 else y for name, y in outputs)


def _crop(x: Tensor, height: int, width: int) -> Tensor:
    """Return (..., :height, :width) of a map, by indices: torch.export cannot prove that a slice lies within it."""
    rows, columns = (torch.arange(n, device=x.device) for n in (height, width))
    return x.index_select(-2, rows).index_select(-1, columns)
