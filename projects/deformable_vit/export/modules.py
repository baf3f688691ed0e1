"""Classifiers, segmentors and backbones as modules of tensors: an image in, named tensors out."""

from typing import Any

from torch import Tensor, nn

from ..errors import UserError


class Backbone(nn.Module):
    """Return the feature maps of a backbone."""

    def __init__(self, backbone: nn.Module, count: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.output_names = tuple(f'feature_map_{i}' for i in range(count))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) -> a tensor per output."""
        return tuple(self.backbone(image))


class Classifier(nn.Module):
    """Return the logits of a classifier of mmpretrain."""

    output_names = ('logits',)

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """(B, C, H, W) -> (B, classes)."""
        return (self.model(image, mode='tensor'),)


class Segmentor(nn.Module):
    """Return the logits of a segmentor of mmseg at the size of the image."""

    output_names: tuple[str, ...] = ('logits',)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """(B, C, H, W) -> (B, classes, H, W)."""
        return (self.model.encode_decode(image, [dict(img_shape=image.shape[2:])]),)


class LabelMap(Segmentor):
    """Return the label map of a segmentor."""

    output_names = ('label_map',)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """(B, C, H, W) -> (B, H, W) int64."""
        return (super().forward(image)[0].argmax(dim=1),)


def wrap_backbone(model: Any) -> nn.Module:
    """Return the backbone of a model, with outputs ``feature_map_0``, ``feature_map_1``, ..."""
    if not isinstance(backbone := getattr(model, 'backbone', None), nn.Module):
        raise UserError(f'--part backbone: {type(model).__name__} has no backbone')
    return Backbone(backbone, len(getattr(backbone, 'out_indices', (None,)))).eval()


def wrap_classifier(model: Any) -> nn.Module:
    """Return a classifier with the output ``logits`` (B, classes).

    Raises:
        UserError: It is no ``ImageClassifier``.
    """
    from mmpretrain.models import ImageClassifier

    if not isinstance(model, ImageClassifier) or not model.with_head:
        raise UserError(refusal(type(model).__name__, 'ImageClassifier with a head'))
    return Classifier(model).eval()


def wrap_segmentor(model: Any, argmax: bool = False) -> nn.Module:
    """Return a segmentor with the output ``logits`` (B, classes, H, W), or ``label_map`` (B, H, W).

    Raises:
        UserError: Its decode head returns no logits, such as that of Mask2Former.
    """
    from mmseg.models import EncoderDecoder
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    if not isinstance(model, EncoderDecoder):
        raise UserError(refusal(type(model).__name__, 'EncoderDecoder'))
    if not isinstance(model.decode_head, BaseDecodeHead):
        raise UserError(refusal(type(model.decode_head).__name__, 'Semantic FPN, UPerNet and other heads of logits'))
    if argmax and model.out_channels == 1:
        raise UserError('--argmax: this model has one channel and a threshold; export its logits')
    _replace_upsampling(model)
    return (LabelMap if argmax else Segmentor)(model).eval()


def refusal(part: str, exportable: str) -> str:
    """Return the error of a model that cannot be exported: which part, and what can."""
    return f'{part} cannot be exported; {exportable} can, and --part backbone exports the backbone of any model'


def _replace_upsampling(model: nn.Module) -> None:
    """Replace the upsampling of mmseg by that of torch, which computes the same; mmseg's sizes become constants."""
    from mmseg.models.utils import Upsample

    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Upsample):
                torch_one = nn.Upsample(child.size, child.scale_factor, child.mode, child.align_corners)
                setattr(parent, name, torch_one)
