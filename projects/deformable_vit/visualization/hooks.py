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
from ..ops import box_locations, deformable_sampling, key_grid, pad_to_multiple, query_coordinates, tokens_to_map
from ..ops.local_attention import window_runs
from .affine import Affine, Array
from .layer_data import AttentionLayer, Layer, PatchLayer


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
) -> AttentionLayer:
    q = attn.q(x)
    locations = attn.key_locations(q, hw)
    k = attn.k(deformable_sampling(tokens_to_map(x, hw), locations))
    key_hw = (locations.shape[2], locations.shape[3])

    def pixels(normalized: Tensor) -> Array:
        # -1 and 1 are the centers of the corner pixels.
        extent = normalized.new_tensor([hw[0] - 1, hw[1] - 1])
        return to_image(to_numpy(((normalized + 1) / 2 * extent).flatten(-3, -2).flip(-1)))

    bias: dict[str, Any] = {}
    if attn.rpe_table is not None:
        # The table spans displacements, (query - key) / 2, of -1 to 1.
        ends = np.array(attn.rpe_table.shape[1:]) - 1
        rows, columns = (to_numpy(query_coordinates(n, attn.convention, locations)) for n in hw)
        queries = ((rows / 4 + 0.5) * ends[0], (columns / 4 + 0.5) * ends[1])
        keys = to_numpy(locations[0].flatten(1, 2)) / np.float32(-4) * ends.astype(np.float32)
        bias = dict(table=to_numpy(attn.rpe_table), table_keys=keys, table_queries=queries)
    return AttentionLayer(
        kind='deformable',
        query_grid=hw,
        to_image=to_image,
        heads=attn.num_heads,
        groups=attn.num_groups,
        q=_heads(q, attn.num_heads, scale=True),
        k=_heads(k, attn.num_heads),
        key_grid=key_hw,
        reference=pixels(key_grid(*key_hw, attn.convention, locations)),
        locations=pixels(locations[0]),
        **bias,
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
) -> AttentionLayer:
    q, k, _ = (t[0].float().flatten(1, 2) for t in attn.project_in(x, hw))
    if isinstance(attn, WindowAttention):
        kind, side = ('shifted_window' if attn.shift else 'window'), attn.table_size
        table = attn.relative_position_bias_table.T.unflatten(1, (side, side)).flip(1, 2)
    else:
        kind, table = 'neighborhood', attn.rpb
    size = (table.shape[-1] + 1) // 2
    rows, columns = (np.arange(n, dtype=np.float32) for n in hw)
    edges = [np.stack([n - 0.5, n + 0.5]) for n in (rows, columns)]
    return AttentionLayer(
        kind=kind,
        query_grid=hw,
        to_image=to_image,
        heads=len(q),
        q=to_numpy(q * q.shape[-1] ** -0.5),
        k=to_numpy(k),
        key_grid=hw,
        **_cells(edges, to_image),
        spans=(_spans(attn, size, hw[0]), _spans(attn, size, hw[1])),
        table=to_numpy(table),  # by (key - query) + size - 1 in y and x
        table_keys=np.stack(np.meshgrid(rows, columns, indexing='ij'), axis=-1).reshape(1, -1, 2),
        table_queries=(size - 1 - rows, size - 1 - columns),
        **place,
    )


def _spans(attn: WindowAttention | NeighborhoodAttention, size: int, n: int) -> Array:
    """Return the first and the last key (n, 2) of each query along an axis of n pixels."""
    if isinstance(attn, NeighborhoodAttention):
        first = (np.arange(n) - size // 2).clip(0, max(n - size, 0))
        return np.stack([first, np.minimum(first + size, n) - 1], axis=-1)
    runs = window_runs(n, size, attn.shift)
    starts = np.array([run.start + i * run.size for run in runs for i in range(run.tiles)])
    ends = np.append(starts[1:], n)
    return np.stack([starts, ends - 1], axis=-1).repeat(ends - starts, axis=0)


def _cells(edges: list[Array], to_image: Affine) -> dict[str, Any]:
    """Return where keys are that stand for parts of the image, in pixels of the image.

    Args:
        edges: For y and x, where the parts begin and end (2, n) in pixels of the feature map, from border to border.
        to_image: Maps pixels of the feature map to pixels of the image.
    """
    corners = [to_image(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)) for y, x in zip(*edges, strict=True)]
    centers = np.mean(corners, axis=0)
    return dict(boxes=np.concatenate(corners, axis=1), reference=centers, locations=centers[None])


def _reduction(
    attn: SpatialReductionAttention, x: Tensor, hw: tuple[int, int], before: Affine, to_image: Affine, **place: Any
) -> AttentionLayer:
    edges: list[Array] = []
    for n in hw:
        if pool := getattr(attn, 'pool_size', None):
            i = np.arange(pool)
            edges.append(
                np.stack([i * n // pool, -(-(i + 1) * n // pool)]) - 0.5
            )  # as adaptive pooling divides an axis
        else:
            first = np.arange(n // attn.sr_ratio) * attn.sr_ratio
            edges.append(np.stack([first, first + attn.sr_ratio]) - 0.5)
    return AttentionLayer(
        kind='spatial_reduction',
        query_grid=hw,
        to_image=to_image,
        heads=attn.num_heads,
        q=_heads(attn.q(x), attn.num_heads, scale=True),
        k=_heads(attn.kv(attn.reduce(x, hw)).chunk(2, dim=-1)[0], attn.num_heads),
        key_grid=(edges[0].shape[1], edges[1].shape[1]),
        extra=x.shape[1] - hw[0] * hw[1],  # a class token
        **_cells(edges, to_image),
        **place,
    )


def _patches(embed: DeformablePatchEmbed, x: Tensor, before: Affine, to_image: Affine, **place: Any) -> PatchLayer:
    x = pad_to_multiple(x, embed.patch_embed.stride)
    boxes = embed.boxes(x)  # corners x0, y0, x1, y1 in [0, 1], from border to border of the feature map
    locations = box_locations(boxes, embed.points, (x.shape[-2], x.shape[-1]))  # (1, k * k, 2, H', W')
    corners = to_numpy(boxes[0].flatten(1).T.unflatten(1, (2, 2))) * [x.shape[-1], x.shape[-2]] - 0.5
    return PatchLayer(
        kind='deformable_patch',
        query_grid=(boxes.shape[-2], boxes.shape[-1]),
        to_image=to_image,
        boxes=before(corners).reshape(-1, 4),
        points=before(to_numpy(locations[0].flatten(2).permute(2, 0, 1).flip(-1))),
        **place,
    )


_RECORDERS: dict[type[nn.Module], Callable[..., Layer]] = {
    DeformableAttention: _deformable,
    WindowAttention: _local,
    NeighborhoodAttention: _local,
    SpatialReductionAttention: _reduction,
    DeformablePatchEmbed: _patches,
}
