"""What every pyramid backbone here does the same way: stages, freezing, outputs, loading of weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn

from ..checkpoints import adapt_to_backbone, load_backbone_weights

NUM_STAGES = 4
MIN_INPUT_SIZE = 32


class PyramidBackbone(BaseModule):
    """Four stages that turn a picture into maps of stride 4, 8, 16 and 32.

    A subclass fills ``self.stages``, modules of (B, C, H, W) -> (B, C_i, H_i, W_i) that begin with a ``patch_embed``.

    State dicts in the authors' names load as they are, also inside a whole detector: a hook translates them (see
    :mod:`deformable_vit.checkpoints`).

    Args:
        out_indices: Stages whose maps are returned, of 0 to 3. Those after the last neither run nor train.
        frozen_stages: -1: none; 0: the first patch embedding; n: stages 1 to n whole, and the first patch embedding.
        norm_eval: Keep batch normalisation layers in evaluation mode while training (the PVT family has none).
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` takes a file of the authors or of this project.
    """

    num_stages = NUM_STAGES

    def __init__(
        self,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not out_indices or any(i not in range(NUM_STAGES) for i in out_indices):
            raise ValueError(f'out_indices must be some of 0, 1, 2, 3, got {tuple(out_indices)}')
        if frozen_stages not in range(-1, NUM_STAGES + 1):
            raise ValueError(f'frozen_stages must be -1 (none) to {NUM_STAGES} (all), got {frozen_stages}')
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.stages = nn.ModuleList()
        self.register_load_state_dict_pre_hook(translate_state_dict)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, H, W), H and W at least 32 -> (B, C_i, ceil(H / s_i), ceil(W / s_i)) of ``out_indices``."""
        if min(x.shape[-2:]) < MIN_INPUT_SIZE:
            raise ValueError(
                f'{type(self).__name__} needs pictures of at least {MIN_INPUT_SIZE} x {MIN_INPUT_SIZE} pixels, '
                f'got height x width {x.shape[-2]} x {x.shape[-1]}: resize or pad them'
            )
        outs = []
        for i, stage in enumerate(self.stages[: max(self.out_indices) + 1]):
            x = stage(x)
            if i in self.out_indices:
                outs.append(self.read_out(i, x))
        return tuple(outs)

    def read_out(self, i: int, x: Tensor) -> Tensor:
        """What stage ``i`` shows of what it hands on: everything, unless a subclass says otherwise."""
        return x

    def frozen_modules(self) -> list[nn.Module]:
        """The modules that ``frozen_stages`` freezes, and the stages that do not run."""
        idle = self.stages[max(self.out_indices) + 1 :]
        if self.frozen_stages < 0:
            return [*idle]
        return [self.stages[0].patch_embed, *self.stages[: self.frozen_stages], *idle]

    def freeze(self) -> None:
        """Take the frozen stages out of training; a subclass calls it when its stages are there."""
        for module in self.frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'PyramidBackbone':
        super().train(mode)
        if mode:
            for module in self.frozen_modules():
                module.eval()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def num_extra_positions(self) -> dict[str, int]:
        """How many leading entries of each position embedding belong to no place on its grid, by parameter name."""
        return {}

    def init_weights(self) -> None:
        """Load ``init_cfg``'s checkpoint; without one the weights stay as the authors' initialisation left them."""
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            load_backbone_weights(self, **{k: v for k, v in self.init_cfg.items() if k != 'type'})
            self._is_init = True
        else:
            super().init_weights()


def translate_state_dict(backbone: PyramidBackbone, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Bring a backbone's part of a state dict, in place, to the names and sizes that it has; used as its load hook.

    Args:
        backbone: The backbone.
        state_dict: Of the backbone, or of a model that has it behind ``prefix``.
        prefix: Such as ``backbone.``.
    """
    part = {k[len(prefix) :]: state_dict.pop(k) for k in list(state_dict) if k.startswith(prefix)}
    own = {k: tuple(v.shape) for k, v in backbone.state_dict().items()}
    adapted = adapt_to_backbone(part, own, backbone.num_extra_positions())
    state_dict.update({prefix + k: v for k, v in adapted.items()})


def check_arch(name: str, arch: str | Mapping[str, Any], zoo: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The row of an arch table that ``arch`` says.

    Args:
        name: Of the backbone, for messages.
        arch: A name in the table, a dict with the keys of a row, or a dict with ``like``, a name, and what differs from
            it.
        zoo: The table.

    Raises:
        ValueError: An unknown name, keys that are not those of a row, not one value a stage, or heads that do not
            divide the channels.
    """
    if not isinstance(arch, (str, Mapping)):
        raise ValueError(f'{name}: arch must be one of {", ".join(zoo)}, or a dict, got {arch!r}')
    like = arch if isinstance(arch, str) else arch.get('like')
    if like is not None and like not in zoo:
        raise ValueError(
            f'{name} has no arch {like!r}; it has {", ".join(zoo)}, and takes a dict of the same keys, or of like=NAME '
            'and what differs'
        )
    if isinstance(arch, str):
        return dict(zoo[arch])
    if like is not None:
        arch = {**zoo[like], **{key: value for key, value in arch.items() if key != 'like'}}
    row = next(iter(zoo.values()))
    if set(arch) != set(row):
        missing, unknown = sorted(set(row) - set(arch)), sorted(set(arch) - set(row))
        raise ValueError(f'{name}: arch needs exactly the keys {", ".join(row)}; {missing=}, {unknown=}')
    for key, value in arch.items():
        if isinstance(row[key], tuple) and (isinstance(value, str) or len(value) != NUM_STAGES):
            raise ValueError(f'{name}: arch[{key!r}] needs {NUM_STAGES} values, one a stage, got {value!r}')
    for i, (dim, heads) in enumerate(zip(arch['embed_dims'], arch['num_heads'], strict=True)):
        if heads < 1 or dim % heads:
            raise ValueError(f'{name}: {heads} heads do not divide {dim} channels at stage {i + 1}; change arch')
    return dict(arch)


def check_img_size(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of ``pretrain_img_size``, which may be one number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < MIN_INPUT_SIZE:
        raise ValueError(f'{name}: pretrain_img_size must be at least {MIN_INPUT_SIZE} pixels, got {size}')
    return height, width


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic depth that grows linearly from 0 at the first block to ``rate`` at the last, a list per stage."""
    if not 0 <= rate < 1:
        raise ValueError(f'drop_path_rate must be in [0, 1), got {rate}')
    rates = torch.linspace(0, rate, sum(depths), device='cpu').tolist()
    return [[rates.pop(0) for _ in range(depth)] for depth in depths]
