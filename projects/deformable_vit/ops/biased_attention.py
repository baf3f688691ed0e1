"""Deformable attention on the CPU: every step a matrix product, and no more of queries x keys at a time than a block.

The bias of a query (row i, column j) and a key n is the table T read at (y[n, i], x[n, j]). With the weights of linear
interpolation as matrices A[n] (rows x table rows) and B[n] (columns x table columns), two of a row not zero, it is
A[n] T B[n]', for the rows of queries and all heads of a group together. So are its gradients: of T the sum over keys of
A[n]' dS[n] B[n], of A[n] and B[n] dS[n] times the other two. Nothing is gathered or scattered entry by entry.

The scores are kept keys first, as (key, head, row, column), the layout in which those products come out, and in units
of ln 2: powers of two take a quarter of the time of powers of e.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

# Numbers of the score matrix that are worked on at a time: 8 MiB in float32. Half of it makes the products
# too small, twice as much does not fit caches.
_SCORES = 2**21


def biased_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """softmax(Q K' / sqrt(d) + bias) V, the bias read between the entries of a table; zero outside it.

    Forward keeps its result and a number for each query and head; backward builds the scores again, block by block.

    Args:
        q: (B, heads, H * W, d), queries in row-major order.
        k: (B, heads, N, d).
        v: (B, heads, N, d).
        table: (heads, Ty, Tx).
        y: (B, G, N, H), for each group of heads the row of the table for a key and a row of queries.
        x: (B, G, N, W), the column of the table for a key and a column of queries.

    Returns:
        (B, heads, H * W, d) in the dtype of ``q``; computed in that of the coordinates.
    """
    dtype = y.dtype
    with torch.autocast(q.device.type, enabled=False):
        return _attention(q.to(dtype), k.to(dtype), v.to(dtype), table.to(dtype), y, x)[0].to(q.dtype)


def hat(position: Tensor, size: int) -> Tensor:
    """Weights of linear interpolation between ``size`` entries: (...) -> (..., size)."""
    entry = torch.arange(size, dtype=position.dtype, device=position.device)
    return (position.unsqueeze(-1) - entry).abs_().neg_().add_(1).clamp_(min=0)


def hat_slope(position: Tensor, size: int) -> Tensor:
    """Derivatives of :func:`hat`; on an entry the one to the right, as ``grid_sample`` has it."""
    entry = torch.arange(size, dtype=position.dtype, device=position.device)
    lower = position.floor().unsqueeze(-1)
    return (entry == lower + 1).to(position.dtype) - (entry == lower).to(position.dtype)


class _Group:
    """The heads of one group of one picture, and the scores of a block of its keys.

    The queries see a part of the table's columns alone, which begins elsewhere for each key. Keys for which it begins
    at the same column go together, and leave the other columns out of their products.
    """

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: Tensor, x: Tensor) -> None:
        """(heads, H * W, d), (heads, N, d), (heads, N, d), (heads, Ty, Tx), (N, H), (N, W)."""
        # What is not a number stays so in the scores; here it may be anywhere.
        first, last = torch.aminmax(x.nan_to_num(0).clamp(-1, table.shape[2]).floor(), dim=1)
        width = min(table.shape[2], int((last - first).max()) + 2)
        first = first.clamp(0, table.shape[2] - width)
        self.order = first.argsort()
        self.q, self.table, self.k, self.v = q, table, k[:, self.order], v[:, self.order]
        self.y, self.x = y[self.order], x[self.order]
        self.scale = q.shape[-1] ** -0.5
        self.blocks: list[tuple[slice, slice]] = []  # keys, columns of the table
        # Of a key: its scores, and what interpolates along y, which is more where the map is narrow.
        numbers = max(q.shape[:2].numel(), y.shape[1] * table.shape[1])
        size, start = max(1, _SCORES // numbers), 0
        for column, count in zip(*(t.tolist() for t in first.unique(return_counts=True)), strict=True):
            columns = slice(int(column), int(column) + width)
            for begin in range(start, start + count, size):
                self.blocks.append((slice(begin, min(begin + size, start + count)), columns))
            start += count
        # Written to again and again: new memory for every block would cost a tenth of the time.
        self.buffers = q.new_empty(2, min(size, len(y)) * len(q), q.shape[1])

    def buffer(self, which: int, keys: slice) -> Tensor:
        """Memory of (keys, heads, H * W)."""
        n = keys.stop - keys.start
        return self.buffers[which, : n * len(self.q)].unflatten(0, (n, -1))

    def tables(self, columns: slice) -> Tensor:
        """(Ty, heads * columns): one product interpolates along y for all heads."""
        return self.table[:, :, columns].transpose(0, 1).flatten(1)

    def interpolate(self, keys: slice, columns: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (keys, H, Ty) and (keys, W, columns), and the table between its rows (keys, heads * H, columns)."""
        along_y = hat(self.y[keys], self.table.shape[1])
        along_x = hat(self.x[keys] - columns.start, columns.stop - columns.start)
        read = along_y @ self.tables(columns)  # (keys, H, heads * columns)
        return along_y, along_x, read.unflatten(2, (len(self.table), -1)).transpose(1, 2).flatten(1, 2)

    def scores(self, keys: slice, along_x: Tensor, read: Tensor) -> Tensor:
        """(keys, heads, H * W), in units of ln 2."""
        scores = self.buffer(0, keys)
        bias, by_head, unit = scores.view(*read.shape[:2], -1), scores.transpose(0, 1), math.log2(math.e)
        torch.baddbmm(bias, read, along_x.transpose(1, 2), beta=0, alpha=unit, out=bias)
        torch.baddbmm(by_head, self.k[:, keys], self.q.transpose(1, 2), alpha=self.scale * unit, out=by_head)
        return scores

    def unsorted(self, dim: int, sorted_keys: Tensor) -> Tensor:
        """Put what belongs to the keys along an axis back into their order."""
        return torch.empty_like(sorted_keys).index_copy_(dim, self.order, sorted_keys)


def _groups(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: Tensor, x: Tensor
) -> Iterator[tuple[int, int, slice, _Group]]:
    """Picture, group, its heads, and its slices."""
    per_group = q.shape[1] // y.shape[1]
    for b in range(len(q)):
        for g in range(y.shape[1]):
            heads = slice(g * per_group, (g + 1) * per_group)
            yield b, g, heads, _Group(q[b, heads], k[b, heads], v[b, heads], table[heads], y[b, g], x[b, g])


@torch.library.custom_op('deformable_vit::biased_attention', mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and the logarithm to base 2 of each query's sum of exponentials (B, heads, H * W)."""
    q = q.contiguous()
    out, log_sum = torch.zeros_like(q), q.new_empty(q.shape[:3])
    for b, _, heads, group in _groups(q, k, v, table, y, x):
        outs = out[b, heads]
        # The softmax of what has been seen of the keys: with a new largest score all of it fades.
        largest, total = q.new_full(outs.shape[:2], -torch.inf), q.new_zeros(outs.shape[:2])
        for keys, columns in group.blocks:
            _, along_x, read = group.interpolate(keys, columns)
            scores = group.scores(keys, along_x, read)
            before, largest = largest, torch.maximum(largest, scores.amax(0))
            fade = before.sub_(largest).exp2_()
            scores.sub_(largest).exp2_()
            total.mul_(fade).add_(scores.sum(0))
            outs.mul_(fade.unsqueeze(-1)).baddbmm_(scores.permute(1, 2, 0), group.v[:, keys])
        outs.div_(total.unsqueeze(-1))
        log_sum[b, heads] = largest.add_(total.log2_())
    return out, log_sum


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3])


@torch.library.custom_op('deformable_vit::biased_attention_backward', mutates_args=())
def _attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    y: Tensor,
    x: Tensor,
    out: Tensor,
    log_sum: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad, q = grad.contiguous(), q.contiguous()
    d_q, d_table = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (q, table))
    d_k, d_v, d_y, d_x = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (k, v, y, x))
    share = (grad * out).sum(-1)  # (B, heads, H * W), what the softmax takes off every score
    for b, g, heads, group in _groups(q, k, v, table, y, x):
        grads, d_queries = grad[b, heads], d_q[b, heads]
        d_keys, d_values, d_rows, d_columns = (torch.empty_like(t) for t in (group.k, group.v, group.y, group.x))
        for keys, columns in group.blocks:
            along_y, along_x, read = group.interpolate(keys, columns)
            weights = group.scores(keys, along_x, read).sub_(log_sum[b, heads]).exp2_()
            d_scores = group.buffer(1, keys)
            d_values[:, keys] = torch.bmm(weights.transpose(0, 1), grads)
            torch.bmm(group.v[:, keys], grads.transpose(1, 2), out=d_scores.transpose(0, 1))
            d_scores.sub_(share[b, heads]).mul_(weights)
            d_keys[:, keys] = torch.bmm(d_scores.transpose(0, 1), group.q)
            d_queries.baddbmm_(d_scores.permute(1, 2, 0), group.k[:, keys], alpha=group.scale)
            d_bias = d_scores.view(len(read), -1, along_x.shape[1])
            grads_of_bias = _bias_backward(group, keys, columns, d_bias, along_y, along_x, read)
            d_rows[keys], d_columns[keys], d_part = grads_of_bias
            d_table[heads, :, columns] += d_part
        d_k[b, heads] = group.unsorted(1, d_keys.mul_(group.scale))
        d_v[b, heads] = group.unsorted(1, d_values)
        d_y[b, g], d_x[b, g] = group.unsorted(0, d_rows), group.unsorted(0, d_columns)
    return d_q, d_k, d_v, d_table, d_y, d_x


def _bias_backward(
    group: _Group, keys: slice, columns: slice, d_bias: Tensor, along_y: Tensor, along_x: Tensor, read: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the rows (keys, H) and columns (keys, W) of a block of keys, and of the table's part that it reads.

    ``d_bias`` is (keys, heads * H, W); the others are what :meth:`_Group.interpolate` returns.
    """
    heads, table_rows, _ = group.table.shape
    y, x = group.y[keys], group.x[keys] - columns.start
    # Both products with the few columns as rows: the other way round they take twice the time.
    d_along_x = torch.bmm(read.transpose(1, 2), d_bias)  # (keys, columns, W)
    d_x = (d_along_x * hat_slope(x, along_x.shape[2]).transpose(1, 2)).sum(1)
    d_read = torch.bmm(along_x.transpose(1, 2), d_bias.transpose(1, 2)).unflatten(2, (heads, -1))
    d_read = d_read.permute(0, 3, 2, 1).flatten(2).flatten(0, 1)  # (keys * H, heads * columns)
    d_along_y = (d_read @ group.tables(columns).T).view(*y.shape, table_rows)
    d_y = (d_along_y * hat_slope(y, table_rows)).sum(-1)
    d_table = along_y.flatten(0, 1).T @ d_read
    return d_y, d_x, d_table.unflatten(1, (heads, -1)).transpose(0, 1)


@_attention_backward.register_fake
def _(grad: Tensor, *saved: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in saved[:6])


def _save(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    with torch.autocast(grad.device.type, enabled=False):  # backward may be called within autocast
        return _attention_backward(grad, *ctx.saved_tensors)


_attention.register_autograd(_backward, setup_context=_save)
