"""One-stage detectors of mmdet with a dense head, as a module of tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, RetinaHead
from torch import Tensor, nn

from .selection import Detections, decode, gather, iou_threshold, suppress, top

# Without their subclasses, which may decode in another way.
DENSE_HEADS = (RetinaHead, ATSSHead, GFLHead, FCOSHead)


class DenseDetector(nn.Module):
    """Backbone, neck and dense head, with the decoding and the NMS of the config.

    Returns boxes (B, K, 4), scores (B, K) and labels (B, K) of images (B, 3, H, W), or with ``raw`` what the head
    gives for each level: ``cls_score_0``, ..., ``bbox_pred_0``, ..., and of some heads ``centerness_0``, ...
    """

    def __init__(self, model: Any, raw: bool = False) -> None:
        super().__init__()
        self.model = model
        self.raw = raw
        self.output_names: tuple[str, ...] = ('boxes', 'scores', 'labels')
        iou_threshold(model.bbox_head.test_cfg)
        if raw:
            outputs = ['cls_score', 'bbox_pred']
            outputs += ['centerness'] * isinstance(model.bbox_head, (ATSSHead, FCOSHead))
            levels = range(model.bbox_head.prior_generator.num_levels)
            self.output_names = tuple(f'{name}_{i}' for name in outputs for i in levels)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W), normalized -> what ``output_names`` names."""
        outputs = self.model.bbox_head(self.model.extract_feat(image))
        if self.raw:
            return tuple(level for output in outputs for level in output)
        return dense_detections(self.model.bbox_head, outputs, image)


def dense_detections(
    head: Any, outputs: Sequence[Sequence[Tensor]], image: Tensor, nms_per_level: bool = False
) -> Detections:
    """Return the detections of the outputs of a head: for each kind of output and level a tensor (B, C, h, w).

    NMS is among the boxes of a class, or of a level, which then is the label.
    """
    cfg = head.test_cfg
    min_size = cfg.get('min_bbox_size', -1)
    boxes, scores, labels = [], [], []
    for level, priors in enumerate(grid_priors(head, outputs[0])):
        output = [x[level] for x in outputs]
        all_scores = rows(output[0], head.cls_out_channels)
        all_scores = all_scores.sigmoid() if head.use_sigmoid_cls else all_scores.softmax(-1)[..., :-1]
        classes = all_scores.shape[-1]
        # The threshold and the selection are those of the score of the class, as in mmdet, before the centerness.
        best, index = top(all_scores.flatten(1), cfg.get('nms_pre', -1))
        best = best.where(best > cfg.get('score_thr', 0), 0)
        prior, label = index // classes, index % classes
        if len(output) == 3:
            best = best * rows(output[2], 1)[..., 0].sigmoid().gather(1, prior)
        predicted = rows(output[1], output[1].shape[1] * head.cls_out_channels // output[0].shape[1])
        box = decode_level(head, level, priors[prior], gather(predicted, prior), image)
        if min_size >= 0:
            best = best.where((box[..., 2:] - box[..., :2] > min_size).all(-1), 0)
        boxes.append(box)
        scores.append(best)
        labels.append(torch.full_like(label, level) if nms_per_level else label)
    return suppress(
        torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(labels, 1), iou_threshold(cfg), cfg.max_per_img
    )


def rows(x: Tensor, channels: int) -> Tensor:
    """(B, A * C, h, w) -> (B, h * w * A, C): one row for each of the A priors of a pixel."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, channels)


def grid_priors(head: Any, levels: Sequence[Tensor]) -> list[Tensor]:
    """Return the priors (N, 2 or 4) of each level (B, C, h, w)."""
    sizes = [x.shape[-2:] for x in levels]
    priors: list[Tensor] = head.prior_generator.grid_priors(sizes, dtype=levels[0].dtype, device=levels[0].device)
    return priors


def decode_level(head: Any, level: int, priors: Tensor, predicted: Tensor, image: Tensor) -> Tensor:
    """Return the boxes (B, K, 4) of priors (B, K, 2 or 4) and predictions (B, K, C) of a level."""
    if not isinstance(head, GFLHead):
        return decode(head.bbox_coder, priors, predicted, image)
    distances = head.integral(predicted).view(*priors.shape[:2], 4) * head.prior_generator.strides[level][0]
    centers = head.anchor_center(priors.flatten(0, 1)).view(*priors.shape[:2], 2)
    return decode(head.bbox_coder, centers, distances, image)
