"""Record the tensors of a backbone's forward pass: queries, keys, sampling locations, windows, patches.

Forward hooks take the input of each attention and patch embedding and project it once more; the models have no code for
it, and nothing is recorded outside of :func:`record_backbone`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..backbones.base import PyramidBackbone
from ..backbones.dat import DeformableAttention, NeighborhoodAttention, WindowAttention
from ..backbones.dpt import DeformablePatchEmbed
from ..layers import SpatialReductionAttention
from ..ops import box_locations, deformable_key_value, key_grid, pad_to_multiple, query_coordinates, tokens_to_map
from .affine import Affine, Array
from .attention_data import DeformableLayer, LocalLayer, ReductionLayer
from .layer_data import Layer, PatchLayer


def to_numpy(tensor: Tensor) -> Array:
    """Return a float32 copy of a tensor on the CPU."""
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())


@contextmanager
def record_backbone(backbone: PyramidBackbone, name: str, to_image: Affine, layers: list[Layer]) -> Iterator[None]:
    """Append to ``layers`` what each attention and deformable patch embedding uses, in the order in which they run.

    Args:
        backbone: The backbone; its input must be one image.
        name: Name of the backbone in its model, '' for the model itself.
        to_image: Maps pixels of the backbone's input to pixels of the image.
        layers: The layers so far.
    """
    before = to_image
    with ExitStack() as stack:
        for i, stage in enumerate(backbone.stages):
            patches = Affine.of_patches(stage.get_submodule('patch_embed'))
            calls: list[None] = []  # of the stage: four without its stride, one for each offset of its grid
            if i == len(backbone.stages) - 1 and backbone.output_stride == 16:
                stack.callback(stage.register_forward_pre_hook(lambda *_, calls=calls: calls.append(None)).remove)
            for suffix, module in stage.named_modules():
                for kind, recorder in _RECORDERS.items():
                    if isinstance(module, kind):
                        block = 0 if kind is DeformablePatchEmbed else int(suffix.split('.')[1]) + 1
                        whole = '.'.join(part for part in (name, 'stages', str(i), suffix) if part)
                        make = partial(recorder, stage=i + 1, block=block, name=whole)
                        hook = partial(_append, layers, make, before, patches, calls)
                        stack.callback(module.register_forward_hook(hook).remove)
            before = before.after(patches)
        yield


def _append(
    layers: list[Layer],
    make: Callable[..., Layer],
    before: Affine,
    patches: Affine,
    calls: list[None],
    module: nn.Module,
    args: tuple[Any, ...],
    _output: Any,
) -> None:
    if len(args[0]) != 1:
        raise ValueError(f'recording takes one image at a time, got a batch of {len(args[0])}')
    part = None
    if calls:
        part = ((len(calls) - 1) % 2, (len(calls) - 1) // 2)
        before = before.after(Affine(shift=part))
    layers.append(make(module, *args, before=before, to_image=before.after(patches), part=part))


def _deformable(
    attn: DeformableAttention, x: Tensor, hw: tuple[int, int], before: Affine, to_image: Affine, **place: Any
) -> DeformableLayer:
    q = attn.q(x)
    locations = attn.key_locations(q, hw)
    k = deformable_key_value(tokens_to_map(x, hw), locations, attn.k.weight, attn.k.bias)
    key_hw = (locations.shape[2], locations.shape[3])

    def pixels(normalized: Tensor) -> Array:
        # -1 and 1 are the centers of the corner pixels.
        extent = normalized.new_tensor([hw[0] - 1, hw[1] - 1])
        return to_image(to_numpy(((normalized + 1) / 2 * extent).flatten(-3, -2).flip(-1)))

    query_y, query_x = (to_numpy(query_coordinates(n, attn.convention, locations)) for n in hw)
    return DeformableLayer(
        kind='deformable',
        query_grid=hw,
        to_image=to_image,
        q=_heads(q, attn.num_heads, scale=True),
        k=_heads(k, attn.num_heads),
        key_grid=key_hw,
        groups=attn.num_groups,
        normalized=to_numpy(locations[0].flatten(1, 2)),
        query_y=query_y,
        query_x=query_x,
        table=None if attn.rpe_table is None else to_numpy(attn.rpe_table),
        reference=pixels(key_grid(*key_hw, attn.convention, locations)),
        locations=pixels(locations[0]),
        border=(locations[0].abs() >= 1).any(-1).flatten(1).cpu().numpy(),
        convention=attn.convention,
        clamped=attn.offset_range < 0,
        **place,
    )


def _heads(tokens: Tensor, heads: int, scale: bool = False) -> Array:
    """Return the tokens (1, N, C) as (heads, N, d), divided by sqrt(d) if ``scale``."""
    split = tokens[0].float().unflatten(-1, (heads, -1)).transpose(0, 1)
    return to_numpy(split * split.shape[-1] ** -0.5 if scale else split)


def _local(
    attn: WindowAttention | NeighborhoodAttention,
    x: Tensor,
    hw: tuple[int, int],
    before: Affine,
    to_image: Affine,
    **place: Any,
) -> LocalLayer:
    q, k, _ = (t[0].float().flatten(1, 2) for t in attn.project_in(x, hw))
    if isinstance(attn, WindowAttention):
        kind, shift = ('shifted_window' if attn.shift else 'window'), attn.shift
        side = attn.table_size
        table = attn.relative_position_bias_table.T.unflatten(1, (side, side)).flip(1, 2)
    else:
        kind, shift, table = 'neighborhood', 0, attn.rpb
    return LocalLayer(
        kind=kind,
        query_grid=hw,
        to_image=to_image,
        q=to_numpy(q * q.shape[-1] ** -0.5),
        k=to_numpy(k),
        key_grid=hw,
        table=to_numpy(table),
        size=(table.shape[-1] + 1) // 2,
        shift=shift,
        **place,
    )


def _reduction(
    attn: SpatialReductionAttention, x: Tensor, hw: tuple[int, int], before: Affine, to_image: Affine, **place: Any
) -> ReductionLayer:
    spans = []
    for n in hw:
        if pool := getattr(attn, 'pool_size', None):
            i = np.arange(pool)
            spans.append(np.stack([i * n // pool, -(-(i + 1) * n // pool)]))  # as adaptive pooling divides an axis
        else:
            first = np.arange(n // attn.sr_ratio) * attn.sr_ratio
            spans.append(np.stack([first, first + attn.sr_ratio]))
    corners = [np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) - 0.5 for y, x in zip(*spans, strict=True)]
    return ReductionLayer(
        kind='spatial_reduction',
        query_grid=hw,
        to_image=to_image,
        q=_heads(attn.q(x), attn.num_heads, scale=True),
        k=_heads(attn.kv(attn.reduce(x, hw)).chunk(2, dim=-1)[0], attn.num_heads),
        key_grid=(spans[0].shape[1], spans[1].shape[1]),
        extra=x.shape[1] - hw[0] * hw[1],  # a class token
        boxes=np.concatenate([to_image(corner) for corner in corners], axis=1),
        **place,
    )


def _patches(embed: DeformablePatchEmbed, x: Tensor, before: Affine, to_image: Affine, **place: Any) -> PatchLayer:
    x = pad_to_multiple(x, int(embed.patch_embed.proj.stride[0]))
    boxes = embed.boxes(x)  # corners x0, y0, x1, y1 in [0, 1], from border to border of the feature map
    locations = box_locations(boxes, embed.points, (x.shape[-2], x.shape[-1]))  # (1, k * k, 2, H', W')
    corners = to_numpy(boxes[0].flatten(1).T.unflatten(1, (2, 2))) * [x.shape[-1], x.shape[-2]] - 0.5
    return PatchLayer(
        kind='deformable_patch',
        query_grid=(boxes.shape[-2], boxes.shape[-1]),
        to_image=to_image,
        boxes=before(corners).reshape(-1, 4),
        points=before(to_numpy(locations[0].flatten(2).permute(2, 0, 1).flip(-1))),
        border=((boxes[0] <= 0) | (boxes[0] >= 1)).any(0).flatten().cpu().numpy(),
        **place,
    )


_RECORDERS: dict[type[nn.Module], Callable[..., Layer]] = {
    DeformableAttention: _deformable,
    WindowAttention: _local,
    NeighborhoodAttention: _local,
    SpatialReductionAttention: _reduction,
    DeformablePatchEmbed: _patches,
}
