"""A learning rate that decays with depth, for the models of mmdet, mmseg and mmpretrain."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Multiply the learning rate of a layer by a rate for each layer after it, as for fine-tuning in BEiT.

    ICLR 2022, https://arxiv.org/abs/2106.08254. The parts of a model that have ``get_layer_depth``, such as a backbone
    of this package, count their layers; other parameters keep their learning rate. mmpretrain's constructor asks the
    whole model instead, and those of mmdet and mmseg know the names of a few backbones.

    Args:
        optim_wrapper_cfg: As for mmengine's default constructor.
        paramwise_cfg: As for mmengine's, such as ``custom_keys`` and ``norm_decay_mult``, and ``layer_decay_rate``, in
            (0, 1].

    Raises:
        ValueError: ``layer_decay_rate`` is missing or out of range, or no part of the model has ``get_layer_depth``.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        rate = (paramwise_cfg or {}).get('layer_decay_rate')
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(f'optim_wrapper.paramwise_cfg.layer_decay_rate must be above 0 and at most 1, got {rate}')
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.rate = rate

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, prefix: str = '', **kwargs: Any) -> None:
        """Append the groups of a module's parameters; it calls itself for children, with a prefix."""
        super().add_params(params, module, prefix, **kwargs)
        if prefix:
            return
        parts: dict[str, Any] = {f'{k}.': m for k, m in module.named_modules() if k and hasattr(m, 'get_layer_depth')}
        if not parts:
            raise ValueError(f'no part of {type(module).__name__} has get_layer_depth, which layer_decay_rate needs')
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            name = names[id(group['params'][0])]
            for start in filter(name.startswith, parts):
                depth, count = parts[start].get_layer_depth(name, start)
                group['lr'] = group.get('lr', self.base_lr) * self.rate ** (count - 1 - depth)
                break
