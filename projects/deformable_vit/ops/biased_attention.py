"""Deformable attention on the CPU: every step a matrix product, and no more of queries x keys at a time than a block.

The bias of a query (row i, column j) and a key n is the table T read at (y[n, i], x[n, j]). With the weights of linear
interpolation as matrices A[n] (rows x table rows) and B[n] (columns x table columns), two of a row not zero, it is
A[n] T B[n]', for the rows of queries and all heads of a group together. So are its gradients: of T the sum over keys of
A[n]' dS[n] B[n], of A[n] and B[n] dS[n] times the other two. Nothing is gathered or scattered entry by entry.

The scores are kept keys first, as (key, head, row, column), the layout in which those products come out.
"""

import torch
from torch import Tensor

# Numbers of the score matrix that are worked on at a time, 32 MiB in float32; and of the interpolation matrices.
_SCORES = 2**23
_WEIGHTS = 2**20


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


def _blocks(n: int, each: int, limit: int) -> list[slice]:
    """Cut an axis into blocks of at most ``limit`` numbers, where one entry has ``each``."""
    size = max(1, limit // max(each, 1))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


class _Group:
    """The heads of one group of one picture: its slices of all tensors, and the scores of a block of query rows."""

    def __init__(self, q: Tensor, k: Tensor, table: Tensor, y: Tensor, x: Tensor) -> None:
        """(heads, H, W, d), (heads, N, d), (heads, Ty, Tx), (N, H), (N, W)."""
        self.q, self.k, self.table, self.y, self.x = q, k, table, y, x
        heads, rows, columns, _ = q.shape
        self.scale = q.shape[-1] ** -0.5
        self.row_blocks = _blocks(rows, len(y) * heads * columns, _SCORES)
        self.key_blocks = _blocks(len(y), columns * table.shape[2], _WEIGHTS)
        # (Ty, heads * Tx): one product interpolates along y for all heads.
        self.flat_table = table.transpose(0, 1).flatten(1)

    def read_rows(self, rows: slice, keys: slice) -> Tensor:
        """The table between its rows: (keys, heads * rows, Tx)."""
        read = hat(self.y[keys, rows], self.table.shape[1]) @ self.flat_table  # (keys, rows, heads * Tx)
        return read.unflatten(2, (len(self.table), -1)).transpose(1, 2).flatten(1, 2)

    def scores(self, rows: slice) -> Tensor:
        """(N, heads, rows, W)."""
        heads, _, columns, _ = self.q.shape
        n_rows = rows.stop - rows.start
        scores = self.q.new_empty(len(self.y), heads * n_rows, columns)
        for keys in self.key_blocks:
            weights = hat(self.x[keys], self.table.shape[2])  # (keys, W, Tx)
            torch.bmm(self.read_rows(rows, keys), weights.transpose(1, 2), out=scores[keys])
        scores = scores.view(len(self.y), heads, n_rows * columns)
        for head in range(heads):
            scores[:, head].addmm_(self.k[head], self.queries(head, rows).T, alpha=self.scale)
        return scores.view(len(self.y), heads, n_rows, columns)

    def queries(self, head: int, rows: slice) -> Tensor:
        """(rows * W, d)."""
        return self.q[head, rows].flatten(0, 1)


def _groups(q: Tensor, k: Tensor, table: Tensor, y: Tensor, x: Tensor) -> list[tuple[int, slice, _Group]]:
    """Picture, heads and the group's slices."""
    per_group = q.shape[1] // y.shape[1]
    maps = q.unflatten(2, (y.shape[-1], x.shape[-1]))
    found = []
    for b in range(len(q)):
        for g in range(y.shape[1]):
            heads = slice(g * per_group, (g + 1) * per_group)
            found.append((b, heads, _Group(maps[b, heads], k[b, heads], table[heads], y[b, g], x[b, g])))
    return found


@torch.library.custom_op('deformable_vit::biased_attention', mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and the logarithm of each query's sum of exponentials (B, heads, H * W)."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out, log_sum = torch.empty_like(q), q.new_empty(q.shape[:3])
    out_maps, sum_maps = (t.unflatten(2, (y.shape[-1], x.shape[-1])) for t in (out, log_sum))
    for b, heads, group in _groups(q, k, table, y, x):
        for rows in group.row_blocks:
            scores = group.scores(rows)
            largest = scores.amax(0)
            scores.sub_(largest).exp_()
            total = scores.sum(0)
            sum_maps[b, heads, rows] = largest.add_(total.log())
            for i, head in enumerate(range(heads.start, heads.stop)):
                weighted = scores[:, i].flatten(1).T @ v[b, head]
                out_maps[b, head, rows] = weighted.view(*total.shape[1:], -1) / total[i].unsqueeze(-1)
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
    grad, q, k, v = (t.contiguous() for t in (grad, q, k, v))
    d_q, d_k, d_v, d_table, d_y, d_x = (
        torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (q, k, v, table, y, x)
    )
    size = y.shape[-1], x.shape[-1]
    share = (grad * out).sum(-1).unflatten(2, size)  # (B, heads, H, W), what the softmax takes off every score
    sum_maps, grad_maps, d_q_maps = (t.unflatten(2, size) for t in (log_sum, grad, d_q))
    per_group = q.shape[1] // y.shape[1]
    for b, heads, group in _groups(q, k, table, y, x):
        g = heads.start // per_group
        for rows in group.row_blocks:
            weights = group.scores(rows).sub_(sum_maps[b, heads, rows]).exp_()  # (N, heads, rows, W)
            d_scores = torch.empty_like(weights)
            for i, head in enumerate(range(heads.start, heads.stop)):
                part = grad_maps[b, head, rows].flatten(0, 1)  # (rows * W, d)
                d_v[b, head].addmm_(weights[:, i].flatten(1), part)
                torch.mm(v[b, head], part.T, out=d_scores[:, i].flatten(1))
            d_scores.sub_(share[b, heads, rows]).mul_(weights)
            for i, head in enumerate(range(heads.start, heads.stop)):
                d_score = d_scores[:, i].flatten(1)  # (N, rows * W)
                d_k[b, head].addmm_(d_score, group.queries(i, rows), alpha=group.scale)
                d_q_maps[b, head, rows] = ((d_score.T @ k[b, head]) * group.scale).view(*d_scores.shape[2:], -1)
            _bias_backward(group, rows, d_scores, d_table[heads], d_y[b, g], d_x[b, g])
    return d_q, d_k, d_v, d_table, d_y, d_x


def _bias_backward(group: _Group, rows: slice, d_scores: Tensor, d_table: Tensor, d_y: Tensor, d_x: Tensor) -> None:
    """Add to the gradients of a group's table and positions what a block of the scores' gradient gives."""
    heads, table_rows, table_columns = group.table.shape
    d_scores = d_scores.flatten(1, 2)  # (N, heads * rows, W)
    for keys in group.key_blocks:
        d_bias = d_scores[keys]
        along_x = hat(group.x[keys], table_columns)  # (keys, W, Tx)
        d_along_x = torch.bmm(d_bias.transpose(1, 2), group.read_rows(rows, keys))
        d_x[keys] += (d_along_x * hat_slope(group.x[keys], table_columns)).sum(-1)
        d_read = torch.bmm(d_bias, along_x)  # (keys, heads * rows, Tx)
        d_read = d_read.unflatten(1, (heads, -1)).transpose(1, 2).flatten(2).flatten(0, 1)  # (keys * rows, heads * Tx)
        place = group.y[keys, rows]
        along_y = hat(place, table_rows).flatten(0, 1)  # (keys * rows, Ty)
        d_table += (along_y.T @ d_read).unflatten(1, (heads, -1)).transpose(0, 1)
        d_along_y = (d_read @ group.flat_table.T).view(*place.shape, table_rows)
        d_y[keys, rows] += (d_along_y * hat_slope(place, table_rows)).sum(-1)


@_attention_backward.register_fake
def _(grad: Tensor, *saved: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in saved[:6])


def _save(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    return _attention_backward(grad, *ctx.saved_tensors)


_attention.register_autograd(_backward, setup_context=_save)
