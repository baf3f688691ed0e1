"""The base class of the pyramid backbones: stages, freezing, outputs, and loading of weights."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, ClassVar, cast

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..checkpoints import adapt_to_backbone, load_backbone_weights
from ..ops import constant_size, interleave, is_tracing, recompute_with_backend, sharing, tokens_to_map
from .arch import MIN_INPUT_SIZE, NUM_STAGES
from .pretrained import find_pretrained


class TransformerStage(nn.Module):
    """A patch embedding, blocks and an optional norm.

    Args:
        patch_embed: Maps (B, C, H, W) to tokens and their (height, width).
        blocks: Blocks, called with tokens and (height, width).
        norm: Norm of the tokens after the last block; None for none.
        with_cp: Recompute each block in backward instead of keeping its activations.
    """

    def __init__(
        self, patch_embed: nn.Module, blocks: Sequence[nn.Module], norm: nn.Module | None = None, with_cp: bool = False
    ) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.Identity() if norm is None else norm
        self.with_cp = with_cp

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens of the first block and their (height, width)."""
        return self.patch_embed(x)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (B, C_in, H, W) to tokens (B, H' * W', C) and (H', W')."""
        x, hw = self.embed(x)
        recompute = self.with_cp and torch.is_grad_enabled()
        for block in self.blocks:
            x = recompute_with_backend(block, x, hw) if recompute else block(x, hw)
        return self.norm(x), hw

    def format_output(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Return the tokens (B, H * W, C) as a feature map (B, C, H, W)."""
        # Contiguous, because RoIAlign of mmcv 2.1 on a CPU silently misreads channels-last feature maps.
        return tokens_to_map(x, hw).contiguous()


class PyramidBackbone(BaseModule):
    """Four stages that map an image to feature maps of strides 4, 8, 16 and 32.

    A subclass appends :class:`TransformerStage` modules to ``self.stages``.

    State dicts with the names of the official implementation load as they are, also as a part of a whole model: a load
    hook translates them (see :mod:`deformable_vit.checkpoints`).

    Args:
        arch: Row of the subclass's arch table.
        out_indices: Stages whose feature maps are returned, from 0 to 3. Stages after the last one neither run nor
            train.
        frozen_stages: -1: none; 0: the first patch embedding; n: also stages 1 to n.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` loads an official or converted checkpoint.
        output_stride: Stride of the last stage: 32, or 16, which runs it without its stride
            (:meth:`without_stride`), as DC5 does in DETR.
        pretrained: Checkpoint that :meth:`load_pretrained` loads at once, as :meth:`init_weights` does later.

    Raises:
        ValueError: ``out_indices``, ``frozen_stages`` or ``output_stride`` is out of range, or ``pretrained`` is given
            beside ``init_cfg``.
    """

    num_stages = NUM_STAGES
    family: ClassVar[str] = ''  # begins the names of the official weights

    def __init__(
        self,
        arch: Mapping[str, Any],
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        init_cfg: dict[str, Any] | None = None,
        output_stride: int = 32,
        pretrained: str | None = None,
    ) -> None:
        if pretrained and init_cfg:
            raise ValueError(f'pretrained and init_cfg both name weights, got {pretrained=}, {init_cfg=}; set one')
        super().__init__(dict(type='Pretrained', checkpoint=pretrained) if pretrained else init_cfg)
        self.pretrained = pretrained
        if not isinstance(out_indices, Sequence) or not out_indices or set(out_indices) - set(range(NUM_STAGES)):
            raise ValueError(f'out_indices must be a non-empty subset of (0, 1, 2, 3), got {out_indices}')
        if len(set(out_indices)) < len(out_indices):
            raise ValueError(f'out_indices must not repeat a stage, got {tuple(out_indices)}')
        if frozen_stages not in range(-1, NUM_STAGES + 1):
            raise ValueError(f'frozen_stages must be -1 (none) to {NUM_STAGES} (all), got {frozen_stages}')
        if output_stride not in (16, 32):
            raise ValueError(f'output_stride must be 16 or 32, got {output_stride}')
        self.arch = arch
        self.output_stride = output_stride
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.stages = nn.ModuleList()
        self.register_load_state_dict_pre_hook(_load_hook)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the returned feature maps, in the order of the outputs."""
        return tuple(self.arch['embed_dims'][i] for i in sorted(self.out_indices))

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Strides of the returned feature maps in pixels of the image, in the order of the outputs."""
        return tuple((4, 8, 16, self.output_stride)[i] for i in sorted(self.out_indices))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of ``out_indices``.

        Args:
            x: (B, in_channels, H, W), H and W at least 32.

        Returns:
            (B, C_i, ceil(H / s_i), ceil(W / s_i)) for strides s_i of 4, 8, 16 and ``output_stride``.

        Raises:
            ValueError: The images are too small, or not a batch.
        """
        if x.dim() != 4:
            raise ValueError(f'{type(self).__name__} needs images of shape (B, C, H, W), got {tuple(x.shape)}')
        h, w = constant_size(x, -2), constant_size(x, -1)
        if h < MIN_INPUT_SIZE or w < MIN_INPUT_SIZE:
            raise ValueError(
                f'{type(self).__name__} needs images of at least {MIN_INPUT_SIZE} x {MIN_INPUT_SIZE} pixels, '
                f'got height x width {h} x {w}: resize or pad them'
            )
        if is_tracing():
            with sharing():
                return self.feature_maps(x)
        return self.feature_maps(x)

    def feature_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute :meth:`forward` of valid images."""
        outs = []
        for i, stage in enumerate(self.stages[: max(self.out_indices) + 1]):
            if i == NUM_STAGES - 1 and self.output_stride == 16:
                outs.append(self.without_stride(x))
                break
            tokens, hw = stage(x)
            x = cast(Any, stage).format_output(tokens, hw)
            if i in self.out_indices:
                normalized = self.normalize_output(i, tokens)
                outs.append(x if normalized is tokens else cast(Any, stage).format_output(normalized, hw))
        return tuple(outs)

    def without_stride(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to the output (B, C, H, W) of the last stage without its stride, with the same weights.

        The stage runs at each of the four offsets of its grid, and the outputs are interleaved. For convolutions, that
        is a stride of 1 and a dilation of 2 of all later kernels (FCN, CVPR 2015, https://arxiv.org/abs/1411.4038,
        section 3.2), except at the upper and left borders of a padded one. Windows, position embeddings and sampling
        locations keep their sizes in image pixels, too. Pixels of even row and column are those of :meth:`forward` with
        its stride. In training, drop path draws for each offset.
        """
        last = NUM_STAGES - 1
        stage = cast(Any, self.stages[last])
        parts: list[list[Tensor]] = [[], []]
        for top, left in product((0, 1), (0, 1)):
            tokens, hw = stage(x[..., top:, left:])
            parts[top].append(stage.format_output(self.normalize_output(last, tokens), hw))
        return interleave(parts, (x.shape[-2], x.shape[-1]))

    def normalize_output(self, i: int, x: Tensor) -> Tensor:
        """Normalize the tokens (B, N, C) of stage ``i`` for its output; the identity unless a subclass overrides it."""
        return x

    def frozen_modules(self) -> list[nn.Module]:
        """Return the modules that do not train: those of ``frozen_stages``, and the stages that do not run."""
        stages = list(self.stages)
        unused = stages[max(self.out_indices) + 1 :]
        if self.frozen_stages < 0:
            return unused
        return [self.stages[0].get_submodule('patch_embed'), *stages[: self.frozen_stages], *unused]

    def freeze(self) -> None:
        """Freeze :meth:`frozen_modules`; a subclass calls this once its stages exist."""
        for module in self.frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'PyramidBackbone':
        """Set the training mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        if mode:
            for module in self.frozen_modules():
                module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter and the number of depths, for a learning rate that decays with depth.

        As for mmpretrain's backbones, whose optimizer constructor calls this method: blocks count from 1 through all
        stages. The first patch embedding is 0; a later one, with position embedding and class token, has the depth of
        the block before it. The last depth is that of the output norms and of all that follows the backbone.

        Args:
            param_name: Name of a parameter, also of a wrapped layer.
            prefix: What the names of this backbone's parameters start with in the whole model, ``backbone.``.
        """
        depths, start = self.arch['depths'], f'{prefix}stages.'
        last = sum(depths) + 1
        if not param_name.startswith(start):
            return last, last + 1
        i, part, index = f'{param_name.removeprefix(start)}.'.split('.')[:3]
        depth = sum(depths[: int(i)])
        if part == 'blocks':
            depth += int(index) + 1
        elif part == 'norm':  # after the blocks of a stage
            depth = last if int(i) == self.num_stages - 1 else depth + depths[int(i)]
        return depth, last + 1

    def num_extra_tokens(self) -> dict[str, int]:
        """Return by name how many leading entries of each position embedding have no position on the grid."""
        return {}

    def adapt_state_dict(
        self, state_dict: Mapping[str, Any], log: bool = True, adapt_channels: bool = True
    ) -> dict[str, Any]:
        """Return a state dict of this backbone with its names and sizes; see :func:`adapt_to_backbone`."""
        shapes = {key: tuple(value.shape) for key, value in self.state_dict().items()}
        return adapt_to_backbone(state_dict, shapes, self.num_extra_tokens(), log, adapt_channels)

    @classmethod
    def pretrained_checkpoint(cls, arch: Any, pretrained: bool | str | None) -> str | None:
        """Return the checkpoint that an argument ``pretrained`` stands for; see :func:`find_pretrained`."""
        return find_pretrained(cls.__name__, cls.family, arch, pretrained)

    def load_pretrained(self) -> None:
        """Load the weights of ``pretrained``, if any; a subclass calls this last.

        ``init_weights`` of a whole model loads them again: it may initialize all layers before.
        """
        if self.pretrained:
            load_backbone_weights(self, self.pretrained)

    def init_weights(self) -> None:
        """Load the checkpoint of ``init_cfg``; without one, keep the initialization of the constructor."""
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            load_backbone_weights(self, **{k: v for k, v in self.init_cfg.items() if k != 'type'})
            self._is_init = True
        else:
            super().init_weights()


def _load_hook(backbone: PyramidBackbone, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Adapt the part of a model's state dict that belongs to a backbone, in place.

    No other code translates names when a model loads; ``convert_state_dict`` previews the result.
    """
    part = {key[len(prefix) :]: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
    state_dict.update({prefix + key: value for key, value in backbone.adapt_state_dict(part).items()})
