"""Deformable Patch-based Transformer: PVT whose patches move and scale with the picture.

Chen et al., ACM MM 2021, https://arxiv.org/abs/2107.14467; the authors' code is at https://github.com/CASIA-IVA-Lab/DPT.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from mmengine.registry import MODELS
from torch import nn

from ..layers import DeformablePatchEmbed
from .pvt import PVT

_POINTS = dict(points=(0, 3, 3, 3))


@MODELS.register_module()
class DPT(PVT):
    """Deformable Patch-based Transformer, equal to the authors' code in parameters, outputs and gradients.

    It differs from :class:`PVT` in the patch embeddings of stages 2 to 4 alone, and takes the same arguments.

    Args:
        arch: ``tiny``, ``small``, ``medium``, or a dict with the keys of ``arch_zoo``'s rows, or with ``like``, a name,
            and what differs. ``points`` is the number of points that are read along each axis of a patch; 0 stands for
            PVT's plain patches.
    """

    arch_zoo: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {**row, **_POINTS} for name, row in PVT.arch_zoo.items() if name != 'large'
    }

    def __init__(self, arch: str | Mapping[str, Any] = 'tiny', **kwargs: Any) -> None:
        super().__init__(arch, **kwargs)
        for stage in self.stages:
            if isinstance(stage.patch_embed, DeformablePatchEmbed):
                stage.patch_embed.reset_offsets()

    def _build_patch_embed(self, i: int, in_channels: int, dim: int, stride: int) -> nn.Module:
        points = self.arch['points'][i]
        if points < 0:
            raise ValueError(f'DPT: points must be 0 (plain patches) or more, got {self.arch["points"]}')
        if points == 0:
            return super()._build_patch_embed(i, in_channels, dim, stride)
        return DeformablePatchEmbed(in_channels, dim, stride, points)
