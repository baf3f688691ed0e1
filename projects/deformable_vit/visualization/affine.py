"""From feature maps to pixels of the image.

Pixel centers are at whole numbers everywhere: in the image, in the network's input, and in every feature map. A feature
map pixel is where its receptive field is centered: for a convolution of kernel size k, stride s and padding p, pixel i
is centered on pixel s * i + (k - 1) / 2 - p of its input. So patches of stride 4 are centered on pixels 1.5, 5.5, ...,
and overlapping patches on 0, 4, ....
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..layers import OverlapPatchEmbed, PatchEmbed

Array = NDArray[Any]


class Affine(NamedTuple):
    """``scale * p + shift`` for each axis, (x, y)."""

    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)

    def __call__(self, points: Array) -> Array:
        """Map points (..., 2), (x, y)."""
        return (points * np.asarray(self.scale) + np.asarray(self.shift)).astype(np.float32)

    def inverse(self, points: Array) -> Array:
        """Map points (..., 2), (x, y), back."""
        return (points - np.asarray(self.shift)) / np.asarray(self.scale)

    def after(self, inner: 'Affine') -> 'Affine':
        """Return the map that applies ``inner`` first."""
        (sx, sy), (tx, ty) = self
        (ix, iy), (jx, jy) = inner
        return Affine((sx * ix, sy * iy), (sx * jx + tx, sy * jy + ty))

    @classmethod
    def of_resize(cls, old: tuple[int, int], new: tuple[int, int]) -> 'Affine':
        """Return the map from pixels of a resized image to those of the original; both sizes are (height, width)."""
        scale = (old[1] / new[1], old[0] / new[0])
        return cls(scale, ((scale[0] - 1) / 2, (scale[1] - 1) / 2))

    @classmethod
    def of_patches(cls, patch_embed: nn.Module) -> 'Affine':
        """Return the map from tokens of a patch embedding to pixels of its input; deformable ones count as plain."""
        result = cls()
        for embed in (m for m in patch_embed.modules() if isinstance(m, PatchEmbed)):
            # An overlapping patch has a kernel of 2 * stride - 1 and a padding of stride - 1.
            first = 0 if isinstance(embed, OverlapPatchEmbed) else (embed.stride - 1) / 2
            result = result.after(cls((embed.stride, embed.stride), (first, first)))
        return result
