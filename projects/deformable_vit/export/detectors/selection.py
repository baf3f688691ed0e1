"""What all detectors share: candidates in, a fixed number of detections per image out, in tensors alone.

Shapes: B images, N candidates of an image, K detections of an image. Boxes are (x1, y1, x2, y2) in pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from ...errors import UserError
from ..modules import refusal

EMPTY_LABEL = -1


class Detections(NamedTuple):
    """Detections in descending order of the score; empty places have box 0, score 0 and label -1."""

    boxes: Tensor  # (B, K, 4)
    scores: Tensor  # (B, K)
    labels: Tensor  # (B, K), int64


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Return the rows ``index`` (B, K) of ``x`` (B, N, C)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def top(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the highest scores of (B, N), at most ``number`` of an image or all if it is not positive, and indices."""
    count = scores.shape[1]
    values, index = scores.topk(torch.sym_min(number, count) if number > 0 else count, dim=1)
    return values, index


def decode(coder: Any, priors: Tensor, predicted: Tensor, image: Tensor) -> Tensor:
    """Return boxes (..., 4), clipped to the image (B, C, H, W) where the coder of mmdet clips.

    ``decode`` of the coder takes two-dimensional tensors, and cannot clip while a model is exported to ONNX.
    """
    boxes = coder.decode(priors.reshape(-1, priors.shape[-1]), predicted.reshape(-1, 4)).view_as(predicted)
    return clip(boxes, image) if coder.clip_border else boxes


def clip(boxes: Tensor, image: Tensor) -> Tensor:
    """Clip boxes (..., 4) to the image (B, C, H, W)."""
    height, width = image.shape[-2:]
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def iou_threshold(cfg: Any) -> float:
    """Return the IoU above which NMS drops a box, from mmdet's ``test_cfg``."""
    settings = dict(cfg.nms)
    kind = settings.pop('type', 'nms')
    iou = settings.pop('iou_threshold', None)
    settings.pop('split_thr', None)  # of memory, not of the result
    if kind != 'nms' or iou is None or settings:
        raise UserError(
            f"an exported detector needs nms=dict(type='nms', iou_threshold=...) in test_cfg, got {cfg.nms}"
        )
    return float(iou)


def require(part: str, module: object, known: Sequence[type]) -> None:
    """Raise :class:`UserError` for a module that is not of one of the classes ``known``, or of a subclass of one."""
    if type(module) not in known:
        raise UserError(refusal(f'{part} {type(module).__name__}', ', '.join(kind.__name__ for kind in known)))


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, number: int) -> Detections:
    """Keep the best ``number`` of the candidates (B, N, 4), (B, N), (B, N) that NMS leaves in each image and label.

    A candidate of score 0 takes no part.
    """
    # Boxes of different labels and images are moved apart, the former along x and the latter along y. So one call
    # serves a batch of any size, and mmcv, which moves labels alone, rounds the coordinates in the same way.
    images = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand_as(labels)
    offsets = torch.stack([labels, images], dim=-1).to(boxes) * (boxes.max() + 1)
    moved = (boxes + offsets.repeat(1, 1, 2)).flatten(0, 1)
    flat = scores.flatten()
    candidates = flat.nonzero()[:, 0]
    kept = candidates[nms(moved[candidates], flat[candidates], iou)]
    remaining = torch.zeros_like(flat).index_put((kept,), flat[kept]).view_as(scores)

    remaining, index = F.pad(remaining, (0, number)).topk(number, dim=1)
    full = remaining > 0
    return Detections(
        gather(F.pad(boxes, (0, 0, 0, number)), index).where(full[..., None], 0),
        remaining,
        F.pad(labels, (0, number)).gather(1, index).where(full, EMPTY_LABEL),
    )
