// What a query of a layer uses, with the numbers that the model used: softmax(q k + bias), q divided by sqrt(d).
(() => {
  'use strict';
  const viewer = (window.viewer = {page: JSON.parse(document.getElementById('page').textContent)});
  const ARRAYS = {float16: Float16Array, float32: Float32Array};

  /** Return a layer; its arrays are decoded when it is first shown. */
  viewer.layer = (index) => {
    const layer = viewer.page.layers[index];
    for (const [name, value] of Object.entries(layer)) {
      if (value?.base64) {
        const {buffer} = Uint8Array.fromBase64(value.base64);
        layer[name] = new Float32Array(new ARRAYS[value.dtype](buffer));
      }
    }
    return layer;
  };

  /** Return the most confident object query whose box holds a pixel of the image, else the nearest query. */
  viewer.queryIndex = ({queries, boxes, scores}, [x, y]) => {
    let nearest = 0, least = Infinity;
    for (let i = 0; i < queries.length / 2; i++) {
      let cost = (queries[2 * i] - x) ** 2 + (queries[2 * i + 1] - y) ** 2;
      if (scores) {
        const [x0, y0, x1, y1] = boxes.subarray(4 * i, 4 * i + 4);
        if (x0 <= x && x <= x1 && y0 <= y && y <= y1) cost = -scores[i];
      }
      if (cost <= least) [nearest, least] = [i, cost];
    }
    return nearest;
  };

  const range = (first, last) => Array.from({length: last - first + 1}, (_, i) => first + i);

  function softmax(values) {
    const max = values.reduce((a, b) => Math.max(a, b), -Infinity);
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[i] = Math.exp(values[i] - max);
    for (let i = 0; i < values.length; i++) values[i] /= sum;
  }

  /** Return one head's table at fractional indices, bilinearly, zero outside. */
  function read(table, offset, [rows, columns], y, x) {
    const top = Math.floor(y), left = Math.floor(x);
    let sum = 0;
    for (let i = Math.max(top, 0); i <= top + 1 && i < rows; i++) {
      for (let j = Math.max(left, 0); j <= left + 1 && j < columns; j++) {
        sum += table[offset + i * columns + j] * (1 - Math.abs(y - i)) * (1 - Math.abs(x - j));
      }
    }
    return sum;
  }

  /** Return the keys of a query, those in its window if there are windows. */
  function keysOf(layer, index) {
    if (!layer.spans) return range(0, layer.k.length / layer.heads / layer.headDim - layer.extra - 1);
    const [rows, columns] = [layer.spans[0][Math.floor(index / layer.width)], layer.spans[1][index % layer.width]];
    return range(...rows).flatMap((row) => range(...columns).map((column) => row * layer.width + column));
  }

  /** Return `keys` of a query and their `weights` (heads x keys), without a class token's. */
  viewer.attention = (layer, index) => {
    const {heads, groups, extra, queries, locations} = layer;
    if (!layer.q) {  // each query has its own locations, and weights that are not computed from keys
      const n = locations.length / queries.length / groups, first = index * heads * n;
      return {keys: range(0, n - 1), weights: layer.weights?.subarray(first, first + heads * n) ?? Array(n).fill(1)};
    }
    const {q, k, headDim: d, table, tableKeys, tableQueries, tableSize} = layer, keys = keysOf(layer, index);
    const total = k.length / heads / d - extra, n = keys.length, weights = new Float32Array(heads * n);
    const y = tableQueries?.[0][Math.floor(index / layer.width)], x = tableQueries?.[1][index % layer.width];
    for (let head = 0; head < heads; head++) {
      const query = ((queries.length / 2 + extra) * head + extra + index) * d, group = Math.floor((head * groups) / heads);
      const scores = new Float32Array(extra + n);
      for (let i = 0; i < extra + n; i++) {
        const key = i < extra ? i : extra + keys[i - extra];
        for (let c = 0; c < d; c++) scores[i] += q[query + c] * k[((total + extra) * head + key) * d + c];
        if (table) {
          const at = 2 * (group * total + key);
          scores[i] += read(table, head * tableSize[0] * tableSize[1], tableSize, y + tableKeys[at], x + tableKeys[at + 1]);
        }
      }
      softmax(scores);
      weights.set(scores.subarray(extra), head * n);
    }
    return {keys, weights};
  };

  /**
   * Return what a query uses of a layer, by rising weight, the mean over the heads that are shown: marks {weight, box},
   * or {weight, at, from} with a sampling location and the point from which its offset starts.
   */
  viewer.marks = (layer, index, {head, group}) => {
    const {heads, groups, queries, boxes, locations, reference, q} = layer;
    const {keys, weights} = viewer.attention(layer, index);
    const marks = [], point = (values, i) => values.subarray(2 * i, 2 * i + 2), n = keys.length;
    for (const g of range(0, groups - 1)) {
      const shown = range((g * heads) / groups, ((g + 1) * heads) / groups - 1).filter((h) => head === null || h === head);
      if (shown.length === 0 || (group !== null && group !== g)) continue;
      keys.forEach((key, i) => {
        const mark = {weight: shown.reduce((sum, h) => sum + weights[h * n + i], 0) / shown.length};
        if (!locations) mark.box = boxes.subarray(4 * key, 4 * key + 4);
        else if (q) {
          mark.at = point(locations, (g * locations.length) / groups / 2 + key);
          mark.from = point(reference, key);
        } else {
          mark.at = point(locations, (index * groups + g) * n + i);
          mark.from = layer.weights && point(queries, index);  // patches have no such lines
        }
        marks.push(mark);
      });
    }
    return marks.sort((a, b) => a.weight - b.weight);
  };
})();
