"""Checks of a model and a schedule that are about to train."""

from collections.abc import Sequence
from typing import Any

from mmengine.optim import LinearParamScheduler
from mmengine.runner import Runner
from torch import nn

from ..errors import UserError


def check_model(model: nn.Module, scope: str) -> None:
    """Compare the input channels of neck and head with what they get from one of this package's backbones.

    Raises:
        UserError: The channels differ.
    """
    backbone: Any = getattr(model, 'backbone', None)
    neck: Any = getattr(model, 'neck', None)
    if not type(backbone).__module__.startswith('deformable_vit.'):
        return
    channels = list(backbone.out_channels)
    source = f'the backbone returns {channels} channels (out_indices={tuple(backbone.out_indices)})'
    wanted = getattr(neck, 'in_channels', None)
    if _is_openmmlab(neck) and isinstance(wanted, Sequence) and list(wanted) != channels:
        key = 'model.neck.in_channels'
        raise UserError(f'{key} is {list(wanted)}, but {source}; set {key}="{channels}"')
    for name in ('decode_head', 'auxiliary_head', 'head', 'rpn_head', 'bbox_head'):
        head: Any = getattr(model, name, None)
        if not _is_openmmlab(head):
            continue
        kinds, necks = {kind.__name__ for kind in type(head).__mro__}, type(neck).__name__
        # How many channels the head gets, those of several feature maps together.
        if scope == 'mmseg' and neck is None and 'BaseDecodeHead' in kinds:
            expected = sum(channels[i] for i in _listed(head.in_index))
        elif scope == 'mmpretrain' and 'LinearClsHead' in kinds and necks in ('NoneType', 'GlobalAveragePooling'):
            expected = channels[-1]
        elif (
            scope == 'mmdet' and necks == 'FPN' and kinds & {'AnchorHead', 'AnchorFreeHead'} and 'SSDHead' not in kinds
        ):
            expected = neck.out_channels
        else:
            continue
        if (found := sum(_listed(head.in_channels))) != expected:
            raise UserError(f'model.{name}.in_channels is {found}, but gets {expected}: {source}')


def _is_openmmlab(module: Any) -> bool:
    """Return whether a module has ``in_channels`` in OpenMMLab's meaning; others may read some feature maps only."""
    return type(module).__module__.partition('.')[0] in ('mmdet', 'mmseg', 'mmpretrain')


def _listed(value: int | Sequence[int]) -> Sequence[int]:
    return value if isinstance(value, Sequence) else [value]


def warmup_warning(runner: Runner) -> str | None:
    """Return a warning if warm-up takes more than a tenth of a training that is about to begin, else ``None``."""
    built = runner.param_schedulers
    for i, scheduler in enumerate(built if isinstance(built, list) else []):  # those of several optimizers are a dict
        is_warmup = isinstance(scheduler, LinearParamScheduler) and scheduler.start_factor < scheduler.end_factor
        # `end` of a scheduler that steps once per epoch counts epochs.
        length, total = runner.max_iters // runner.max_epochs if scheduler.by_epoch else 1, runner.max_iters
        warmup = min(scheduler.end * length, total) - scheduler.begin * length
        if is_warmup and 10 * warmup > total:
            return (
                f'warm-up takes {warmup} of {total} iterations ({100 * warmup // total} %), with a low learning rate: '
                f'set param_scheduler.{i}.end for at most {total // 10} iterations, or train longer (train_cfg)'
            )
    return None
