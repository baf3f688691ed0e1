// The modes of attention layers: from the state to shapes, a legend and a caption.
(() => {
  'use strict';
  const viewer = (window.viewer ??= {});
  const {QUERY} = viewer;

  /** Return positions (x, y) in pixels of the image of the keys of a group. */
  function keyPositions(layer, group) {
    if (layer.kind === 'deformable') {
      const n = layer.keyGrid[0] * layer.keyGrid[1];
      return viewer.locations(layer).subarray(2 * group * n, 2 * (group + 1) * n);
    }
    return null;
  }
  viewer.keyPositions = keyPositions;

  const cellOf = (layer, key) => {
    if (layer.kind === 'spatial_reduction') return viewer.array(layer, 'cells').subarray(4 * key, 4 * key + 4);
    const [x, y] = viewer.queryPosition(layer, key), [sx, sy] = layer.scale;
    return [x - sx / 2, y - sy / 2, x + sx / 2, y + sy / 2];
  };

  function groupsShown(layer, state) {
    if (state.head !== 'all') return [Math.floor(state.head / (layer.heads / layer.groups))];
    return state.group === 'all' ? Array.from({length: layer.groups}, (_, g) => g) : [state.group];
  }

  function headText(layer, state) {
    if (state.head !== 'all') return `head ${state.head + 1} of ${layer.heads}`;
    const per = layer.heads / layer.groups;
    if (layer.groups === 1) return layer.heads === 1 ? 'the only head' : `mean of ${layer.heads} heads`;
    if (state.group === 'all') return per === 1 ? 'mean of the groups, which have one head each' : `mean of the ${per} heads of each group`;
    return `mean of the ${per} heads of group ${state.group + 1}`;
  }

  const star = (x, y) => ({type: 'star', x, y, r: 1.15, fill: QUERY, stroke: '#fff', width: 1.5});

  function amountLegend(low, high, label) {
    return {type: 'ramp', low, high, label};
  }

  const percent = (v) => `${v >= 0.1 ? (100 * v).toFixed(0) : (100 * v).toPrecision(2)} %`;

  // One query of deformable attention: the image on the first page of DAT's repository.
  function deformableQuery(layer, state, shapes) {
    const index = viewer.queryIndex(layer, ...state.query), attention = viewer.attention(layer, index);
    const groups = groupsShown(layer, state), n = layer.keyGrid[0] * layer.keyGrid[1];
    const reference = viewer.array(layer, 'reference'), border = viewer.array(layer, 'border');
    const at = viewer.queryPosition(layer, index), byGroup = groups.length > 1;
    const drawn = [];
    for (const group of groups) {
      const positions = keyPositions(layer, group);
      if (state.everything) {
        for (let key = 0; key < n; key++) {
          shapes.push({type: 'circle', x: positions[2 * key], y: positions[2 * key + 1], r: 0.13, fill: '#fff', stroke: '#0009', width: 0.5, alpha: 0.75});
        }
      }
      if (!attention) continue;
      const weights = viewer.meanOverHeads(layer, attention, state.head, group);
      for (let key = 0; key < n; key++) drawn.push({group, key, weight: weights[key], positions});
    }
    if (!attention) {
      shapes.push(star(...at));
      return {legend: [], text: notHeld(layer)};
    }
    drawn.sort((a, b) => b.weight - a.weight);
    const total = drawn.reduce((sum, d) => sum + d.weight, 0), top = drawn.slice(0, state.top).reverse();
    const {width, height} = viewer.page, beyond = (d) => {
      const [x, y] = [d.positions[2 * d.key], d.positions[2 * d.key + 1]];
      return x < -0.5 || y < -0.5 || x > width - 0.5 || y > height - 0.5;
    };
    const outside = drawn.filter(beyond).reduce((sum, d) => sum + d.weight, 0) / total;
    const max = drawn[0].weight, kept = top.reduce((sum, d) => sum + d.weight, 0) / total;
    if (state.arrows) {
      for (const {group, key, weight, positions} of top) {
        const color = byGroup ? viewer.groupColor(group) : '#fff';
        shapes.push({type: 'arrow', x1: reference[2 * key], y1: reference[2 * key + 1], x2: positions[2 * key], y2: positions[2 * key + 1], stroke: color, width: 1.1, alpha: 0.35 + (0.5 * weight) / max});
      }
    }
    for (const {group, key, weight, positions} of top) {
      const t = weight / max, color = byGroup ? viewer.groupColor(group) : viewer.css(viewer.viridis(t));
      const clamped = border[group * n + key] > 0;
      shapes.push({type: 'circle', x: positions[2 * key], y: positions[2 * key + 1], r: 0.18 + 0.82 * Math.sqrt(t), fill: color, alpha: 0.45 + 0.45 * t, stroke: clamped ? '#fff' : '#000', width: clamped ? 1.8 : 0.8, dash: clamped ? [3, 2] : undefined});
    }
    shapes.push(star(...at));
    const legend = [{type: 'star', label: 'query'}];
    if (byGroup) groups.forEach((g) => legend.push({type: 'dot', color: viewer.groupColor(g), label: `group ${g + 1}`}));
    else legend.push(amountLegend('0', percent(max), 'attention'));
    legend.push({type: 'sizes', label: byGroup ? `area: attention, largest ${percent(max)}` : 'area: attention'});
    if (state.arrows) legend.push({type: 'arrow', label: 'from the regular grid'});
    if (top.some((d) => border[d.group * n + d.key])) legend.push({type: 'dashed', label: 'at or beyond the border of the feature map'});
    const text = `Attention of the query at (${at.map((v) => v.toFixed(1)).join(', ')}), ${headText(layer, state)}: the ${top.length} strongest of ${drawn.length} sampling locations, ${percent(kept)} of the attention.${outside > 0.005 ? ` ${percent(outside)} goes to locations outside the image, in the padding.` : ''}`;
    return {legend, text};
  }

  const notHeld = () => 'This page does not hold queries and keys of this block, to stay small: no attention is shown. tools/visualize_attention.py --blocks adds them.';

  /** Draw values of cells as filled squares, colored by amount. */
  function heatCells(shapes, layer, values, keys, max) {
    for (let i = 0; i < values.length; i++) {
      const [x0, y0, x1, y1] = cellOf(layer, keys ? keys[i] : i), t = values[i] / max;
      shapes.push({type: 'rect', x0, y0, x1, y1, fill: viewer.css(viewer.viridis(t)), alpha: 0.2 + 0.5 * Math.sqrt(t)});
    }
  }

  /** Return the value that 99.5 % of the values do not exceed, so that single ones do not hide the others. */
  function highest(values) {
    const sorted = Float64Array.from(values).filter(Number.isFinite).sort(), at = sorted[Math.floor(0.995 * (sorted.length - 1))];
    return at > 0 ? at : sorted.at(-1) || 1;
  }

  /** Return a small canvas of values (h x w), colored and more opaque where they are large; NaN is transparent. */
  function heatCanvas(values, h, w, max) {
    const canvas = Object.assign(document.createElement('canvas'), {width: w, height: h});
    const ctx = canvas.getContext('2d'), image = ctx.createImageData(w, h);
    for (let i = 0; i < h * w; i++) {
      if (Number.isNaN(values[i])) continue;
      const t = values[i] / max;
      image.data.set([...viewer.viridis(t), 255 * (0.2 + 0.5 * Math.sqrt(Math.min(Math.max(t, 0), 1)))], 4 * i);
    }
    ctx.putImageData(image, 0, 0);
    return canvas;
  }

  function localQuery(layer, state, shapes) {
    const index = viewer.queryIndex(layer, ...state.query), [h, w] = layer.queryGrid, at = viewer.queryPosition(layer, index);
    const [top, bottom] = viewer.span(layer, Math.floor(index / w), h), [left, right] = viewer.span(layer, index % w, w);
    const [x0, y0] = cellOf(layer, top * w + left), [, , x1, y1] = cellOf(layer, bottom * w + right);
    const attention = viewer.attention(layer, index), legend = [{type: 'star', label: 'query'}];
    if (attention) {
      const values = viewer.meanOverHeads(layer, attention, state.head, 'all'), max = Math.max(...values);
      heatCells(shapes, layer, values, attention.keys, max);
      legend.push(amountLegend('0', percent(max), 'attention'));
    }
    shapes.push({type: 'rect', x0, y0, x1, y1, stroke: '#000', width: 4, alpha: 0.5}, {type: 'rect', x0, y0, x1, y1, stroke: '#fff', width: 2}, star(...at));
    const what = {window: 'window', shifted_window: 'shifted window', neighborhood: 'neighborhood'}[layer.kind];
    legend.push({type: 'box', color: '#fff', label: what});
    const where = `Query at (${at.map((v) => v.toFixed(1)).join(', ')}) and its ${what} of ${right - left + 1} × ${bottom - top + 1} tokens.`;
    return {legend, text: attention ? `${where} Attention: ${headText(layer, state)}.` : `${where} ${notHeld()}`};
  }

  function reductionQuery(layer, state, shapes) {
    const index = viewer.queryIndex(layer, ...state.query), at = viewer.queryPosition(layer, index);
    const attention = viewer.attention(layer, index);
    if (!attention) return shapes.push(star(...at)), {legend: [], text: notHeld()};
    const all = viewer.meanOverHeads(layer, attention, state.head, 'all'), values = all.subarray(layer.extra);
    let max = 0;
    for (const v of values) max = Math.max(max, v);
    const [h, w] = layer.keyGrid, cells = viewer.array(layer, 'cells'), last = cells.length - 4;
    shapes.push({type: 'image', source: heatCanvas(values, h, w, max), smooth: false, x0: cells[0], y0: cells[1], x1: cells[last + 2], y1: cells[last + 3]});
    shapes.push(star(...at));
    const token = layer.extra ? ` ${percent(all[0])} goes to the class token.` : '';
    return {
      legend: [{type: 'star', label: 'query'}, amountLegend('0', percent(max), 'attention')],
      text: `Attention of the query at (${at.map((v) => v.toFixed(1)).join(', ')}) to the ${w} × ${h} reduced keys, ${headText(layer, state)}.${token}`,
    };
  }

  function everyLocation(layer, state, shapes) {
    const legend = [];
    if (layer.kind === 'deformable') {
      const groups = groupsShown(layer, state), n = layer.keyGrid[0] * layer.keyGrid[1], border = viewer.array(layer, 'border');
      const radius = Math.min(0.34, 10 / Math.sqrt(n * groups.length));
      for (const group of groups) {
        const p = keyPositions(layer, group);
        for (let key = 0; key < n; key++) {
          const clamped = border[group * n + key] > 0;
          shapes.push({type: 'circle', x: p[2 * key], y: p[2 * key + 1], r: clamped ? radius * 1.5 : radius, fill: viewer.groupColor(group), stroke: clamped ? '#fff' : '#0008', width: clamped ? 1.5 : 0.5, alpha: 0.9});
        }
        legend.push({type: 'dot', color: viewer.groupColor(group), label: `group ${group + 1}`});
      }
      return {legend, text: `All sampling locations: ${n} in each of ${groups.length} ${groups.length === 1 ? 'group' : 'groups'} of heads, on a grid of ${layer.keyGrid[1]} × ${layer.keyGrid[0]}. All queries share them.`};
    }
    if (layer.kind === 'spatial_reduction') {
      const cells = viewer.array(layer, 'cells');
      for (let i = 0; i < cells.length; i += 4) shapes.push({type: 'rect', x0: cells[i], y0: cells[i + 1], x1: cells[i + 2], y1: cells[i + 3], stroke: '#fff', width: 1, alpha: 0.85});
      return {legend: [{type: 'box', color: '#fff', label: 'key'}], text: `The part of the image that each of the ${layer.keyGrid[1]} × ${layer.keyGrid[0]} keys stands for.`};
    }
    const [h, w] = layer.queryGrid, lines = (n, axis) => {
      const starts = new Set();
      for (let i = 0; i < n; i++) starts.add(viewer.span(layer, i, n)[0]);
      return [...starts].map((i) => (i - 0.5) * layer.scale[axis] + layer.shift[axis]).slice(1);
    };
    const [x0, y0] = cellOf(layer, 0), [, , x1, y1] = cellOf(layer, h * w - 1);
    if (layer.kind === 'neighborhood') {
      localQuery(layer, {...state, head: 'all'}, shapes);
      return {legend: [{type: 'star', label: 'query'}, {type: 'box', color: '#fff', label: 'neighborhood'}], text: `Every query has a neighborhood of its own, ${layer.size} × ${layer.size} tokens, moved inside at the border; click to see it.`};
    }
    for (const x of lines(w, 0)) shapes.push({type: 'arrow', head: false, x1: x, y1: y0, x2: x, y2: y1, stroke: '#fff', width: 1.3, alpha: 0.9});
    for (const y of lines(h, 1)) shapes.push({type: 'arrow', head: false, x1: x0, y1: y, x2: x1, y2: y, stroke: '#fff', width: 1.3, alpha: 0.9});
    shapes.push({type: 'rect', x0, y0, x1, y1, stroke: '#fff', width: 1.3});
    return {legend: [{type: 'box', color: '#fff', label: 'window'}], text: `All windows of ${layer.size} × ${layer.size} tokens${layer.windowShift ? `, shifted by ${layer.windowShift}` : ''}; they are smaller at the border.`};
  }

  /**
   * Return the attention that keys receive as a map {values, h, w}, relative to an even distribution. For deformable
   * attention it is the mean of the sampling locations around each pixel, so that many locations do not look like much
   * attention; pixels without any are NaN. `received_map` in heat.py is the same.
   */
  function receivedMap(layer, state) {
    const all = viewer.array(layer, 'received'), n = all.length / layer.heads, [h, w] = layer.kind === 'deformable' ? layer.queryGrid : layer.keyGrid;
    const values = new Float64Array(h * w), shares = new Float64Array(h * w), groups = groupsShown(layer, state);
    const perGroup = layer.heads / layer.groups;
    for (const group of groups) {
      const positions = layer.kind === 'deformable' ? keyPositions(layer, group) : null;
      const heads = state.head === 'all' ? Array.from({length: perGroup}, (_, i) => group * perGroup + i) : [state.head];
      for (let key = layer.extra; key < n; key++) {
        let sum = 0;
        for (const head of heads) sum += all[head * n + key] / heads.length;
        if (positions) {
          const x = (positions[2 * key] - layer.shift[0]) / layer.scale[0], y = (positions[2 * key + 1] - layer.shift[1]) / layer.scale[1];
          splat(values, h, w, x, y, sum);
          splat(shares, h, w, x, y, 1);
        } else {
          values[key - layer.extra] += sum;
          shares[key - layer.extra] += 1;
        }
      }
    }
    return {values: values.map((v, i) => (shares[i] > 0 ? v / shares[i] : NaN)), h, w};
  }
  viewer.receivedMap = receivedMap;

  function received(layer, state, shapes) {
    const {values, h, w} = receivedMap(layer, state), max = highest(values);
    const [x0, y0] = layer.kind === 'spatial_reduction' ? viewer.array(layer, 'cells') : cellOf(layer, 0);
    const end = layer.kind === 'spatial_reduction' ? viewer.array(layer, 'cells').slice(-4) : cellOf(layer, layer.queryGrid[0] * layer.queryGrid[1] - 1);
    shapes.push({type: 'image', source: heatCanvas(values, h, w, max), x0, y0, x1: end[2], y1: end[3]});
    const spread = layer.kind === 'deformable' ? ', mean of the sampling locations around each pixel' : '';
    return {legend: [amountLegend('0', `≥ ${max.toFixed(1)} ×`, 'attention received, relative to an even distribution')], text: `Attention that keys receive, averaged over all queries${spread}; ${headText(layer, state)}.`};
  }

  function splat(values, h, w, x, y, amount) {
    const top = Math.floor(y), left = Math.floor(x);
    for (let i = top; i <= top + 1; i++) {
      for (let j = left; j <= left + 1; j++) {
        if (i >= 0 && i < h && j >= 0 && j < w) values[i * w + j] += amount * (1 - Math.abs(y - i)) * (1 - Math.abs(x - j));
      }
    }
  }
  viewer.splat = splat;

  /** Draw arrows between the points of two grids (flat x, y, ...), colored by length; of dense grids not all. */
  function arrows(shapes, [h, w], starts, ends) {
    let max = 0;
    const step = Math.ceil(Math.sqrt((h * w) / 900)), first = Math.floor(step / 2);
    const length = (i) => Math.hypot(ends[2 * i] - starts[2 * i], ends[2 * i + 1] - starts[2 * i + 1]);
    for (let i = 0; i < h * w; i++) max = Math.max(max, length(i));
    for (let y = first; y < h; y += step) {
      for (let x = first; x < w; x += step) {
        const i = y * w + x, color = viewer.css(viewer.viridis(0.15 + (0.85 * length(i)) / (max || 1)));
        shapes.push({type: 'arrow', x1: starts[2 * i], y1: starts[2 * i + 1], x2: ends[2 * i], y2: ends[2 * i + 1], stroke: color, width: 1.4, alpha: 0.95});
      }
    }
    const text = step > 1 ? `; one arrow for ${step} × ${step} of them` : '';
    return {legend: [amountLegend('0', `${max.toFixed(1)} px`, 'displacement')], text};
  }
  viewer.arrows = arrows;

  function displacement(layer, state, shapes) {
    const groups = groupsShown(layer, state), group = groups[0];
    const {legend, text} = arrows(shapes, layer.keyGrid, viewer.array(layer, 'reference'), keyPositions(layer, group));
    return {legend, text: `Displacement of the sampling locations of group ${group + 1} of ${layer.groups} from the regular grid, in pixels of the image${text}.`};
  }

  const local = {query: localQuery, locations: everyLocation, received};
  viewer.modes = {
    deformable: {query: deformableQuery, locations: everyLocation, received, displacement},
    window: local,
    shifted_window: local,
    neighborhood: local,
    spatial_reduction: {query: reductionQuery, locations: everyLocation, received},
  };
  viewer.star = star;
  viewer.amountLegend = amountLegend;
  viewer.percent = percent;
  viewer.heatCanvas = heatCanvas;
  viewer.highest = highest;
})();
