"""The separable backend of deformable attention, for large inputs on a CPU.

Queries lie on a regular grid, so the bilinear read of the bias is separable. For a key n, a query row i and a query
column j, the bias is the table T read at (y[n, i], x[n, j]). With the linear interpolation weights as matrices A[n]
(query rows x table rows) and B[n] (query columns x table columns), two non-zeros a row, it is A[n] T B[n]^T. The
gradients are matrix products too: of T the sum over keys of A[n]^T dS[n] B[n], of A[n] and B[n] dS[n] times the other
two. Nothing is gathered or scattered.

Scores are stored keys first, (key, head, row, column), the layout of those products, and in units of ln 2: ``exp2``
takes a quarter of the time of ``exp``. The softmax is computed online over chunks of keys (FlashAttention, Dao et al.,
https://arxiv.org/abs/2205.14135, algorithm 1).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .interpolation import interpolation_slopes, interpolation_weights

# Elements of the score matrix of a chunk: 8 MiB in float32. Half of it makes the products too small, twice as much
# exceeds the caches.
MAX_SCORES = 2**21


class _Group:
    """The heads of one group of one sample, and the scores of a chunk of its keys.

    The queries see only some columns of the table, which start at another column for each key. Keys with the same first
    column form chunks together and leave the other columns out of their products.
    """

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: Tensor, x: Tensor, max_scores: int) -> None:
        """Take (heads, H * W, d), (heads, N, d), (heads, N, d), (heads, Ty, Tx), (N, H), (N, W)."""
        # NaN propagates through the scores; the choice of the column does not matter.
        first, last = torch.aminmax(x.nan_to_num(0).clamp(-1, table.shape[2]).floor(), dim=1)
        width = min(table.shape[2], int((last - first).max()) + 2)
        first = first.clamp(0, table.shape[2] - width)
        self.order = first.argsort()
        self.q, self.table, self.k, self.v = q, table, k[:, self.order], v[:, self.order]
        self.y, self.x = y[self.order], x[self.order]
        self.scale = q.shape[-1] ** -0.5
        self.chunks: list[tuple[slice, slice]] = []  # keys, columns of the table
        # Elements per key: its scores, or the table interpolated along y, which is larger for narrow feature maps.
        elements = max(q.shape[:2].numel(), y.shape[1] * table.shape[1])
        size, start = max(1, max_scores // elements), 0
        for column, count in zip(*(t.tolist() for t in first.unique(return_counts=True)), strict=True):
            columns = slice(int(column), int(column) + width)
            for begin in range(start, start + count, size):
                self.chunks.append((slice(begin, min(begin + size, start + count)), columns))
            start += count
        # Reused by all chunks: allocating for each costs a tenth of the time.
        self.buffers = q.new_empty(2, min(size, len(y)) * len(q), q.shape[1])

    def buffer(self, index: int, keys: slice) -> Tensor:
        """Return memory of shape (keys, heads, H * W)."""
        n = keys.stop - keys.start
        return self.buffers[index, : n * len(self.q)].unflatten(0, (n, -1))

    def tables(self, columns: slice) -> Tensor:
        """Return (Ty, heads * columns): one product interpolates along y for all heads."""
        return self.table[:, :, columns].transpose(0, 1).flatten(1)

    def interpolate(self, keys: slice, columns: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights (keys, H, Ty) and (keys, W, columns), and the table read along y.

        The latter is (keys, heads * H, columns).
        """
        weights_y = interpolation_weights(self.y[keys], self.table.shape[1])
        weights_x = interpolation_weights(self.x[keys] - columns.start, columns.stop - columns.start)
        read = weights_y @ self.tables(columns)  # (keys, H, heads * columns)
        return weights_y, weights_x, read.unflatten(2, (len(self.table), -1)).transpose(1, 2).flatten(1, 2)

    def scores(self, keys: slice, weights_x: Tensor, read: Tensor) -> Tensor:
        """Return (keys, heads, H * W) in units of ln 2."""
        scores = self.buffer(0, keys)
        bias, by_head, unit = scores.view(*read.shape[:2], -1), scores.transpose(0, 1), math.log2(math.e)
        torch.baddbmm(bias, read, weights_x.transpose(1, 2), beta=0, alpha=unit, out=bias)
        torch.baddbmm(by_head, self.k[:, keys], self.q.transpose(1, 2), alpha=self.scale * unit, out=by_head)
        return scores

    def unsort(self, dim: int, sorted_keys: Tensor) -> Tensor:
        """Restore the order of the keys along an axis."""
        return torch.empty_like(sorted_keys).index_copy_(dim, self.order, sorted_keys)


def _groups(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: Tensor, x: Tensor, max_scores: int
) -> Iterator[tuple[int, int, slice, _Group]]:
    """Yield the index of the sample, the index of the group, its heads, and its slices of the tensors."""
    per_group = q.shape[1] // y.shape[1]
    for b in range(len(q)):
        for g in range(y.shape[1]):
            heads = slice(g * per_group, (g + 1) * per_group)
            group = _Group(q[b, heads], k[b, heads], v[b, heads], table[heads], y[b, g], x[b, g], max_scores)
            yield b, g, heads, group


@torch.library.custom_op('deformable_vit::separable_attention', mutates_args=())
def separable_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: Tensor, x: Tensor, max_scores: int = MAX_SCORES
) -> tuple[Tensor, Tensor]:
    """Compute softmax(Q K^T / sqrt(d) + bias) V with the bias read between table entries, zero outside the table.

    Backward recomputes the scores chunk by chunk from the output and the log-sum-exp of each query and head.

    Args:
        q: (B, heads, H * W, d), queries in row-major order.
        k: (B, heads, N, d).
        v: (B, heads, N, d).
        table: (heads, Ty, Tx).
        y: (B, G, N, H), for each group of heads, key and query row the fractional row of the table.
        x: (B, G, N, W), for each key and query column the fractional column of the table.
        max_scores: Elements of the score matrix of a chunk; a chunk has at least one key.

    Returns:
        The output (B, heads, H * W, d), and the log-sum-exp of the scores to base 2 (B, heads, H * W), which has no
        gradient; both in the dtype of ``y``.
    """
    with torch.autocast(q.device.type, enabled=False):
        queries, k, v, table = q.to(y.dtype).contiguous(), k.to(y.dtype), v.to(y.dtype), table.to(y.dtype)
        out, lse = torch.zeros_like(queries), queries.new_empty(q.shape[:3])
        for b, _, heads, group in _groups(queries, k, v, table, y, x, max_scores):
            outs = out[b, heads]
            # Online softmax over chunks: a new maximum rescales what has been summed.
            maximum, total = outs.new_full(outs.shape[:2], -torch.inf), outs.new_zeros(outs.shape[:2])
            for keys, columns in group.chunks:
                _, weights_x, read = group.interpolate(keys, columns)
                scores = group.scores(keys, weights_x, read)
                previous, maximum = maximum, torch.maximum(maximum, scores.amax(0))
                rescale = previous.sub_(maximum).exp2_()
                scores.sub_(maximum).exp2_()
                total.mul_(rescale).add_(scores.sum(0))
                outs.mul_(rescale.unsqueeze(-1)).baddbmm_(scores.permute(1, 2, 0), group.v[:, keys])
            outs.div_(total.unsqueeze(-1))
            lse[b, heads] = maximum.add_(total.log2_())
        return out, lse


@separable_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: Tensor, x: Tensor, max_scores: int = MAX_SCORES
) -> tuple[Tensor, Tensor]:
    return y.new_empty(q.shape), y.new_empty(q.shape[:3])


def _flops(q: torch.Size, k: torch.Size, v: torch.Size, *_args: Any, **_kwargs: Any) -> int:
    """Count the products of attention, and two per score for the bias, read along y and then along x."""
    return 2 * math.prod(q[:3]) * k[2] * (q[3] + v[3] + 2)


FLOP_FORMULAS = {torch.ops.deformable_vit.separable_attention: _flops}


@torch.library.custom_op('deformable_vit::separable_attention_backward', mutates_args=())
def _separable_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    y: Tensor,
    x: Tensor,
    out: Tensor,
    lse: Tensor,
    max_scores: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = q, k, v, table, y, x
    with torch.autocast(q.device.type, enabled=False):  # backward may run within autocast
        grad, q = grad.contiguous(), q.to(y.dtype).contiguous()
        k, v, table = (t.to(y.dtype) for t in (k, v, table))
        d_q, d_table = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (q, table))
        d_k, d_v, d_y, d_x = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (k, v, y, x))
        delta = (grad * out).sum(-1)  # (B, heads, H * W), FlashAttention's term of the softmax gradient
        for b, g, heads, group in _groups(q, k, v, table, y, x, max_scores):
            grads, d_queries = grad[b, heads], d_q[b, heads]
            d_keys, d_values, d_rows, d_columns = (torch.empty_like(t) for t in (group.k, group.v, group.y, group.x))
            for keys, columns in group.chunks:
                weights_y, weights_x, read = group.interpolate(keys, columns)
                weights = group.scores(keys, weights_x, read).sub_(lse[b, heads]).exp2_()
                d_scores = group.buffer(1, keys)
                d_values[:, keys] = torch.bmm(weights.transpose(0, 1), grads)
                torch.bmm(group.v[:, keys], grads.transpose(1, 2), out=d_scores.transpose(0, 1))
                d_scores.sub_(delta[b, heads]).mul_(weights)
                d_keys[:, keys] = torch.bmm(d_scores.transpose(0, 1), group.q)
                d_queries.baddbmm_(d_scores.permute(1, 2, 0), group.k[:, keys], alpha=group.scale)
                d_bias = d_scores.view(len(read), -1, weights_x.shape[1])
                bias_grads = _bias_backward(group, keys, columns, d_bias, weights_y, weights_x, read)
                d_rows[keys], d_columns[keys], d_part = bias_grads
                d_table[heads, :, columns] += d_part
            d_k[b, heads] = group.unsort(1, d_keys.mul_(group.scale))
            d_v[b, heads] = group.unsort(1, d_values)
            d_y[b, g], d_x[b, g] = group.unsort(0, d_rows), group.unsort(0, d_columns)
        gradients = d_q, d_k, d_v, d_table, d_y, d_x
        return tuple(d.to(t.dtype) for d, t in zip(gradients, inputs, strict=True))  # type: ignore[return-value]


def _bias_backward(
    group: _Group, keys: slice, columns: slice, d_bias: Tensor, weights_y: Tensor, weights_x: Tensor, read: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the rows (keys, H), of the columns (keys, W), and of the columns of the table in use.

    ``d_bias`` is (keys, heads * H, W); the weights and ``read`` are those of :meth:`_Group.interpolate`.
    """
    heads, table_rows, _ = group.table.shape
    y, x = group.y[keys], group.x[keys] - columns.start
    # Both products with the few columns as rows: transposed, they take twice the time.
    d_weights_x = torch.bmm(read.transpose(1, 2), d_bias)  # (keys, columns, W)
    d_x = (d_weights_x * interpolation_slopes(x, weights_x.shape[2]).transpose(1, 2)).sum(1)
    d_read = torch.bmm(weights_x.transpose(1, 2), d_bias.transpose(1, 2)).unflatten(2, (heads, -1))
    d_read = d_read.permute(0, 3, 2, 1).flatten(2).flatten(0, 1)  # (keys * H, heads * columns)
    d_weights_y = (d_read @ group.tables(columns).T).view(*y.shape, table_rows)
    d_y = (d_weights_y * interpolation_slopes(y, table_rows)).sum(-1)
    d_table = weights_y.flatten(0, 1).T @ d_read
    return d_y, d_x, d_table.unflatten(1, (heads, -1)).transpose(0, 1)


@_separable_attention_backward.register_fake
def _(grad: Tensor, *saved: Any) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in saved[:6])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.max_scores = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_separable_attention_backward(grad, *ctx.saved_tensors, ctx.max_scores), None


separable_attention.register_autograd(_backward, setup_context=_save)
