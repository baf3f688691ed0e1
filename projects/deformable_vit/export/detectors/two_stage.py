"""Faster, Mask and Cascade R-CNN of mmdet as a module of tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor, nn
from torchvision.ops import roi_align

from ...errors import UserError
from .dense import dense_detections
from .selection import Detections, decode, iou_threshold, require, suppress

ROI_HEADS = (StandardRoIHead, CascadeRoIHead)
BOX_HEADS = (BBoxHead, ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead)


class TwoStageModule(nn.Module):
    """Backbone, neck, RPN, one or more box heads in a cascade, and mask heads where the model has them.

    The proposals are as many as ``max_per_img`` of the RPN's config in every image. Returns boxes (B, K, 4), scores
    (B, K), labels (B, K) and, with mask heads, masks (B, K, m, m) of images (B, 3, H, W).
    """

    def __init__(self, model: Any, raw: bool = False) -> None:
        super().__init__()
        if raw:
            raise UserError('raw outputs are those of one head; a two-stage detector has boxes between its heads')
        roi_head = model.roi_head
        require('roi_head', roi_head, ROI_HEADS)
        require('rpn_head', model.rpn_head, [RPNHead])
        self.model = model
        self.box_stages = stages('bbox', roi_head.bbox_roi_extractor, roi_head.bbox_head, BOX_HEADS)
        self.mask_stages = []
        if roi_head.with_mask:
            self.mask_stages = stages('mask', roi_head.mask_roi_extractor, roi_head.mask_head, [FCNMaskHead])
        if roi_head.with_shared_head or any(head.custom_cls_channels for _, head in self.box_stages):
            raise UserError('a shared head and losses with classes of their own cannot be exported')
        iou_threshold(roi_head.test_cfg)
        iou_threshold(model.rpn_head.test_cfg)
        self.output_names = ('boxes', 'scores', 'labels') + ('masks',) * roi_head.with_mask

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W), normalized -> what ``output_names`` names."""
        features = self.model.extract_feat(image)
        proposals = dense_detections(self.model.rpn_head, self.model.rpn_head(features), image, nms_per_level=True)
        detections = self.detect(features, proposals, image)
        return (*detections, self.masks(features, detections)) if self.mask_stages else detections

    def detect(self, features: Sequence[Tensor], proposals: Detections, image: Tensor) -> Detections:
        """Classify and refine the proposals."""
        cfg = self.model.roi_head.test_cfg
        boxes = proposals.boxes
        logits: Any = 0
        for i, (extractor, head) in enumerate(self.box_stages):
            score, predicted = head(pool(extractor, features, boxes))
            score, predicted = score.view(*boxes.shape[:2], -1), predicted.view(*boxes.shape[:2], -1, 4)
            logits = logits + score
            if i < len(self.box_stages) - 1:
                best = score[..., :-1].argmax(-1)
                boxes = decode(head.bbox_coder, boxes, of_class(predicted, best), image)
        scores = (logits / len(self.box_stages)).softmax(-1)[..., :-1]
        scores = scores.where((scores > cfg.score_thr) & (proposals.scores > 0)[..., None], 0)
        boxes = decode(head.bbox_coder, boxes[..., None, :].expand_as(predicted), predicted, image)
        boxes = boxes.expand(*scores.shape, 4)
        labels = torch.arange(scores.shape[-1], device=scores.device).expand_as(scores)
        return suppress(boxes.flatten(1, 2), scores.flatten(1), labels.flatten(1), iou_threshold(cfg), cfg.max_per_img)

    def masks(self, features: Sequence[Tensor], detections: Detections) -> Tensor:
        """Return the probabilities (B, K, m, m) within the boxes, 0 in empty places."""
        boxes, _, labels = detections
        total: Any = 0
        for extractor, head in self.mask_stages:
            logits = head(pool(extractor, features, boxes))
            total = total + of_class(logits.view(*boxes.shape[:2], *logits.shape[1:]), labels.clamp(min=0)).sigmoid()
        return (total / len(self.mask_stages)).where((labels >= 0)[..., None, None], 0)


def stages(kind: str, extractors: Any, heads: Any, known: Sequence[type]) -> list[tuple[Any, Any]]:
    """Return the pairs of feature extractor and head of a cascade, or of a model that has one."""
    pairs = list(zip(extractors, heads, strict=True)) if isinstance(heads, nn.ModuleList) else [(extractors, heads)]
    for extractor, head in pairs:
        require(f'{kind}_head', head, known)
        require(f'{kind}_roi_extractor', extractor, [SingleRoIExtractor])
        require(f'{kind}_roi_extractor.roi_layer', extractor.roi_layers[0], [RoIAlign])
        if extractor.roi_layers[0].pool_mode != 'avg':
            raise UserError(
                f'{kind}_roi_extractor.roi_layer: only the mean of the samples (pool_mode avg) can be exported'
            )
    return pairs


def of_class(x: Tensor, labels: Tensor) -> Tensor:
    """Return the (B, K, ...) of classes ``labels`` (B, K) from (B, K, C, ...), C being 1 if all classes share it."""
    if x.shape[2] == 1:
        return x[:, :, 0]
    index = labels.view(*labels.shape, *[1] * (x.dim() - 2)).expand(-1, -1, -1, *x.shape[3:])
    return x.gather(2, index)[:, :, 0]


def pool(extractor: Any, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Return the features (B * K, C, h, w) in boxes (B, K, 4), of the level of the pyramid that fits each box."""
    images = torch.arange(boxes.shape[0], device=boxes.device).to(boxes)[:, None, None]
    rois = torch.cat([images.expand(-1, boxes.shape[1], 1), boxes], dim=-1).flatten(0, 1)
    features = features[: extractor.num_inputs]
    levels = extractor.map_roi_levels(rois, len(features))
    pooled: Any = 0
    for level, (layer, feature) in enumerate(zip(extractor.roi_layers, features, strict=True)):
        here = (levels == level)[:, None]
        # Boxes of other levels are empty here, which costs little and keeps all sizes fixed.
        mine = torch.cat([rois[:, :1], rois[:, 1:] * here], dim=1)
        found = roi_align(feature, mine, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned)
        pooled = found.where(here[..., None, None], pooled)
    return pooled
