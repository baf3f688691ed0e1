"""Stop a training whose loss is not finite before it changes the weights."""

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ...checkpoints import check_finite
from ...errors import CheckpointError, TrainingError


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Raise an error when a term of the loss is NaN or infinite, and before weights are saved that are.

    The terms are checked as the model returns them, before the backward pass. A finite loss may have gradients that are
    not: they are found when the next checkpoint is saved, which then does not replace an earlier one.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        model: Any = runner.model
        model = model.module if is_model_wrapper(model) else model
        self.runner = runner
        self.handle = model.register_forward_hook(self._check)

    def after_train(self, runner: Runner) -> None:
        self.handle.remove()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        try:
            check_finite({key: checkpoint[key] for key in ('state_dict', 'optimizer') if key in checkpoint})
        except CheckpointError as error:
            raise TrainingError(
                f'iteration {runner.iter + 1}: no checkpoint is saved, because it {error}; lower the learning rate or '
                'check the data, and continue from an earlier checkpoint'
            ) from error

    def _check(self, model: nn.Module, _inputs: Any, output: Any) -> None:
        if not model.training or not torch.is_grad_enabled() or not isinstance(output, dict):
            return
        terms = {name: _total(value) for name, value in output.items() if 'loss' in name}  # as mmengine sums them
        # One value to wait for on a GPU.
        if not terms or bool(torch.isfinite(sum(terms.values()))):  # type: ignore[arg-type]
            return
        values = {name: float(value) for name, value in terms.items()}
        ordered = sorted(values.items(), key=lambda item: math.isfinite(item[1]))
        listed = ', '.join(f'{name}={value:.4g}' for name, value in ordered)
        raise TrainingError(
            f'iteration {self.runner.iter + 1}: the loss is not finite ({listed}); lower the learning rate or check '
            'the data, and continue from a checkpoint before it'
        )


def _total(value: Tensor | list[Tensor]) -> Tensor:
    parts = value if isinstance(value, (list, tuple)) else [value]
    return torch.stack([part.detach().float().mean() for part in parts]).sum()
