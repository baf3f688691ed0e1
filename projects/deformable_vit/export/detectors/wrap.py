"""Which detectors can be exported."""

from mmdet.models.detectors import CascadeRCNN, DeformableDETR, FasterRCNN, MaskRCNN, TwoStageDetector
from torch import nn

from ...errors import UserError
from ..modules import refusal
from .dense import DENSE_HEADS, DenseDetector
from .detr import DETRS, TransformerDetector
from .selection import require
from .two_stage import TwoStageModule

# Without other subclasses, such as PanopticFPN, which return more.
TWO_STAGE = (TwoStageDetector, FasterRCNN, MaskRCNN, CascadeRCNN)


def wrap_detector(model: nn.Module, raw: bool = False, is_dynamic: bool = False) -> nn.Module:
    """Return a module, in evaluation mode, of images (B, 3, H, W) that gives the tensors which ``output_names`` names.

    Images are normalized, and full: without padding. Detections are ``boxes`` (B, K, 4), clipped (x1, y1, x2, y2) in
    pixels of the image, ``scores`` (B, K), descending, ``labels`` (B, K), and of detectors with a mask head ``masks``
    (B, K, m, m), probabilities within the box. K is ``max_per_img`` of the config; empty places have score 0 and label
    -1. With ``raw`` they are the outputs of the head. Raises :class:`UserError` for detectors that it does not know,
    and if the size ``is_dynamic`` for those that have a fixed size only.
    """
    if isinstance(model, TwoStageDetector) and model.with_rpn:
        require('the model', model, TWO_STAGE)
        return TwoStageModule(model, raw).eval()
    if type(model) in DETRS:
        if is_dynamic and isinstance(model, DeformableDETR):  # also DINO
            raise UserError(f'{type(model).__name__} is exported with a fixed size only; leave out --dynamic')
        return TransformerDetector(model, raw).eval()
    if getattr(model, 'bbox_head', None) is None:
        raise UserError(refusal(type(model).__name__, 'a detector with one dense head, R-CNN and DETR'))
    require(f'{type(model).__name__} with bbox_head', model.bbox_head, DENSE_HEADS)
    return DenseDetector(model, raw).eval()
