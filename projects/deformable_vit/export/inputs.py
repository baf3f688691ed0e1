"""The input of an exported file: its size, fixed or dynamic, and the images of the check."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from .preprocessing import Preprocessing

SMALLEST = 32  # pixels; what the backbones take


@dataclass(frozen=True)
class Input:
    """The input ``image`` of an exported file.

    Attributes:
        height: In pixels; of a dynamic size one of many.
        width: In pixels.
        preprocessing: Of the config.
        is_dynamic: Whether batch, height and width are dynamic; otherwise the batch is 1.
        is_bytes: Whether the file takes (B, H, W, C) uint8 and preprocesses it, rather than (B, C, H, W) float32.
        smallest: Of a dynamic height and width.
        channels: Number of channels.
    """

    height: int
    width: int
    preprocessing: Preprocessing
    is_dynamic: bool
    is_bytes: bool = False
    smallest: int = SMALLEST
    channels: int = 3

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Return the sizes of the dimensions, with names of those that are dynamic."""
        sizes: tuple[int | str, ...] = ('batch', 'height', 'width') if self.is_dynamic else (1, self.height, self.width)
        return (*sizes, self.channels) if self.is_bytes else (sizes[0], self.channels, *sizes[1:])

    def dynamic_shapes(self) -> dict[str, Any] | None:
        """Return what ``torch.export.export`` takes, or None for a fixed size."""
        if not self.is_dynamic:
            return None
        # Without limits: torch.export cannot prove for a range what holds for windows of any number. The check finds
        # what has become a constant within the model.
        return dict(image={i: torch.export.Dim.DYNAMIC for i, n in enumerate(self.shape) if isinstance(n, str)})

    def image(self, batch: int, height: int, width: int, seed: int = 0) -> Tensor:
        """Return images of smooth patches and grain, as the file takes them."""
        rng = np.random.default_rng(seed)
        images = torch.from_numpy(np.stack([_drawn(rng, height, width, self.channels) for _ in range(batch)]))
        return images if self.is_bytes else self.preprocessing.normalize(images)

    @property
    def odd_size(self) -> tuple[int, int]:
        """Return a height and a width that are not multiples of patches and windows."""
        return max(self.height - 13, self.smallest + 1), max(self.width - 27, self.smallest + 5)

    def example(self) -> Tensor:
        """Return images to export with.

        Of a dynamic size they have neither a batch of 1 nor a padding of 0, both of which become constants.
        """
        return self.image(2, *self.odd_size) if self.is_dynamic else self.image(1, self.height, self.width)

    def check_images(self) -> Iterator[Tensor]:
        """Yield five: the given size, the smallest, a larger one, an upright one, one that 32 does not divide."""
        h, w, least = self.height, self.width, self.smallest
        sizes = [(1, h, w)] * 5
        if self.is_dynamic:
            sizes = [(2, h, w), (1, least, least), (1, h * 5 // 4, w * 5 // 4), (1, w, h), (2, *self.odd_size)]
        for seed, (batch, height, width) in enumerate(sizes):
            yield self.image(batch, height, width, seed)


def _drawn(rng: np.random.Generator, height: int, width: int, channels: int) -> np.ndarray[Any, Any]:
    """Return an image (H, W, C) uint8."""
    image = rng.normal(0, 8, size=(height, width, channels)).astype(np.float32) + 110
    for cells in (4, 16):
        grid = rng.normal(0, 40, size=(cells, cells, channels)).astype(np.float32)
        image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).reshape(image.shape)
    return image.clip(0, 255).astype(np.uint8)
