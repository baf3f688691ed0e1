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

  function softmax(values) {
    const max = values.reduce((a, b) => Math.max(a, b), -Infinity);
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[i] = Math.exp(values[i] - max);
    for (let i = 0; i < values.length; i++) values[i] /= sum;
  }

  /** Bilinear read of one head's table at fractional indices, zero outside. */
  function read(table, offset, rows, columns, y, x) {
    const top = Math.floor(y), left = Math.floor(x);
    let sum = 0;
    for (let i = Math.max(top, 0); i <= top + 1 && i < rows; i++) {
      for (let j = Math.max(left, 0); j <= left + 1 && j < columns; j++) {
        sum += table[offset + i * columns + j] * (1 - Math.abs(y - i)) * (1 - Math.abs(x - j));
      }
    }
    return sum;
  }

  /** Return where in the bias table of a head keys are, as y, x, y, x, ...: fractional for deformable attention. */
  function biasIndices(layer, index, keys, group) {
    const [rows, columns] = layer.tableSize, w = layer.queryGrid[1], y = Math.floor(index / w), x = index % w, out = new Float32Array(2 * keys.length);
    const normalized = viewer.array(layer, 'normalized'), first = group * keys.length;
    keys.forEach((key, i) => {
      out[2 * i] = layer.size ? Math.floor(key / w) - y + layer.size - 1 : ((layer.queryY[y] - normalized[2 * (first + key)]) / 4 + 0.5) * (rows - 1);
      out[2 * i + 1] = layer.size ? (key % w) - x + layer.size - 1 : ((layer.queryX[x] - normalized[2 * (first + key) + 1]) / 4 + 0.5) * (columns - 1);
    });
    return out;
  }

  /** Return the keys of a query in its window or neighborhood. */
  function windowKeys(layer, index) {
    const w = layer.queryGrid[1], keys = [];
    const [top, bottom] = layer.spans[0][Math.floor(index / w)], [left, right] = layer.spans[1][index % w];
    for (let i = top; i <= bottom; i++) for (let j = left; j <= right; j++) keys.push(i * w + j);
    return keys;
  }

  /**
   * Return the attention of a query: `weights` (heads x keys) of `keys`, indices into the layer's keys, or null if the
   * page does not hold queries and keys. A class token's key comes first: `extra` of them have no position.
   */
  viewer.attention = (layer, index) => {
    const q = viewer.array(layer, 'q'), k = viewer.array(layer, 'k'), table = viewer.array(layer, 'table');
    if (!q) return null;
    const {heads, headDim: d, tableSize: [rows, columns] = []} = layer, total = k.length / heads / d, queries = q.length / heads / d;
    const keys = layer.spans ? windowKeys(layer, index) : Array.from({length: total}, (_, i) => i);
    const n = keys.length, weights = new Float32Array(heads * n), perGroup = heads / layer.groups;
    let bias = null;
    for (let head = 0; head < heads; head++) {
      const query = (head * queries + index + layer.extra) * d;
      if (table && head % perGroup === 0) bias = biasIndices(layer, index, keys, head / perGroup);
      for (let i = 0; i < n; i++) {
        const key = (head * total + keys[i]) * d;
        let sum = table ? read(table, head * rows * columns, rows, columns, bias[2 * i], bias[2 * i + 1]) : 0;
        for (let c = 0; c < d; c++) sum += q[query + c] * k[key + c];
        weights[head * n + i] = sum;
      }
      softmax(weights.subarray(head * n, (head + 1) * n));
    }
    return {weights, keys};
  };

  /** Return the heads that are shown: one, those of a group, or all. */
  viewer.headsShown = (layer, {head, group}) => {
    const all = Array.from({length: layer.heads}, (_, i) => i);
    if (head !== null) return [head];
    return group === null ? all : all.filter((i) => Math.floor((i * layer.groups) / layer.heads) === group);
  };

  /** Return the mean over heads of flat values (all heads x n): (n), without values that are not a number. */
  viewer.meanOverHeads = (values, n, heads) => {
    const out = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      let count = 0;
      for (const head of heads) {
        const value = values[head * n + i];
        if (!Number.isNaN(value)) [out[i], count] = [out[i] + value, count + 1];
      }
      out[i] /= count;
    }
    return out;
  };
})();
