"""Checks of a model and a schedule that are about to train."""

from collections.abc import Sequence
from typing import Any

from mmengine.optim import ConstantParamScheduler, LinearParamScheduler
from mmengine.runner import Runner
from torch import nn

from ..errors import UserError


def check_model(model: nn.Module, scope: str) -> None:
    """Compare the input channels of neck and head with what they get from one of this package's backbones.

    Only what is certain: mmseg's heads that read feature maps of ``in_index``, mmpretrain's linear heads, and mmdet's
    dense heads behind an FPN.

    Args:
        model: Of mmdet, mmseg or mmpretrain, not wrapped.
        scope: Which of them.

    Raises:
        UserError: The channels differ.
    """
    backbone: Any = getattr(model, 'backbone', None)
    neck: Any = getattr(model, 'neck', None)
    if not type(backbone).__module__.startswith('deformable_vit.'):
        return
    channels = list(backbone.out_channels)
    source = f'the backbone returns {channels} channels (out_indices={tuple(backbone.out_indices)})'
    if isinstance(wanted := getattr(neck, 'in_channels', None), Sequence) and list(wanted) != channels:
        raise UserError(
            f'model.neck.in_channels is {list(wanted)}, but {source}; set model.neck.in_channels="{channels}"'
        )
    keeps = neck is None or type(neck).__name__ == 'GlobalAveragePooling'
    if scope == 'mmpretrain' and keeps and type(getattr(model, 'head', None)).__name__ == 'LinearClsHead':
        _compare('head', model.head, channels[-1], source)
    if scope == 'mmseg' and neck is None:
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead

        auxiliary = getattr(model, 'auxiliary_head', None)
        heads = auxiliary if isinstance(auxiliary, (Sequence, nn.ModuleList)) else [auxiliary]
        names = [f'auxiliary_head.{i}' if heads is auxiliary else 'auxiliary_head' for i in range(len(heads))]
        for name, head in zip(['decode_head', *names], [model.decode_head, *heads], strict=True):
            if isinstance(head, BaseDecodeHead):
                _compare_decode_head(name, head, channels, source)
    if scope == 'mmdet' and type(neck).__name__ == 'FPN':
        from mmdet.models.dense_heads import AnchorFreeHead, AnchorHead

        for name in ('rpn_head', 'bbox_head'):
            if isinstance(head := getattr(model, name, None), (AnchorHead, AnchorFreeHead)):
                _compare(name, head, neck.out_channels, f'the neck returns {neck.out_channels} channels')


def _compare_decode_head(name: str, head: Any, channels: list[int], source: str) -> None:
    """Compare a head of mmseg that takes one or several feature maps."""
    indices = head.in_index if isinstance(head.in_index, Sequence) else [head.in_index]
    if not all(-len(channels) <= index < len(channels) for index in indices):
        raise UserError(f'model.{name}.in_index is {head.in_index}, but {source}')
    inputs: Any = [channels[index] for index in indices]
    if head.input_transform is None:
        inputs = inputs[0]
    elif head.input_transform == 'resize_concat':  # the head keeps the sum
        inputs = sum(inputs)
    _compare(name, head, inputs, source)


def _compare(name: str, head: Any, channels: Any, source: str) -> None:
    wanted = list(head.in_channels) if isinstance(head.in_channels, Sequence) else head.in_channels
    if wanted != channels:
        raise UserError(f'model.{name}.in_channels is {wanted}, but {source}; {channels} fits')


def warmup_warning(runner: Runner) -> str | None:
    """Return a warning if warm-up takes more than a tenth of all iterations, else ``None``.

    Args:
        runner: At the beginning of training, with its schedulers built.
    """
    built = runner.param_schedulers
    for i, scheduler in enumerate(built if isinstance(built, list) else []):  # those of several optimizers are a dict
        if isinstance(scheduler, LinearParamScheduler):
            is_warmup = scheduler.start_factor < scheduler.end_factor
        else:
            is_warmup = isinstance(scheduler, ConstantParamScheduler) and scheduler.factor < 1
        # `end` of a scheduler that steps once per epoch counts epochs.
        length = runner.max_iters // runner.max_epochs if scheduler.by_epoch else 1
        total = runner.max_iters
        warmup = min(scheduler.end * length, total) - scheduler.begin * length
        if is_warmup and 10 * warmup > total:
            return (
                f'warm-up takes {warmup} of {total} iterations ({100 * warmup // total} %), with a low learning rate: '
                f'set param_scheduler.{i}.end for at most {total // 10} iterations, or train longer (train_cfg)'
            )
    return None
