// State, drawing and caption, and the controls beside the image; controls.js has pointer, keyboard and saving.
(() => {
  'use strict';
  const viewer = window.viewer, page = JSON.parse(document.getElementById('page').textContent);
  viewer.page = page;
  const $ = (id) => document.getElementById(id), canvas = $('canvas'), ctx = canvas.getContext('2d');
  const MODES = {query: 'One query', locations: 'All locations', received: 'Attention received', displacement: 'Displacement'};
  const LOCATIONS = {window: 'All windows', shifted_window: 'All windows', neighborhood: 'Neighborhoods', spatial_reduction: 'All keys', deformable_patch: 'All patches'};
  const photo = new Image();
  const state = viewer.state = {
    layer: page.initial.layer, mode: page.initial.mode, query: page.initial.query, head: page.initial.head, group: page.initial.group,
    top: page.initial.top, object: page.initial.object, level: page.initial.level, arrows: true, everything: false, predictions: false, dim: 35, follow: false,
  };
  const view = viewer.view = {scale: 1, tx: 0, ty: 0, unit: 10, width: 0, height: 0, fit: 1};
  const layer = viewer.layer = () => page.layers[state.layer];
  const stageName = (l) => (l.stage ? `Stage ${l.stage}` : l.isEncoder ? 'Encoder' : 'Decoder');
  const KINDS = {
    deformable: 'deformable', window: 'window', shifted_window: 'shifted window', neighborhood: 'neighborhood',
    spatial_reduction: 'spatial reduction', deformable_detr: 'multi-scale deformable',
  };
  const blockName = (l) => (l.kind === 'deformable_patch' ? 'Patch embedding' : `${l.stage ? 'Block' : 'Layer'} ${l.block}: ${KINDS[l.kind]}`) + (l.part ? `, offset ${l.part.join(', ')}` : '');
  const kindName = (l) => (l.kind === 'deformable_patch' ? 'deformable patch embedding' : `${l.stage ? 'block' : 'layer'} ${l.block}: ${KINDS[l.kind]} attention${l.part ? ` at offset (${l.part.join(', ')})` : ''}`);
  const stages = [...new Set(page.layers.map(stageName))];

  // The region that fits into the window: the image, and the padding that the network saw beside it.
  const bounds = viewer.bounds = (() => {
    const [w, h] = [page.width, page.height], [x0, y0, x1, y1] = page.padded, slack = 0.01 * Math.max(w, h);
    return [x0 < -0.5 - slack ? x0 : -0.5, y0 < -0.5 - slack ? y0 : -0.5, x1 > w + slack ? x1 : w - 0.5, y1 > h + slack ? y1 : h - 0.5];
  })();
  const padded = bounds[2] > page.width || bounds[3] > page.height;

  // ---- shapes and caption ----------------------------------------------------------------------------------------

  function build() {
    const l = layer(), shapes = [], [x0, y0, x1, y1] = bounds;
    if (padded) shapes.push({type: 'rect', x0, y0, x1, y1, fill: '#7d8590'});
    shapes.push({type: 'image', source: photo, x0: -0.5, y0: -0.5, x1: page.width - 0.5, y1: page.height - 0.5});
    if (state.dim) shapes.push({type: 'rect', x0: -0.5, y0: -0.5, x1: page.width - 0.5, y1: page.height - 0.5, fill: '#000', alpha: state.dim / 100});
    shadeUnseen(shapes);
    const result = viewer.modes[l.kind][state.mode](l, state, shapes);
    if (state.predictions) drawPredictions(shapes, result);
    if (padded) result.legend.push({type: 'swatch', color: '#7d8590', label: 'padding of the network’s input'});
    return {shapes, ...result};
  }

  /** Cover in gray the parts of the image that the network did not see. */
  function shadeUnseen(shapes) {
    const [x0, y0, x1, y1] = page.input, right = page.width - 0.5, bottom = page.height - 0.5;
    for (const [a, b, c, d] of [[-0.5, -0.5, right, y0], [-0.5, y1, right, bottom], [-0.5, y0, x0, y1], [x1, y0, right, y1]]) {
      if (c - a > 0.75 && d - b > 0.75) shapes.push({type: 'rect', x0: a, y0: b, x1: c, y1: d, fill: '#777', alpha: 0.75});
    }
  }

  const MOST = 12;  // classes in the legend
  let colors = null, pixels = null;

  /** Return the name of the class at a pixel of the image, '' before the label map is loaded. */
  function classAt([x, y]) {
    if (!colors?.complete || !colors.naturalWidth) return '';
    if (!pixels) {
      const copy = Object.assign(document.createElement('canvas'), {width: colors.naturalWidth, height: colors.naturalHeight});
      pixels = copy.getContext('2d', {willReadFrequently: true});
      pixels.drawImage(colors, 0, 0);
    }
    const at = [[x, page.width, colors.naturalWidth], [y, page.height, colors.naturalHeight]].map(([v, n, m]) => Math.min(Math.max(Math.floor(((v + 0.5) * m) / n), 0), m - 1));
    const hex = [...pixels.getImageData(...at, 1, 1).data].slice(0, 3).map((v) => v.toString(16).padStart(2, '0')).join('');
    return page.predictions.classes.find((c) => c.color === `#${hex}`)?.name ?? '';
  }

  function drawPredictions(shapes, result) {
    if (page.predictions.map) {
      colors ??= Object.assign(new Image(), {src: page.predictions.map, onload: draw});
      const {classes} = page.predictions, name = classAt(state.query);
      for (const c of classes.slice(0, MOST)) result.legend.push({type: 'swatch', color: c.color, label: c.name});
      if (classes.length > MOST) result.legend.push({type: 'more', label: `and ${classes.length - MOST} rarer classes`});
      if (name) result.text += ` Predicted class there: ${name}.`;
      if (colors.complete) shapes.splice(padded ? 3 : 2, 0, {type: 'image', source: colors, smooth: false, alpha: 0.55, x0: -0.5, y0: -0.5, x1: page.width - 0.5, y1: page.height - 0.5});
    }
    for (const o of page.predictions.objects) {
      for (const flat of o.outlines) {
        const points = [];
        for (let i = 0; i < flat.length; i += 2) points.push([flat[i], flat[i + 1]]);
        shapes.push({type: 'polygon', points, stroke: o.color, width: 2, fill: `${o.color}40`});
      }
      const [x0, y0, x1, y1] = o.box;
      if (x1 > x0) shapes.push({type: 'rect', x0, y0, x1, y1, stroke: o.color, width: 2.2}, {type: 'text', x: x0, y: y0, text: `${o.label} ${o.score.toFixed(2)}`, size: 12, fill: '#111', background: o.color});
    }
  }

  function captionLines(result) {
    const l = layer(), pixels = l.convention ? ` Offsets in the convention “${l.convention}”${l.convention === 'corners' ? ' (DAT++)' : ' (DAT)'}${l.clamped ? ', clamped to the feature map' : ''}.` : '';
    return [
      `${page.model}, ${stageName(l).toLowerCase()}, ${kindName(l)}: ${l.stage ? `${l.queryGrid[1]} × ${l.queryGrid[0]} tokens` : `${l.queries} queries`}, module ${l.name}.`,
      result.text,
      `Coordinates are (x, y) in pixels of the ${page.width} × ${page.height} image, pixel centers at whole numbers; the network's input was ${page.inputSize[1]} × ${page.inputSize[0]}.${pixels}`,
      ...(page.weights ? [`Weights: ${page.weights}.`] : []),
    ];
  }

  // ---- drawing ---------------------------------------------------------------------------------------------------

  let last = null;
  function draw() {
    if (!photo.complete) return;
    const start = performance.now(), ratio = window.devicePixelRatio || 1;
    last = build();
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.globalAlpha = 1;
    ctx.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--stage');
    ctx.fillRect(0, 0, view.width, view.height);
    viewer.drawCanvas(ctx, last.shapes, view);
    const lines = captionLines(last);
    $('caption').innerHTML = `<strong>${viewer.escape(lines[1])}</strong> ${lines.filter((_, i) => i !== 1).map(viewer.escape).join(' ')}`;
    $('legend').replaceChildren(...last.legend.map(legendItem));
    viewer.drawn = {shapes: last.shapes.length, milliseconds: performance.now() - start, text: last.text};
  }
  viewer.draw = draw;

  function legendItem(item) {
    const span = document.createElement('span'), label = `<span>${viewer.escape(item.label)}</span>`;
    const marks = {
      star: '<svg viewBox="-10 -10 20 20"><polygon points="0,-9 2.2,-3 8.6,-2.8 3.6,1.2 5.3,7.3 0,3.8 -5.3,7.3 -3.6,1.2 -8.6,-2.8 -2.2,-3" fill="#ff2d55" stroke="#fff"/></svg>',
      dot: `<svg viewBox="-10 -10 20 20"><circle r="7" fill="${item.color}" stroke="#0008"/></svg>`,
      sizes: '<svg class="wide" viewBox="0 0 36 20"><g fill="none" stroke="currentColor"><circle cx="4" cy="10" r="2"/><circle cx="14" cy="10" r="4"/><circle cx="28" cy="10" r="7"/></g></svg>',
      arrow: '<svg viewBox="0 0 20 20"><path d="M2 16L16 4M9 4H16V11" fill="none" stroke="currentColor" stroke-width="1.8"/></svg>',
      dashed: '<svg viewBox="-10 -10 20 20"><circle r="7" fill="#8888" stroke="currentColor" stroke-width="2" stroke-dasharray="3 2"/></svg>',
      box: `<svg viewBox="0 0 20 20"><rect x="3" y="3" width="14" height="14" fill="none" stroke="#555" stroke-width="5"/><rect x="3" y="3" width="14" height="14" fill="none" stroke="${item.color}" stroke-width="2.5"/></svg>`,
      swatch: `<svg viewBox="0 0 20 20"><rect x="2" y="2" width="16" height="16" rx="3" fill="${item.color}"/></svg>`,
      dashedbox: '<svg viewBox="0 0 20 20"><rect x="3" y="3" width="14" height="14" fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray="3 2"/></svg>',
    };
    span.className = 'item';
    if (item.type === 'ramp') {
      const stops = Array.from({length: 9}, (_, i) => viewer.css(viewer.viridis(i / 8))).join(',');
      span.innerHTML = `${label}<span>${viewer.escape(item.low)}</span><i class="ramp" style="background:linear-gradient(to right,${stops})"></i><span>${viewer.escape(item.high)}</span>`;
    } else span.innerHTML = (marks[item.type] ?? '') + label;
    return span;
  }

  function resize(reset = false) {
    const width = canvas.parentElement.clientWidth, [x0, y0, x1, y1] = bounds;
    const height = Math.round(Math.min((width * (y1 - y0)) / (x1 - x0), Math.max(260, window.innerHeight * 0.72)));
    const ratio = window.devicePixelRatio || 1, first = view.width === 0;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const fit = Math.min(width / (x1 - x0), height / (y1 - y0));
    if (reset || first || view.scale === view.fit) {
      Object.assign(view, {scale: fit, tx: (width - (x0 + x1) * fit) / 2, ty: (height - (y0 + y1) * fit) / 2});
    }
    Object.assign(view, {width, height, fit});
    setUnit();
    draw();
  }

  function setUnit() {
    view.unit = Math.min(Math.max(Math.min(view.width, view.height) / 46, 7), 15) * Math.min((view.scale / view.fit) ** 0.5, 3);
  }

  function zoom(factor, x = view.width / 2, y = view.height / 2) {
    const scale = Math.min(Math.max(view.scale * factor, view.fit * 0.5), view.fit * 40), f = scale / view.scale;
    Object.assign(view, {scale, tx: x - (x - view.tx) * f, ty: y - (y - view.ty) * f});
    setUnit();
    draw();
  }

  // ---- controls --------------------------------------------------------------------------------------------------

  function options(select, entries, value) {
    select.replaceChildren(...entries.map(([key, text]) => Object.assign(document.createElement('option'), {value: key, textContent: text})));
    select.value = String(value);
  }
  const show = (id, visible) => ($(id).hidden = !visible);

  function update() {
    const l = layer(), {modes} = l;
    if (!modes.includes(state.mode)) state.mode = 'query';
    if (state.head !== 'all' && state.head >= l.heads) state.head = 'all';
    if (state.group !== 'all' && state.group >= l.groups) state.group = 'all';
    options($('stage'), stages.map((s) => [s, s]), stageName(l));
    options($('block'), page.layers.map((x, i) => [i, blockName(x) + (x.held ? '' : ' (no attention)'), x]).filter(([, , x]) => stageName(x) === stageName(l)), state.layer);
    options($('head'), [['all', l.heads > 1 ? `all ${l.heads}${l.kind === 'deformable_detr' ? '' : ' (mean)'}` : '1'], ...(l.heads > 1 ? Array.from({length: l.heads}, (_, i) => [i, `${i + 1}`]) : [])], state.head);
    options($('group'), [['all', `all ${l.groups}`], ...Array.from({length: l.groups}, (_, i) => [i, `${i + 1}`])], state.group);
    $('modes').replaceChildren(...modes.map((mode, i) => {
      const text = mode === 'locations' ? LOCATIONS[l.kind] ?? MODES[mode] : mode === 'query' && l.kind === 'deformable_patch' ? 'One patch' : MODES[mode];
      const button = Object.assign(document.createElement('button'), {textContent: text, type: 'button', title: `Key ${i + 1}`});
      button.setAttribute('aria-pressed', String(mode === state.mode));
      button.dataset.mode = mode;
      button.onclick = () => set({mode});
      return button;
    }));
    const objects = l.kind === 'deformable_detr' && !l.isEncoder;
    show('field-head', l.heads > 1);
    show('field-group', l.groups > 1);
    show('field-top', l.kind === 'deformable' && state.mode === 'query');
    show('field-everything', l.kind === 'deformable' && state.mode === 'query');
    show('field-arrows', ['deformable', 'deformable_detr'].includes(l.kind) && state.mode === 'query');
    show('field-follow', state.mode === 'query' && !objects);
    show('field-object', objects && state.mode === 'query');
    show('field-level', l.kind === 'deformable_detr' && l.isEncoder && state.mode === 'query');
    if (objects) {
      const order = l.objects.map((o, i) => [i, `${i + 1}: ${o.label} ${o.score.toFixed(2)}`, o.score]).sort((a, b) => b[2] - a[2]);
      options($('object'), order, state.object);
    }
    if (l.isEncoder) options($('level'), l.levels.map(([h, w], i) => [i, `${i + 1}: ${w} × ${h}`]), Math.min(state.level, l.levels.length - 1));
    if (l.kind === 'deformable') $('top').max = String(Math.min(l.keyGrid[0] * l.keyGrid[1] * l.groups, 2000));
    $('top').value = String(state.top);
    $('top-value').textContent = String(Math.min(state.top, Number($('top').max)));
    for (const name of ['arrows', 'everything', 'predictions', 'follow']) $(name).checked = state[name];
    $('dim').value = String(state.dim);
    draw();
  }

  const set = viewer.set = (changes) => {
    if ('layer' in changes && changes.layer !== state.layer) Object.assign(state, {head: 'all', group: 'all'});
    if ('group' in changes) state.head = 'all';
    if ('head' in changes && changes.head !== 'all') state.group = 'all';
    Object.assign(state, changes);
    update();
  };
  const chosen = (value) => (value === 'all' ? 'all' : Number(value));

  function moveStage(step) {
    const next = stages[(stages.indexOf(stageName(layer())) + step + stages.length) % stages.length];
    const inside = page.layers.map((l, i) => [l, i]).filter(([l]) => stageName(l) === next);
    set({layer: (inside.findLast(([l]) => l.kind === layer().kind && l.held) ?? inside.findLast(([l]) => l.held) ?? inside.at(-1))[1]});
  }
  function moveBlock(step) {
    const inside = page.layers.map((_, i) => i).filter((i) => stageName(page.layers[i]) === stageName(layer()));
    set({layer: inside[(inside.indexOf(state.layer) + step + inside.length) % inside.length]});
  }
  function moveChoice(name, count, step) {
    const values = ['all', ...Array.from({length: count}, (_, i) => i)];
    set({[name]: values[(values.indexOf(state[name]) + step + values.length) % values.length]});
  }

  $('stage').onchange = (e) => {
    const steps = stages.indexOf(e.target.value) - stages.indexOf(stageName(layer()));
    moveStage(steps);
  };
  $('block').onchange = (e) => set({layer: Number(e.target.value)});
  $('head').onchange = (e) => set({head: chosen(e.target.value)});
  $('group').onchange = (e) => set({group: chosen(e.target.value)});
  $('object').onchange = (e) => set({object: Number(e.target.value)});
  $('level').onchange = (e) => set({level: Number(e.target.value)});
  $('top').oninput = (e) => set({top: Number(e.target.value)});
  $('dim').oninput = (e) => set({dim: Number(e.target.value)});
  for (const name of ['arrows', 'everything', 'predictions', 'follow']) $(name).onchange = (e) => set({[name]: e.target.checked});
  $('zoom-in').onclick = () => zoom(1.5);
  $('zoom-out').onclick = () => zoom(1 / 1.5);
  $('zoom-fit').onclick = () => resize(true);
  $('theme').onclick = () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === 'dark';
    document.documentElement.dataset.theme = dark ? 'light' : 'dark';
    draw();
  };

  Object.assign(viewer, {set, zoom, resize, build, captionLines, stageName, moveStage, moveBlock, moveChoice});

  const {objects, map, best} = page.predictions;
  show('field-predictions', objects.length > 0 || Boolean(map));
  $('best').textContent = best.map(([label, score]) => `${label} ${(100 * score).toFixed(1)} %`).join(' · ');
  show('best-row', best.length > 0);
  window.addEventListener('resize', () => resize());
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  photo.onload = () => { resize(true); viewer.ready = true; };
  photo.src = page.image;
  update();
})();
