// The attention of one query, from queries, keys and biases: softmax(q k + bias), q already divided by sqrt(d).
(() => {
  'use strict';
  const viewer = (window.viewer ??= {});
  const clamp = (v, low, high) => Math.min(Math.max(v, low), high);

  /** Return the row-major index of the query of a layer that is nearest to a pixel of the image. */
  viewer.queryIndex = (layer, x, y) => {
    const [h, w] = layer.queryGrid;
    const column = Math.round((x - layer.shift[0]) / layer.scale[0]);
    const row = Math.round((y - layer.shift[1]) / layer.scale[1]);
    return clamp(row, 0, h - 1) * w + clamp(column, 0, w - 1);
  };

  /** Return (x, y) in pixels of the image of a row-major index into the queries. */
  viewer.queryPosition = (layer, index) => {
    const w = layer.queryGrid[1];
    return [(index % w) * layer.scale[0] + layer.shift[0], Math.floor(index / w) * layer.scale[1] + layer.shift[1]];
  };

  const pixels = new Map();
  /** Return (x, y) in pixels of the image of the sampling locations of deformable attention: flat, group by group. */
  viewer.locations = (layer) => {
    if (!pixels.has(layer)) {
      const normalized = viewer.array(layer, 'normalized'), out = new Float32Array(normalized.length), [h, w] = layer.queryGrid;
      for (let i = 0; i < out.length; i += 2) {
        // -1 and 1 are the centers of the feature map's corner pixels.
        out[i] = ((normalized[i + 1] + 1) / 2) * (w - 1) * layer.scale[0] + layer.shift[0];
        out[i + 1] = ((normalized[i] + 1) / 2) * (h - 1) * layer.scale[1] + layer.shift[1];
      }
      pixels.set(layer, out);
    }
    return pixels.get(layer);
  };

  /** Return first and last key along an axis, both included, of a query within windows or neighborhoods. */
  viewer.span = (layer, i, n) => {
    const m = layer.size;
    if (layer.kind === 'neighborhood') {
      const first = clamp(i - (m >> 1), 0, Math.max(n - m, 0));
      return [first, Math.min(first + m, n) - 1];
    }
    const first = i < layer.windowShift ? 0 : Math.floor((i - layer.windowShift) / m) * m + layer.windowShift;
    return [first, Math.min(i < layer.windowShift ? layer.windowShift : first + m, n) - 1];
  };

  function softmax(values, start, end) {
    let max = -Infinity, sum = 0;
    for (let i = start; i < end; i++) if (values[i] > max) max = values[i];
    for (let i = start; i < end; i++) sum += values[i] = Math.exp(values[i] - max);
    for (let i = start; i < end; i++) values[i] /= sum;
  }

  /** Bilinear read of one head's table at fractional indices, zero outside. */
  function read(table, offset, rows, columns, y, x) {
    const top = Math.floor(y), left = Math.floor(x);
    let sum = 0;
    for (let i = top; i <= top + 1; i++) {
      if (i < 0 || i >= rows) continue;
      const wy = 1 - Math.abs(y - i);
      for (let j = left; j <= left + 1; j++) {
        if (j >= 0 && j < columns) sum += table[offset + i * columns + j] * wy * (1 - Math.abs(x - j));
      }
    }
    return sum;
  }

  function deformableBias(layer, index, out, n) {
    const table = viewer.array(layer, 'table');
    if (!table) return;
    // Pixels do not tell a location on an axis of one pixel: the bias needs the normalized location itself.
    const [rows, columns] = layer.tableSize, w = layer.queryGrid[1], normalized = viewer.array(layer, 'normalized');
    const qy = layer.queryY[Math.floor(index / w)], qx = layer.queryX[index % w], perGroup = layer.heads / layer.groups;
    for (let g = 0; g < layer.groups; g++) {
      for (let key = 0; key < n; key++) {
        const ky = normalized[2 * (g * n + key)], kx = normalized[2 * (g * n + key) + 1];
        const y = ((qy - ky) / 4 + 0.5) * (rows - 1), x = ((qx - kx) / 4 + 0.5) * (columns - 1);
        for (let head = g * perGroup; head < (g + 1) * perGroup; head++) {
          out[head * n + key] += read(table, head * rows * columns, rows, columns, y, x);
        }
      }
    }
  }

  function localKeys(layer, index) {
    const [h, w] = layer.queryGrid, y = Math.floor(index / w), x = index % w, keys = [];
    const [top, bottom] = viewer.span(layer, y, h), [left, right] = viewer.span(layer, x, w);
    for (let i = top; i <= bottom; i++) for (let j = left; j <= right; j++) keys.push(i * w + j);
    return {keys, y, x};
  }

  /**
   * Return the attention of a query: `weights` (heads x keys) of `keys`, indices into the layer's keys (null: all), or
   * null if the page does not hold queries and keys. A class token's key comes first: `extra` of them have no position.
   */
  viewer.attention = (layer, index) => {
    const q = viewer.array(layer, 'q'), k = viewer.array(layer, 'k');
    if (!q || !k) return null;
    const {heads, headDim: d} = layer, total = k.length / heads / d, queries = q.length / heads / d;
    const near = layer.size ? localKeys(layer, index) : null;
    const n = near ? near.keys.length : total, weights = new Float32Array(heads * n);
    for (let head = 0; head < heads; head++) {
      const query = (head * queries + index + layer.extra) * d;
      for (let i = 0; i < n; i++) {
        const key = (head * total + (near ? near.keys[i] : i)) * d;
        let sum = 0;
        for (let c = 0; c < d; c++) sum += q[query + c] * k[key + c];
        weights[head * n + i] = sum;
      }
    }
    if (layer.kind === 'deformable') deformableBias(layer, index, weights, n);
    if (near) {
      const table = viewer.array(layer, 'table'), side = 2 * layer.size - 1, w = layer.queryGrid[1];
      for (let i = 0; i < n; i++) {
        const dy = Math.floor(near.keys[i] / w) - near.y + layer.size - 1, dx = (near.keys[i] % w) - near.x + layer.size - 1;
        for (let head = 0; head < heads; head++) weights[head * n + i] += table[(head * side + dy) * side + dx];
      }
    }
    for (let head = 0; head < heads; head++) softmax(weights, head * n, (head + 1) * n);
    return {weights, keys: near ? near.keys : null, count: n};
  };

  /** Return the mean over the chosen heads ('all' or a number) of a group ('all' or a number): (keys). */
  viewer.meanOverHeads = (layer, attention, head, group) => {
    const n = attention.count, out = new Float32Array(n), perGroup = layer.heads / layer.groups;
    let first = 0, last = layer.heads;
    if (group !== 'all') [first, last] = [group * perGroup, (group + 1) * perGroup];
    if (head !== 'all') [first, last] = [head, head + 1];
    for (let i = first; i < last; i++) for (let key = 0; key < n; key++) out[key] += attention.weights[i * n + key];
    for (let key = 0; key < n; key++) out[key] /= last - first;
    return out;
  };
})();
