"""Run a model once on a small image, so that layers that do not fit each other are found before training."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .cli import UserError, first_line

_SIZE = 64


def check_forward(model: nn.Module, scope: str) -> None:
    """Run backbone, neck and a dense head in evaluation mode, without gradients.

    Args:
        model: Of mmdet, mmseg or mmpretrain, on its device and not wrapped.
        scope: Which of them.

    Raises:
        UserError: The channels of two parts differ, or a layer does not accept its input.
    """
    backbone: Any = getattr(model, 'backbone', None)
    neck = getattr(model, 'neck', None)
    if not type(backbone).__module__.startswith('deformable_vit.'):  # others may need images of another size
        return
    channels, wanted = getattr(backbone, 'out_channels', None), getattr(neck, 'in_channels', None)
    if isinstance(channels, tuple) and isinstance(wanted, (list, tuple)) and list(wanted) != list(channels):
        raise UserError(
            f'model.neck.in_channels is {list(wanted)}, but the backbone returns {list(channels)} channels '
            f'(out_indices={tuple(backbone.out_indices)}); set model.neck.in_channels="{list(channels)}"'
        )
    parameter = next(model.parameters())
    first = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    image = torch.zeros(1, first.in_channels, _SIZE, _SIZE, device=parameter.device)
    path = _FailingModule(model)
    was_training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), path:
            _forward(model, scope, image.to(parameter.dtype))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f'model{path.name()} does not fit what comes before it: {first_line(error)}') from error
    except Exception as error:  # of a head that takes other arguments
        print_log(f'model{path.name()} was not tried on a small image: {first_line(error)}', 'current')
    finally:
        for module in was_training:
            module.training = True


def _forward(model: Any, scope: str, image: Tensor) -> None:
    features = model.extract_feat(image)
    kind = type(model).__name__
    if scope == 'mmpretrain':
        from mmpretrain.models import ClsHead

        if isinstance(getattr(model, 'head', None), ClsHead):
            model.head(features)
    elif scope == 'mmseg':
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead

        if isinstance(model.decode_head, BaseDecodeHead):  # the heads of MaskFormer and Mask2Former are none
            model.decode_head(features)
        heads = getattr(model, 'auxiliary_head', None) or ()
        for head in heads if isinstance(heads, Sequence | nn.ModuleList) else [heads]:
            head(features)
    elif scope == 'mmdet':
        from mmdet.models.dense_heads import AnchorFreeHead, AnchorHead

        for name in ('rpn_head', 'bbox_head'):
            head = getattr(model, name, None)
            if isinstance(head, (AnchorHead, AnchorFreeHead)) and not kind.endswith('DETR'):
                head(features)


class _FailingModule:
    """Remember which modules are running."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self.running: list[str] = []
        self.hooks: list[Any] = []

    def __enter__(self) -> None:
        for module, name in self.names.items():
            self.hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self.running.append(name)))
            self.hooks.append(module.register_forward_hook(self._returned))

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _returned(self, *_: object) -> None:
        self.running.pop()

    def name(self) -> str:
        """Return the name of the innermost module that did not return."""
        return f'.{self.running[-1]}' if self.running and self.running[-1] else ''
