// The views: from a layer and the state to shapes, a legend and a caption.
(() => {
  'use strict';
  const viewer = (window.viewer ??= {});
  const array = (layer, name) => viewer.array(layer, name);
  const percent = (v) => `${v >= 0.1 ? (100 * v).toFixed(0) : (100 * v).toPrecision(2)} %`;
  const point = (at) => `(${at.map((v) => v.toFixed(1)).join(', ')})`;
  const star = ([x, y]) => ({type: 'star', x, y, r: 1.15, fill: '#ff2d55', stroke: '#fff', width: 1.5});
  const box = ([x0, y0, x1, y1], stroke, width = 2.2) => ({type: 'rect', x0, y0, x1, y1, stroke, width});
  const HELD = 'This page does not hold the attention of this layer, to stay small. tools/visualize_attention.py --blocks adds it.';

  /** Return x0, y0, x1, y1 of a pixel of the queries' feature map in pixels of the image. */
  function cellOf(layer, index) {
    const [x, y] = viewer.queryPosition(layer, index), [sx, sy] = layer.scale;
    return [x - sx / 2, y - sy / 2, x + sx / 2, y + sy / 2];
  }

  function headText(layer, {head, group}) {
    if (head !== null) return `head ${head + 1} of ${layer.heads}`;
    return `mean over ${group !== null ? `the heads of group ${group + 1}` : layer.groups > 1 ? 'the heads of each group' : 'the heads'}`;
  }

  // ---- what a query reads ----------------------------------------------------------------------------------------
  // Each function returns `marks`, undefined if the page does not hold them: {x, y, weight} with the point `from` which
  // an offset starts, a `color` of its own, whether it is at the `border`; or a `cell` instead of x and y. Beside them
  // `at`, the query, its `boxes`, and `text`.

  function deformable(layer, state) {
    const index = viewer.queryIndex(layer, ...state.query), attention = viewer.attention(layer, index), at = viewer.queryPosition(layer, index);
    const locations = array(layer, 'locations'), reference = array(layer, 'reference'), border = array(layer, 'border'), n = border.length / layer.groups;
    const groups = Map.groupBy(viewer.headsShown(layer, state), (head) => Math.floor((head * layer.groups) / layer.heads));
    const marks = [...groups].flatMap(([group, heads]) => {
      const weights = attention ? viewer.meanOverHeads(attention.weights, n, heads) : new Float32Array(n);
      return Array.from(weights, (weight, key) => {
        const i = group * n + key;
        return {x: locations[2 * i], y: locations[2 * i + 1], weight, from: [reference[2 * key], reference[2 * key + 1]], border: border[i] > 0, color: groups.size > 1 && viewer.groupColor(group)};
      });
    });
    const colors = groups.size > 1 ? [...groups.keys()].map((g) => [viewer.groupColor(g), `group ${g + 1}`]) : [];
    return {at, marks: attention || state.mode === 'locations' ? marks : undefined, colors, text: `Attention of the query at ${point(at)}, ${headText(layer, state)}`};
  }

  function cells(layer, state) {
    const index = viewer.queryIndex(layer, ...state.query), attention = viewer.attention(layer, index), at = viewer.queryPosition(layer, index);
    const found = {at, boxes: [], text: `Attention of the query at ${point(at)}, ${headText(layer, state)}`}, regions = array(layer, 'boxes');
    if (layer.spans) {
      const w = layer.queryGrid[1], [top, bottom] = layer.spans[0][Math.floor(index / w)], [left, right] = layer.spans[1][index % w];
      found.boxes = [box([...cellOf(layer, top * w + left).slice(0, 2), ...cellOf(layer, bottom * w + right).slice(2)], '#fff')];
      found.text += `, in its ${layer.kind.replace('_', ' ')} of ${right - left + 1} × ${bottom - top + 1} tokens`;
    } else found.text += `, to ${layer.keyGrid[1]} × ${layer.keyGrid[0]} reduced keys`;
    if (!attention) return found;
    const weights = viewer.meanOverHeads(attention.weights, attention.keys.length, viewer.headsShown(layer, state));
    if (layer.extra) found.text += `; ${percent(weights[0])} goes to the class token`;
    found.marks = attention.keys.slice(layer.extra).map((key, i) => {
      const k = key - layer.extra;
      return {cell: regions ? regions.subarray(4 * k, 4 * k + 4) : cellOf(layer, k), weight: weights[i + layer.extra]};
    });
    return found;
  }

  /** Return marks for points x, y, x, y, ... of patches. */
  function patches(points) {
    const marks = Array.from({length: points.length / 2}, (_, i) => ({x: points[2 * i], y: points[2 * i + 1], weight: 1, color: viewer.groupColor(1)}));
    return {marks, colors: [[viewer.groupColor(0), 'patch'], [viewer.groupColor(1), 'sampling locations']]};
  }

  function patch(layer, state) {
    const index = viewer.queryIndex(layer, ...state.query), at = viewer.queryPosition(layer, index), points = array(layer, 'points'), boxes = array(layer, 'boxes');
    const n = points.length / (boxes.length / 4), [x0, y0, x1, y1] = boxes.subarray(4 * index, 4 * index + 4);
    const shapes = [{...box(cellOf(layer, index), '#fff', 1.5), dash: [5, 4]}, box([x0, y0, x1, y1], viewer.groupColor(0))];
    const clamped = array(layer, 'border')[index] ? ', clamped at the border of the feature map' : '';
    const text = `Patch of the token at ${point(at)}: ${(x1 - x0).toFixed(1)} × ${(y1 - y0).toFixed(1)} pixels${clamped}; dashed: the regular patch`;
    return {at, boxes: shapes, ...patches(points.subarray(index * n, (index + 1) * n)), text};
  }

  /** Return the query that the state selects: an object, or the encoder's pixel nearest to the click on its level. */
  viewer.chosenPoint = (layer, state) => {
    if (!layer.isEncoder) return Math.min(state.object, layer.queries - 1);
    const sizes = layer.levels.map(([h, w]) => h * w), level = Math.min(state.level, sizes.length - 1);
    const first = sizes.slice(0, level).reduce((a, b) => a + b, 0), reference = array(layer, 'reference');
    const distance = (i) => Math.hypot(reference[2 * i] - state.query[0], reference[2 * i + 1] - state.query[1]);
    return Array.from({length: sizes[level]}, (_, i) => first + i).reduce((a, b) => (distance(b) < distance(a) ? b : a));
  };

  function points(layer, state) {
    const index = viewer.chosenPoint(layer, state), held = index - layer.firstQuery, at = [...array(layer, 'reference').subarray(2 * index, 2 * index + 2)];
    const object = layer.objects?.[index], boxes = object ? [box(array(layer, 'boxes').subarray(4 * index, 4 * index + 4), '#fff')] : [];
    if (object) boxes.push({type: 'text', x: boxes[0].x0, y: boxes[0].y0, text: `${object.label} ${object.score.toFixed(2)}`, fill: '#ffffffd8'});
    const text = `Sampling locations of ${layer.isEncoder ? `the encoder's query at ${point(at)}` : `object query ${index + 1} of ${layer.queries}`}, ${state.head === null ? 'all heads' : headText(layer, state)}`;
    if (held < 0) return {at, boxes, text};
    const locations = array(layer, 'locations'), weights = array(layer, 'weights'), per = layer.levels.length * layer.points;
    const marks = viewer.headsShown(layer, state).flatMap((head) => Array.from({length: per}, (_, j) => {
      const i = (held * layer.heads + head) * per + j;
      return {x: locations[2 * i], y: locations[2 * i + 1], weight: weights[i], from: at, color: viewer.groupColor(Math.floor(j / layer.points))};
    }));
    return {at, boxes, marks, text, colors: layer.levels.map(([h, w], i) => [viewer.groupColor(i), `level ${i + 1}: ${w} × ${h}`])};
  }

  const LOOKS = {deformable, window: cells, shifted_window: cells, neighborhood: cells, spatial_reduction: cells, deformable_patch: patch, deformable_detr: points};

  // ---- modes -----------------------------------------------------------------------------------------------------

  function query(layer, state, shapes) {
    const look = LOOKS[layer.kind](layer, state), {marks, at, boxes = [], colors = []} = look, legend = [{type: 'star', label: 'query'}];
    if (!marks) {
      shapes.push(...boxes, star(at));
      return {legend, text: `${look.text}. ${HELD}`};
    }
    marks.sort((a, b) => a.weight - b.weight);
    const top = marks[0].cell || !marks[0].from ? marks : marks.slice(-state.top), max = top.at(-1).weight;
    const sum = (list) => list.reduce((total, m) => total + m.weight, 0);
    for (const m of top) {
      const t = m.weight / max, color = m.color || viewer.css(t);
      if (m.cell) shapes.push({...box(m.cell), type: 'rect', stroke: undefined, fill: color, alpha: 0.2 + 0.5 * Math.sqrt(t)});
      if (state.arrows && m.from) shapes.push({type: 'arrow', x1: m.from[0], y1: m.from[1], x2: m.x, y2: m.y, stroke: m.color || '#fff', width: 1.2, alpha: 0.5 + 0.5 * t});
    }
    for (const m of top.filter((m) => !m.cell)) {
      const t = m.weight / max;
      shapes.push({type: 'circle', x: m.x, y: m.y, r: m.from ? 0.18 + 0.82 * Math.sqrt(t) : 0.42, fill: m.color || viewer.css(t), alpha: 0.45 + 0.45 * t, stroke: m.border ? '#fff' : '#000', width: m.border ? 1.8 : 0.8, dash: m.border ? [3, 2] : undefined});
    }
    shapes.push(...boxes, star(at));
    for (const [color, label] of colors) legend.push({type: 'dot', color, label});
    if (!colors.length) legend.push({type: 'ramp', low: '0', high: percent(max), label: 'attention'});
    if (!marks[0].from) return {legend, text: `${look.text}.`};
    legend.push({type: 'dot', color: '#8888', label: `area: attention, largest ${percent(max)}`});
    if (top.some((m) => m.border)) legend.push({type: 'dashed', label: 'at or beyond the border of the feature map'});
    return {legend, text: `${look.text}: the ${top.length} strongest of ${marks.length} sampling locations, ${percent(sum(top) / sum(marks))} of the attention${state.arrows ? '; arrows from the regular grid' : ''}.`};
  }

  function locations(layer, state, shapes) {
    const points = array(layer, 'points'), boxes = points ? array(layer, 'boxes') : [];
    const {marks, colors} = points ? patches(points) : deformable(layer, state), r = Math.min(0.34, 10 / Math.sqrt(marks.length));
    for (let i = 0; i < boxes.length; i += 4) shapes.push({...box(boxes.subarray(i, i + 4), viewer.groupColor(0), 1), alpha: 0.8});
    for (const m of marks) shapes.push({type: 'circle', x: m.x, y: m.y, r: m.border ? 1.5 * r : r, fill: m.color || viewer.groupColor(0), stroke: m.border ? '#fff' : '#0008', width: m.border ? 1.5 : 0.5, alpha: 0.9});
    return {legend: colors.map(([color, label]) => ({type: 'dot', color, label})), text: `All ${marks.length} sampling locations${points ? ' and patches' : '; all queries share them'}.`};
  }

  function received(layer, state, shapes) {
    const [h, w] = layer.receivedSize, values = viewer.meanOverHeads(array(layer, 'received'), h * w, viewer.headsShown(layer, state));
    // Single high values must not hide the others.
    const sorted = values.filter(Number.isFinite).sort(), max = sorted[Math.floor(0.995 * (sorted.length - 1))] || sorted.at(-1) || 1;
    const source = Object.assign(document.createElement('canvas'), {width: w, height: h}), ctx = source.getContext('2d'), image = ctx.createImageData(w, h);
    values.forEach((v, i) => image.data.set(Number.isNaN(v) ? [0, 0, 0, 0] : [...viewer.viridis(v / max), 255 * (0.2 + 0.5 * Math.sqrt(Math.min(v / max, 1)))], 4 * i));
    ctx.putImageData(image, 0, 0);
    const [x0, y0, x1, y1] = layer.receivedBox;
    shapes.push({type: 'image', source, x0, y0, x1, y1});
    const spread = layer.kind === 'deformable' ? ', mean of the sampling locations around each pixel' : '';
    return {legend: [{type: 'ramp', low: '0', high: `≥ ${max.toFixed(1)} ×`, label: 'attention received, relative to an even distribution'}], text: `Attention that keys receive, averaged over all queries${spread}; ${headText(layer, state)}.`};
  }

  /** Draw arrows from the regular grid to the locations or the centers of the patches; of dense grids not all. */
  function displacement(layer, state, shapes) {
    const boxes = array(layer, 'boxes'), [h, w] = layer.keyGrid ?? layer.queryGrid, step = Math.ceil(Math.sqrt((h * w) / 900));
    const group = Math.floor((viewer.headsShown(layer, state)[0] * layer.groups) / layer.heads), ends = array(layer, 'locations'), starts = array(layer, 'reference');
    const arrows = Array.from({length: h * w}, (_, i) => {
      const [x1, y1] = boxes ? viewer.queryPosition(layer, i) : starts.subarray(2 * i), j = 2 * (group * h * w + i);
      const [x2, y2] = boxes ? [(boxes[4 * i] + boxes[4 * i + 2]) / 2, (boxes[4 * i + 1] + boxes[4 * i + 3]) / 2] : ends.subarray(j);
      return {type: 'arrow', x1, y1, x2, y2, width: 1.4, length: Math.hypot(x2 - x1, y2 - y1)};
    });
    const max = Math.max(...arrows.map((a) => a.length), 1e-9);
    arrows.filter((_, i) => i % w % step === step >> 1 && Math.floor(i / w) % step === step >> 1).forEach((a) => shapes.push({...a, stroke: viewer.css(0.15 + (0.85 * a.length) / max)}));
    const legend = [{type: 'ramp', low: '0', high: `${max.toFixed(1)} px`, label: 'displacement'}];
    return {legend, text: `From the regular grid to the ${boxes ? 'centers of the deformable patches' : `sampling locations of group ${group + 1} of ${layer.groups}`}, in pixels of the image.`};
  }

  viewer.modes = {query, locations, received, displacement};
})();
