"""Compare a checkpoint with the model before its weights are loaded: mmengine loads what fits and goes on."""

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner, load_state_dict
from torch import nn

from ...checkpoints import check_dtypes, compare, convert_state_dict
from ...errors import CheckpointError, UserError, shown


def bare_model(model: nn.Module) -> nn.Module:
    """Return a model without the wrappers of distributed training and test-time augmentation."""
    inner: Any = model.module if is_model_wrapper(model) else model
    return inner.module if isinstance(inner, BaseTTAModel) else inner


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Refuse a checkpoint of another model, and log what matches.

    A training that resumes needs all of its weights to match. Official names are translated here.

    Args:
        strict: Whether the weights of ``load_from`` must match all, as in a test, or only some.
    """

    priority = 'VERY_HIGH'  # before mmengine's EMAHook takes the weights

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        file, resumes = str(runner.cfg.get('load_from') or 'to resume from'), bool(runner.cfg.get('resume'))
        if resumes and (problem := _incomplete(checkpoint)):
            raise CheckpointError(
                f'checkpoint {shown(file)} cannot be resumed: it has no {problem}; resume from an epoch_N.pth or '
                'iter_N.pth, or start from its weights: --cfg-options load_from=FILE'
            )
        match(bare_model(runner.model), checkpoint, file, strict=resumes or self.strict)


def match(model: nn.Module, checkpoint: dict[str, Any], file: str, *, strict: bool) -> None:
    """Translate the weights of a checkpoint to the names and sizes of a model, and log what matches.

    With ``strict`` off the model loads what fits, and the checkpoint becomes the model's own weights: mmengine, which
    lists each name that differs, then finds none.

    Args:
        model: The whole model, not wrapped.
        checkpoint: As mmengine reads it, or a bare state dict, which moves to ``state_dict``; changed in place.
        file: For messages.
        strict: Whether all names and shapes must match, or only some. If only some, RGB weights of the first layer are
            adapted to other numbers of input channels.

    Raises:
        UserError: It belongs to another model.
    """
    if 'state_dict' not in checkpoint:  # FlexibleRunner accepts no bare state dict
        weights = dict(checkpoint)
        checkpoint.clear()
        checkpoint['state_dict'] = weights
    weights = checkpoint['state_dict']
    bare = {name.removeprefix('module.'): value for name, value in weights.items()}
    converted, own = convert_state_dict(model, bare, log=not strict, adapt_channels=not strict), model.state_dict()
    check_dtypes(converted, own, file)
    difference = compare(converted, own)
    if (strict and difference) or not difference.matched:
        raise UserError(f'checkpoint {shown(file)} does not fit the model of this config: {difference}')
    print_log(f'{shown(file)}: {difference.report()}', 'current')
    weights.clear()  # and not another dict: it has the versions of modules as an attribute
    weights.update(converted)
    if not strict:
        load_state_dict(model, weights, logger=_silent_logger())
        weights.clear()
        weights.update(model.state_dict())


def _silent_logger() -> logging.Logger:
    logger = logging.Logger('silent')
    logger.addHandler(logging.NullHandler())
    return logger


def _incomplete(checkpoint: Mapping[str, Any]) -> str | None:
    """Return what a training lacks to continue; mmengine goes on without the state of the optimizer."""
    for key in ('meta', 'message_hub', 'optimizer'):
        if not isinstance(checkpoint.get(key), dict):
            return key
    return next((f'meta.{key}' for key in ('epoch', 'iter') if type(checkpoint['meta'].get(key)) is not int), None)
