// Modes of layers without dense attention: deformable patches of DPT, multi-scale deformable attention.
(() => {
  'use strict';
  const viewer = (window.viewer ??= {});
  const LEVELS = ['#e69f00', '#56b4e9', '#009e73', '#f0e442', '#d55e00'];

  const notHeld = 'This page does not hold the sampling locations of this layer, to stay small. tools/visualize_attention.py --blocks adds them.';

  const regular = (layer, i) => {
    const [x, y] = viewer.queryPosition(layer, i), [sx, sy] = layer.scale;
    return {type: 'rect', x0: x - sx / 2, y0: y - sy / 2, x1: x + sx / 2, y1: y + sy / 2};
  };

  function patchQuery(layer, state, shapes) {
    const i = viewer.queryIndex(layer, ...state.query), boxes = viewer.array(layer, 'boxes'), points = viewer.array(layer, 'points');
    const n = points.length / 2 / (boxes.length / 4), [x0, y0, x1, y1] = boxes.subarray(4 * i, 4 * i + 4);
    const clamped = viewer.array(layer, 'border')[i] > 0;
    shapes.push({...regular(layer, i), stroke: '#fff', width: 1.5, dash: [5, 4]});
    shapes.push({type: 'rect', x0, y0, x1, y1, stroke: '#000', width: 4.5, alpha: 0.55}, {type: 'rect', x0, y0, x1, y1, stroke: LEVELS[0], width: 2.5});
    for (let j = 0; j < n; j++) shapes.push({type: 'circle', x: points[2 * (i * n + j)], y: points[2 * (i * n + j) + 1], r: 0.42, fill: LEVELS[1], stroke: '#000', width: 1});
    shapes.push(viewer.star(...viewer.queryPosition(layer, i)));
    const legend = [{type: 'star', label: 'token'}, {type: 'box', color: LEVELS[0], label: 'its patch'}, {type: 'dot', color: LEVELS[1], label: `${n} sampling locations`}, {type: 'dashedbox', label: 'regular patch'}];
    return {legend, text: `Patch of the token at (${viewer.queryPosition(layer, i).map((v) => v.toFixed(1)).join(', ')}): ${(x1 - x0).toFixed(1)} × ${(y1 - y0).toFixed(1)} pixels${clamped ? ', clamped at the border of the feature map' : ''}, read at ${n} locations.`};
  }

  function patchLocations(layer, _state, shapes) {
    const boxes = viewer.array(layer, 'boxes'), points = viewer.array(layer, 'points'), n = boxes.length / 4;
    const radius = Math.min(0.3, 9 / Math.sqrt(points.length));
    for (let i = 0; i < n; i++) shapes.push({type: 'rect', x0: boxes[4 * i], y0: boxes[4 * i + 1], x1: boxes[4 * i + 2], y1: boxes[4 * i + 3], stroke: LEVELS[0], width: n > 2000 ? 0.6 : 1.2, alpha: 0.8});
    for (let i = 0; i < points.length; i += 2) shapes.push({type: 'circle', x: points[i], y: points[i + 1], r: radius, fill: LEVELS[1], alpha: 0.9});
    return {legend: [{type: 'box', color: LEVELS[0], label: 'patch'}, {type: 'dot', color: LEVELS[1], label: 'sampling locations'}], text: `All ${layer.queryGrid[1]} × ${layer.queryGrid[0]} deformable patches and their sampling locations.`};
  }

  function patchDisplacement(layer, _state, shapes) {
    const boxes = viewer.array(layer, 'boxes'), n = boxes.length / 4, starts = [], ends = [];
    for (let i = 0; i < n; i++) {
      starts.push(...viewer.queryPosition(layer, i));
      ends.push((boxes[4 * i] + boxes[4 * i + 2]) / 2, (boxes[4 * i + 1] + boxes[4 * i + 3]) / 2);
    }
    const {legend, text} = viewer.arrows(shapes, layer.queryGrid, starts, ends);
    return {legend, text: `From the centers of the regular patches to the centers of the deformable patches, in pixels of the image${text}.`};
  }

  /** Return the query that the state selects: an object, or the encoder's pixel nearest to the click on its level. */
  function chosen(layer, state) {
    if (!layer.isEncoder) return Math.min(state.object, layer.queries - 1);
    const level = layer.levels[state.level] ? state.level : 0, reference = viewer.array(layer, 'reference');
    let first = 0;
    for (let i = 0; i < level; i++) first += layer.levels[i][0] * layer.levels[i][1];
    let best = first, least = Infinity;
    for (let i = first; i < first + layer.levels[level][0] * layer.levels[level][1]; i++) {
      const d = (reference[2 * i] - state.query[0]) ** 2 + (reference[2 * i + 1] - state.query[1]) ** 2;
      if (d < least) [least, best] = [d, i];
    }
    return best;
  }
  viewer.chosenPoint = chosen;

  function pointsQuery(layer, state, shapes) {
    const index = chosen(layer, state), held = index - layer.firstQuery;
    const reference = viewer.array(layer, 'reference'), at = [reference[2 * index], reference[2 * index + 1]];
    const legend = [{type: 'star', label: layer.isEncoder ? 'query' : 'reference point'}];
    const box = layer.isEncoder || !layer.arrays.boxes ? null : viewer.array(layer, 'boxes').subarray(4 * index, 4 * index + 4);
    if (box) {
      const [x0, y0, x1, y1] = box;
      shapes.push({type: 'rect', x0, y0, x1, y1, stroke: '#000', width: 4.5, alpha: 0.5}, {type: 'rect', x0, y0, x1, y1, stroke: '#fff', width: 2.2});
      shapes.push({type: 'text', x: x0, y: y0, text: `${layer.objects[index].label} ${layer.objects[index].score.toFixed(2)}`, size: 13, fill: '#111', background: '#ffffffd8'});
      legend.push({type: 'box', color: '#fff', label: 'box that the query predicts'});
    }
    if (held < 0) {
      shapes.push(viewer.star(...at));
      const text = layer.isEncoder && layer.firstQuery < layer.queries ? 'This page does not hold the queries of this level, to stay small; choose a coarser level.' : notHeld;
      return {legend, text};
    }
    const locations = viewer.array(layer, 'locations'), weights = viewer.array(layer, 'weights');
    const [heads, levels, points] = [layer.heads, layer.levels.length, layer.points], drawn = [];
    for (let head = 0; head < heads; head++) {
      if (state.head !== 'all' && head !== state.head) continue;
      for (let level = 0; level < levels; level++) {
        for (let p = 0; p < points; p++) {
          const i = ((held * heads + head) * levels + level) * points + p;
          drawn.push({level, weight: weights[i], x: locations[2 * i], y: locations[2 * i + 1]});
        }
      }
    }
    drawn.sort((a, b) => a.weight - b.weight);
    const max = drawn.at(-1).weight;
    if (state.arrows) for (const d of drawn) shapes.push({type: 'arrow', x1: at[0], y1: at[1], x2: d.x, y2: d.y, stroke: LEVELS[d.level % 5], width: 0.9, alpha: 0.2 + (0.4 * d.weight) / max, head: false});
    for (const d of drawn) shapes.push({type: 'circle', x: d.x, y: d.y, r: 0.16 + 0.6 * Math.sqrt(d.weight / max), fill: LEVELS[d.level % 5], alpha: 0.45 + (0.45 * d.weight) / max, stroke: '#000', width: 0.8});
    shapes.push(viewer.star(...at));
    layer.levels.forEach(([h, w], i) => legend.push({type: 'dot', color: LEVELS[i % 5], label: `level ${i + 1}: ${w} × ${h}`}));
    legend.push({type: 'sizes', label: `area: weight, largest ${viewer.percent(max)} of a head`});
    const who = layer.isEncoder ? `pixel (${at.map((v) => v.toFixed(1)).join(', ')}) of level ${state.level + 1}` : `object query ${index + 1} of ${layer.queries}`;
    return {legend, text: `Sampling locations of ${who}, ${state.head === 'all' ? `all ${heads} heads` : `head ${state.head + 1} of ${heads}`}, over ${levels} ${levels === 1 ? 'level' : 'levels'}.`};
  }

  function pointsReceived(layer, state, shapes) {
    const locations = viewer.array(layer, 'locations'), weights = viewer.array(layer, 'weights');
    if (!weights) return {legend: [], text: notHeld};
    const [x0, y0, x1, y1] = viewer.page.padded, w = 120, h = Math.max(1, Math.round((w * (y1 - y0)) / (x1 - x0)));
    const values = new Float32Array(h * w), per = layer.levels.length * layer.points;
    let sum = 0;
    for (let i = 0; i < weights.length; i++) {
      if (state.head !== 'all' && Math.floor(i / per) % layer.heads !== state.head) continue;
      sum += weights[i];
      viewer.splat(values, h, w, ((locations[2 * i] - x0) / (x1 - x0)) * w - 0.5, ((locations[2 * i + 1] - y0) / (y1 - y0)) * h - 0.5, weights[i]);
    }
    for (let i = 0; i < values.length; i++) values[i] *= (h * w) / sum;
    const max = viewer.highest(values);
    shapes.push({type: 'image', source: viewer.heatCanvas(values, h, w, max), x0, y0, x1, y1});
    const who = layer.isEncoder ? 'encoder queries that this page holds' : 'object queries';
    return {legend: [viewer.amountLegend('0', `≥ ${max.toFixed(1)} ×`, 'weight received, relative to an even distribution')], text: `Weight of the sampling locations of all ${who}, spread bilinearly; ${state.head === 'all' ? `all ${layer.heads} heads` : `head ${state.head + 1}`}.`};
  }

  Object.assign(viewer.modes, {
    deformable_patch: {query: patchQuery, locations: patchLocations, displacement: patchDisplacement},
    deformable_detr: {query: pointsQuery, received: pointsReceived},
  });
})();
