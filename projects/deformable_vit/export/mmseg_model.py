"""An exported file as a segmentor of mmseg."""

from typing import Any

import torch.nn.functional as F
from mmengine.registry import MODELS
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from .network import ExportedNetwork


class LogitsHead(BaseDecodeHead):
    """A head of inputs that are logits, or label maps."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(in_channels=1, channels=1, **kwargs)

    def forward(self, inputs: tuple[Tensor]) -> Tensor:
        """(B, classes, H, W) or (B, H, W) -> (B, classes, H, W)."""
        x = inputs[0]
        return x if x.dim() == 4 else F.one_hot(x, self.num_classes).movedim(-1, 1).float()


@MODELS.register_module()
class ExportedSegmentor(EncoderDecoder):
    """An exported file as a segmentor, for whole images or windows, as ``test_cfg`` says.

    Args:
        file: A file that ``tools/export.py`` wrote.
        decode_head: ``num_classes``, and what else of ``out_channels``, ``threshold`` and ``align_corners`` the model
            has.
        kwargs: ``test_cfg`` and ``data_preprocessor`` of the model.
    """

    def __init__(self, file: str, decode_head: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(dict(type=ExportedNetwork, file=file), dict(type=LogitsHead, **decode_head), **kwargs)
