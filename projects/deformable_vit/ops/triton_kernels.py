"""Triton kernels of deformable attention with its relative position bias: forward, and backward in three kernels.

On paper, for a layer of DAT-T at 800 x 1344 (stage 3: 4200 queries and keys, 12 heads of 32 channels, 27 x 27 entries,
212 million scores) on an A100:

- The bias table read along y for each key and query row would be 272 MB, and its gradient again. So the kernels read
  the table itself, padded with zeros so that no read needs a mask: four entries a score. A head's table is 4 kB and
  stays in the L1 cache. Reading takes about 0.4 ms a kernel; the matrix products of forward take 0.1 ms at full rate.
- The traffic to memory is that of attention without a bias: q, k, v and the output, 3.2 MB each in bfloat16.
- The gradient of the table would be four atomic additions a score. Instead, a program of ``backward_table`` owns some
  keys and walks along the query rows. It spreads the gradients of a row's scores along x with interpolation weights, a
  pass over the tile for each table column that it uses: at most 4 here, about 50 operations a score. What is left
  along y is a small matrix product a row. Each program adds up a table of its own, and torch sums them (2.3 MB).
- In one kernel with ``backward_keys``, this needs more registers than there are. Computing the scores once more costs
  two of eleven matrix products and one of four reads of the table.

This is FlashAttention-2 (Dao, https://arxiv.org/abs/2307.08691, algorithms 1 and 2) with scores in units of ln 2.
Accumulators, the log-sum-exp, coordinates and table gradients are float32. Products of float32 tensors, and those for
the gradient of the table, are three TF32 products on tensor cores ('tf32x3'), about as accurate as float32.

This module imports triton, 72 MiB, so it is imported on first use. Integer arguments that are 1 are constants in a
kernel, so none is converted with `.to`.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
# Zeros before and after the table along each axis: an index is clamped to two entries before and one behind the end.
PADDING = tl.constexpr(2)


@triton.jit
def _entry(index, size):
    """Return the entry at or below a fractional index, counted in the padded table, and the fraction beyond it.

    The fraction of NaN is NaN; its entry is some entry of the table, as that of values beyond int32.
    """
    lower = tl.floor(index)
    return tl.minimum(tl.maximum(lower.to(tl.int32), -PADDING), size) + PADDING, index - lower


@triton.jit
def _read_bias(table, y, x, table_h, table_w):
    """Read a head's table at fractional indices that broadcast; return the bias and its slopes along y and x."""
    row, fraction_y = _entry(y, table_h)
    column, fraction_x = _entry(x, table_w)
    stride = table_w + 2 * PADDING
    corner = table + row * stride + column
    top_left, top_right = tl.load(corner), tl.load(corner + 1)
    bottom_left, bottom_right = tl.load(corner + stride), tl.load(corner + stride + 1)
    top, bottom = top_right - top_left, bottom_right - bottom_left
    upper, lower = top_left + fraction_x * top, bottom_left + fraction_x * bottom
    slope_y = lower - upper
    return upper + fraction_y * slope_y, slope_y, top + fraction_y * (bottom - top)


@triton.jit
def _load_queries(q, row_index, column_index, m, row, column, valid, D: tl.constexpr):
    """Load a tile of queries (q or the gradient of the output) at row-major indices, and their table indices."""
    tile = tl.load(q + m[:, None] * D + tl.arange(0, D)[None, :], mask=valid[:, None], other=0.0)
    y = tl.load(row_index + row, mask=valid, other=0.0)
    return tile, y, tl.load(column_index + column, mask=valid, other=0.0)


@triton.jit
def _load_keys(k, v, key_index, n, valid, D: tl.constexpr):
    """Load a tile of keys and values, and their table indices."""
    at, mask = n[:, None] * D + tl.arange(0, D)[None, :], valid[:, None]
    y, x = tl.load(key_index + 2 * n, mask=valid, other=0.0), tl.load(key_index + 2 * n + 1, mask=valid, other=0.0)
    return tl.load(k + at, mask=mask, other=0.0), tl.load(v + at, mask=mask, other=0.0), y, x


@triton.jit
def _softmax_gradient(a, b, c, d, bias, lse, delta, valid, scale, PRECISION: tl.constexpr):
    """Return the attention weights and the gradient of the scores.

    Queries first: a, b, c, d are q, k, the gradient of the output and v. Keys first: k, q, v and the gradient.
    """
    scores = tl.dot(a, tl.trans(b), input_precision=PRECISION) * (scale * LOG2E) + bias * LOG2E
    weights = tl.where(valid, tl.exp2(scores - lse), 0.0)
    return weights, weights * (tl.dot(c, tl.trans(d), input_precision=PRECISION) - delta)


@triton.jit
def forward(
    k, v, key_index, q, table, row_index, column_index, out, lse,
    scale, queries, keys, width, heads, per_group, table_h, table_w,
    D: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the output and the log-sum-exp (base 2) of a tile of queries of one head; grid (tiles, B * heads)."""
    z = tl.program_id(1).to(tl.int64)
    q, out, lse = q + z * queries * D, out + z * queries * D, lse + z * queries
    k, v, key_index = k + z * keys * D, v + z * keys * D, key_index + z // per_group * keys * 2
    table += z % heads * (table_h + 2 * PADDING) * (table_w + 2 * PADDING)
    m = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    valid_m = m < queries
    q_tile, row, column = _load_queries(q, row_index, column_index, m, m // width, m % width, valid_m, D)
    maximum, total = tl.full([QUERIES], -float('inf'), tl.float32), tl.zeros([QUERIES], tl.float32)
    acc = tl.zeros([QUERIES, D], tl.float32)
    for start in range(0, keys, KEYS):
        n = start + tl.arange(0, KEYS)
        k_tile, v_tile, key_y, key_x = _load_keys(k, v, key_index, n, n < keys, D)
        y, x = row[:, None] - key_y[None, :], column[:, None] - key_x[None, :]
        bias = _read_bias(table, y, x, table_h, table_w)[0]
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * (scale * LOG2E) + bias * LOG2E
        scores = tl.where((n < keys)[None, :], scores, -float('inf'))
        previous = maximum
        maximum = tl.maximum(maximum, tl.max(scores, 1))  # not -inf, as the first key of a tile is valid
        weights = tl.exp2(scores - maximum[:, None])
        rescale = tl.exp2(previous - maximum)
        total = total * rescale + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v_tile.dtype), v_tile, acc * rescale[:, None], input_precision=PRECISION)
    # A program owns the queries of its tile and head.
    at = m[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(out + at, (acc / total[:, None]).to(q_tile.dtype), mask=valid_m[:, None])
    tl.store(lse + m, maximum + tl.log2(total), mask=valid_m)


@triton.jit
def backward_queries(
    k, v, key_index, q, table, row_index, column_index, grad, lse, delta, d_q,
    scale, queries, keys, width, heads, per_group, table_h, table_w,
    D: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of a tile of queries of one head; grid (tiles, B * heads)."""
    z = tl.program_id(1).to(tl.int64)
    q, grad, d_q = q + z * queries * D, grad + z * queries * D, d_q + z * queries * D
    k, v, key_index = k + z * keys * D, v + z * keys * D, key_index + z // per_group * keys * 2
    table += z % heads * (table_h + 2 * PADDING) * (table_w + 2 * PADDING)
    m = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    valid_m = m < queries
    q_tile, row, column = _load_queries(q, row_index, column_index, m, m // width, m % width, valid_m, D)
    at = m[:, None] * D + tl.arange(0, D)[None, :]
    grad_tile = tl.load(grad + at, mask=valid_m[:, None], other=0.0)
    lse_tile = tl.load(lse + z * queries + m, mask=valid_m, other=0.0)[:, None]
    delta_tile = tl.load(delta + z * queries + m, mask=valid_m, other=0.0)[:, None]
    acc = tl.zeros([QUERIES, D], tl.float32)
    for start in range(0, keys, KEYS):
        n = start + tl.arange(0, KEYS)
        k_tile, v_tile, key_y, key_x = _load_keys(k, v, key_index, n, n < keys, D)
        y, x = row[:, None] - key_y[None, :], column[:, None] - key_x[None, :]
        bias = _read_bias(table, y, x, table_h, table_w)[0]
        d_scores = _softmax_gradient(
            q_tile, k_tile, grad_tile, v_tile, bias, lse_tile, delta_tile, (n < keys)[None, :], scale, PRECISION
        )[1]
        acc = tl.dot(d_scores.to(k_tile.dtype), k_tile, acc, input_precision=PRECISION)
    # A program owns the queries of its tile and head.
    tl.store(d_q + at, (acc * scale).to(q_tile.dtype), mask=valid_m[:, None])


@triton.jit
def backward_keys(
    k, v, key_index, q, table, row_index, column_index, grad, lse, delta, d_k, d_v, d_index,
    scale, queries, keys, width, heads, per_group, table_h, table_w, part_queries,
    D: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a tile of keys of one head and their indices; grid (tiles, B * heads, parts).

    They are those from a part of the queries, ``part_queries`` of them. The results are (parts, B * heads, keys, ...).
    """
    z = tl.program_id(1).to(tl.int64)
    part = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + z
    q, grad, lse, delta = q + z * queries * D, grad + z * queries * D, lse + z * queries, delta + z * queries
    k, v, key_index = k + z * keys * D, v + z * keys * D, key_index + z // per_group * keys * 2
    d_k, d_v, d_index = d_k + part * keys * D, d_v + part * keys * D, d_index + part * keys * 2
    table += z % heads * (table_h + 2 * PADDING) * (table_w + 2 * PADDING)
    d = tl.arange(0, D)[None, :]
    n = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    valid_n = n < keys
    k_tile, v_tile, key_y, key_x = _load_keys(k, v, key_index, n, valid_n, D)
    d_k_acc, d_v_acc = tl.zeros([KEYS, D], tl.float32), tl.zeros([KEYS, D], tl.float32)
    d_y, d_x = tl.zeros([KEYS], tl.float32), tl.zeros([KEYS], tl.float32)
    end = tl.minimum((tl.program_id(2) + 1) * part_queries, queries)
    for start in range(tl.program_id(2) * part_queries, end, QUERIES):
        m = start + tl.arange(0, QUERIES)
        valid_m = m < end
        q_tile, row, column = _load_queries(q, row_index, column_index, m, m // width, m % width, valid_m, D)
        grad_tile = tl.load(grad + m[:, None] * D + d, mask=valid_m[:, None], other=0.0)
        lse_tile = tl.load(lse + m, mask=valid_m, other=0.0)[None, :]
        delta_tile = tl.load(delta + m, mask=valid_m, other=0.0)[None, :]
        y, x = row[None, :] - key_y[:, None], column[None, :] - key_x[:, None]
        bias, slope_y, slope_x = _read_bias(table, y, x, table_h, table_w)
        weights, d_scores = _softmax_gradient(
            k_tile, q_tile, v_tile, grad_tile, bias, lse_tile, delta_tile, valid_m[None, :], scale, PRECISION
        )
        d_v_acc = tl.dot(weights.to(grad_tile.dtype), grad_tile, d_v_acc, input_precision=PRECISION)
        d_k_acc = tl.dot(d_scores.to(q_tile.dtype), q_tile, d_k_acc, input_precision=PRECISION)
        d_y -= tl.sum(d_scores * slope_y, 1)
        d_x -= tl.sum(d_scores * slope_x, 1)
    # A program owns the keys of its tile, head and part.
    tl.store(d_k + n[:, None] * D + d, d_k_acc * scale, mask=valid_n[:, None])
    tl.store(d_v + n[:, None] * D + d, d_v_acc, mask=valid_n[:, None])
    tl.store(d_index + 2 * n, d_y, mask=valid_n)
    tl.store(d_index + 2 * n + 1, d_x, mask=valid_n)


@triton.jit
def backward_table(
    k, v, key_index, q, table, row_index, column_index, grad, lse, delta, column_range, d_table,
    scale, height, keys, width, heads, per_group, table_h, table_w, part_rows,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEYS: tl.constexpr,
    TABLE_H: tl.constexpr, TABLE_W: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of a head's table from a tile of keys and some query rows; grid (tiles, B * heads, parts).

    A part has ``part_rows`` query rows, and a tile ROWS x COLUMNS queries of them. ``column_range`` has the least and
    the largest of ``column_index``. The gradient is computed TABLE_H x TABLE_W entries at a time; the scores are
    computed again for further columns, so the keys are best sorted along x. The result is (parts, B * heads, tiles,
    table_h, table_w), zero before.
    """
    z = tl.program_id(1).to(tl.int64)
    part = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + z
    queries = height * width
    d_table += (part * tl.num_programs(0) + tl.program_id(0)) * table_h * table_w
    q, grad, lse, delta = q + z * queries * D, grad + z * queries * D, lse + z * queries, delta + z * queries
    k, v, key_index = k + z * keys * D, v + z * keys * D, key_index + z // per_group * keys * 2
    table += z % heads * (table_h + 2 * PADDING) * (table_w + 2 * PADDING)
    d = tl.arange(0, D)[None, :]
    n = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    valid_n = n < keys
    k_tile, v_tile, key_y, key_x = _load_keys(k, v, key_index, n, valid_n, D)
    query = tl.arange(0, ROWS * COLUMNS)
    # Pairs of a key and a query row of a tile: the axis that the product along y sums over.
    pair = tl.arange(0, KEYS * ROWS)
    pair_n = tl.program_id(0) * KEYS + pair // ROWS
    pair_key_y = tl.load(key_index + 2 * pair_n, mask=pair_n < keys, other=0.0)
    table_row, table_column = tl.arange(0, TABLE_H)[:, None], tl.arange(0, TABLE_W)[None, :]
    begin = tl.program_id(2) * part_rows
    end = tl.minimum(begin + part_rows, height)
    # The table columns that these keys and any query use.
    left = _entry(tl.load(column_range) - key_x, table_w)[0]
    right = _entry(tl.load(column_range + 1) - key_x, table_w)[0]
    left = tl.maximum(tl.min(tl.where(valid_n, left, table_w), 0) - PADDING, 0)
    right = tl.minimum(tl.max(tl.where(valid_n, right, 0), 0) - PADDING + 1, table_w - 1)
    for window in range(left, right + 1, TABLE_W):
        for i in range(begin, end, ROWS):
            spread = tl.zeros([KEYS * ROWS, TABLE_W], tl.float32)  # the gradient of the table read along y
            for j in range(0, width, COLUMNS):
                row, column = i + query // COLUMNS, j + query % COLUMNS
                valid_m = (row < end) & (column < width)
                m = row * width + column
                q_tile, row_y, column_x = _load_queries(q, row_index, column_index, m, row, column, valid_m, D)
                grad_tile = tl.load(grad + m[:, None] * D + d, mask=valid_m[:, None], other=0.0)
                lse_tile = tl.load(lse + m, mask=valid_m, other=0.0)[None, :]
                delta_tile = tl.load(delta + m, mask=valid_m, other=0.0)[None, :]
                y, x = row_y[None, :] - key_y[:, None], column_x[None, :] - key_x[:, None]
                bias = _read_bias(table, y, x, table_h, table_w)[0]
                valid = valid_n[:, None] & valid_m[None, :]
                d_scores = _softmax_gradient(
                    k_tile, q_tile, v_tile, grad_tile, bias, lse_tile, delta_tile, valid, scale, PRECISION
                )[1]
                # The table columns that a key's scores of this tile use: as many passes as the widest range has.
                entry = _entry(x, table_w)[0]
                first = tl.min(tl.where(valid, entry, table_w + PADDING), 1) - PADDING
                last = tl.max(tl.where(valid, entry, 0), 1) - PADDING + 1
                for offset in range(tl.max(last - first, 0) + 1):
                    here = first + offset
                    share = tl.maximum(1.0 - tl.abs(x - here[:, None]), 0.0)
                    row_sums = tl.sum(tl.reshape(d_scores * share, [KEYS, ROWS, COLUMNS]), 2)
                    at = tl.reshape(tl.broadcast_to(here[:, None], [KEYS, ROWS]), [KEYS * ROWS])[:, None]
                    spread += tl.where(table_column + window == at, tl.reshape(row_sums, [KEYS * ROWS])[:, None], 0.0)
            # Along y, for the table rows that these keys and query rows use.
            pair_row = i + pair % ROWS
            pair_valid = (pair_n < keys) & (pair_row < end)
            pair_y = tl.load(row_index + pair_row, mask=pair_row < end, other=0.0) - pair_key_y
            entry = _entry(pair_y, table_h)[0]
            top = tl.maximum(tl.min(tl.where(pair_valid, entry, table_h), 0) - PADDING, 0)
            bottom = tl.minimum(tl.max(tl.where(pair_valid, entry, 0), 0) - PADDING + 1, table_h - 1)
            for start in range(top // TABLE_H * TABLE_H, bottom + 1, TABLE_H):
                share = tl.maximum(1.0 - tl.abs(pair_y[None, :] - (start + table_row)), 0.0)
                at = d_table + (start + table_row) * table_w + window + table_column
                mask = (start + table_row < table_h) & (window + table_column < table_w)
                # A program owns the table of its tile, head and part.
                before = tl.load(at, mask=mask, other=0.0)
                tl.store(at, before + tl.dot(share, spread, input_precision='tf32x3'), mask=mask)
            tl.debug_barrier()  # the next row loads what other threads have stored
