"""DETR, Deformable DETR and DINO of mmdet as a module of tensors."""

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from mmdet.models.dense_heads import DeformableDETRHead, DETRHead, DINOHead
from mmdet.models.detectors import DETR, DINO, DeformableDETR
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from ...ops.tracing import sizes_tensor
from .selection import Detections, clip, gather, require, top

DETRS = (DETR, DeformableDETR, DINO)


class TransformerDetector(nn.Module):
    """Backbone, neck, encoder, decoder and head; the best ``max_per_img`` boxes without NMS.

    Returns boxes (B, K, 4), scores (B, K) and labels (B, K) of images (B, 3, H, W), or with ``raw`` what the last layer
    gives for the queries: ``cls_score`` (B, Q, classes) and ``bbox_pred`` (B, Q, 4), (cx, cy, w, h) as fractions of
    the image.
    """

    def __init__(self, model: Any, raw: bool = False) -> None:
        super().__init__()
        require('bbox_head', model.bbox_head, (DETRHead, DeformableDETRHead, DINOHead))
        self.model = with_exportable_attention(model)
        self.raw = raw
        self.output_names = ('cls_score', 'bbox_pred') if raw else ('boxes', 'scores', 'labels')

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W), normalized -> what ``output_names`` names."""
        states = decoder_states(self.model, self.model.extract_feat(image), image)
        scores, boxes = last_layer(self.model.bbox_head, **states)
        return (scores, boxes) if self.raw else self.detect(scores, boxes, image)

    def detect(self, logits: Tensor, boxes: Tensor, image: Tensor) -> Detections:
        """Return the best of the queries, (B, Q, classes) and (B, Q, 4)."""
        head = self.model.bbox_head
        number = head.test_cfg.get('max_per_img', logits.shape[1])
        if head.loss_cls.use_sigmoid:
            scores, index = top(logits.sigmoid().flatten(1), number)
            query, labels = index // head.num_classes, index % head.num_classes
        else:
            best, classes = logits.softmax(-1)[..., :-1].max(-1)
            scores, query = top(best, number)
            labels = classes.gather(1, query)
        height, width = image.shape[-2:]
        corners = bbox_cxcywh_to_xyxy(gather(boxes, query))
        pixels = torch.stack([corners[..., i] * (width, height)[i % 2] for i in range(4)], dim=-1)
        return Detections(clip(pixels, image), scores, labels)


def decoder_states(model: Any, features: Sequence[Tensor], image: Tensor) -> dict[str, Any]:
    """Return what the head takes: mmdet's :meth:`forward_transformer` of images without padding."""
    if isinstance(model, DeformableDETR):
        encoder_inputs, decoder_inputs = multi_scale_inputs(model, features)
    else:
        size = tuple(image.shape[-2:])
        encoder_inputs, decoder_inputs = model.pre_transformer(
            features, [SimpleNamespace(batch_input_shape=size, img_shape=size)]
        )
    queries, head_inputs = model.pre_decoder(**model.forward_encoder(**encoder_inputs))
    return {**head_inputs, **model.forward_decoder(**decoder_inputs, **queries)}


def multi_scale_inputs(model: Any, features: Sequence[Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs of encoder and decoder: mmdet's :meth:`pre_transformer` with the sizes of levels as numbers.

    mmdet makes a tensor of them and iterates over it, which ends an export. They are constants: an export with dynamic
    sizes ends in an error, because its file would be wrong at another batch size.
    """
    batch = int(features[0].shape[0])
    positions = [
        model.positional_encoding(None, input=x) + embedding[:, None, None]
        for x, embedding in zip(features, model.level_embed, strict=True)
    ]
    shared = dict(
        spatial_shapes=[(int(x.shape[-2]), int(x.shape[-1])) for x in features],
        level_start_index=None,
        valid_ratios=features[0].new_ones(batch, len(features), 2),
    )
    encoder_inputs = dict(feat=flatten_levels(features), feat_mask=None, feat_pos=flatten_levels(positions))
    return encoder_inputs | shared, dict(memory_mask=None) | shared


def flatten_levels(features: Sequence[Tensor]) -> Tensor:
    """(B, C, h, w) of each level -> (B, N, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in features], dim=1)


def last_layer(head: Any, hidden_states: Tensor, references: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
    """Return the logits (B, Q, classes) and boxes (B, Q, 4), (cx, cy, w, h), of the last of the decoder's layers.

    The head of Deformable DETR computes those of all layers, and its order lets onnxscript 0.7 give two constants one
    name.
    """
    if not isinstance(head, DeformableDETRHead):
        logits, boxes = head(hidden_states[-1:])
        return logits[-1], boxes[-1]
    layer = len(hidden_states) - 1
    boxes = head.reg_branches[layer](hidden_states[layer])
    reference = inverse_sigmoid(references[layer])
    known = reference.shape[-1]  # the center, or the whole box
    boxes = torch.cat([boxes[..., :known] + reference, boxes[..., known:]], dim=-1)
    return head.cls_branches[layer](hidden_states[layer]), boxes.sigmoid()


class ExportableAttention(nn.Module):
    """mmcv's multi-scale deformable attention with the sizes of the levels as a list of (height, width)."""

    def __init__(self, attention: MultiScaleDeformableAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        query_pos: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        **unused: Any,
    ) -> Tensor:
        """Attend from queries (B, Q, C) to the pixels of all levels (B, N, C), without padding.

        Args:
            query: Also the residual.
            value: If None, the queries.
            query_pos: (B, Q, C).
            reference_points: (B, Q, levels, 2 or 4), as fractions of the image.
            spatial_shapes: (height, width) of each level.
            unused: What mmdet passes to every layer.
        """
        layer = self.attention
        value = layer.value_proj(query if value is None else value)
        identity, query = query, query + query_pos
        points = (*query.shape[:2], layer.num_heads, layer.num_levels, layer.num_points)
        weights = layer.attention_weights(query).view(*points[:3], -1).softmax(-1).view(points)
        offsets = layer.sampling_offsets(query).view(*points, 2)
        references = reference_points[:, :, None, :, None]
        if reference_points.shape[-1] == 2:
            sizes = torch.stack([sizes_tensor((w, h), like=offsets) for h, w in spatial_shapes])
            locations = references + offsets / sizes[:, None]
        else:
            locations = references[..., :2] + offsets / layer.num_points * references[..., 2:] * 0.5
        value = value.view(*value.shape[:2], layer.num_heads, -1)
        output = multi_scale_deformable_attn_pytorch(value, spatial_shapes, locations, weights)
        return layer.output_proj(output) + identity


def with_exportable_attention(model: Any) -> Any:
    """Return a copy of a model with :class:`ExportableAttention` in place of mmcv's, or the model if it has none."""
    if not any(isinstance(module, MultiScaleDeformableAttention) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, MultiScaleDeformableAttention):
                setattr(parent, name, ExportableAttention(child))
    return model
