// State, drawing and caption, and the controls beside the image; controls.js has pointer, keyboard and saving.
(() => {
  'use strict';
  const viewer = window.viewer, page = (viewer.page = JSON.parse(document.getElementById('page').textContent));
  const $ = (id) => document.getElementById(id), canvas = $('canvas'), ctx = canvas.getContext('2d');
  const MODES = {query: 'One query', locations: 'All locations', received: 'Attention received', displacement: 'Displacement'};
  const KINDS = {deformable_patch: 'deformable patch embedding', deformable_detr: 'multi-scale deformable attention'};
  const photo = new Image();
  const state = (viewer.state = {...page.initial, arrows: true, predictions: false, dim: 35});
  const view = (viewer.view = {scale: 1, tx: 0, ty: 0, unit: 10, width: 0, height: 0, fit: 1});
  const layer = (viewer.layer = () => page.layers[state.layer]);
  const stageName = (l) => (l.stage ? `Stage ${l.stage}` : l.isEncoder ? 'Encoder' : 'Decoder');
  const blockName = (l) => `${l.block ? `${l.stage ? 'Block' : 'Layer'} ${l.block}: ` : ''}${KINDS[l.kind] ?? `${l.kind.replace('_', ' ')} attention`}${l.part ? `, offset ${l.part.join(', ')}` : ''}`;
  const stages = [...new Set(page.layers.map(stageName))];

  // The region that fits into the window: the image, and the padding that the network saw beside it.
  const image = {x0: -0.5, y0: -0.5, x1: page.width - 0.5, y1: page.height - 0.5}, slack = 0.01 * Math.max(page.width, page.height);
  const bounds = Object.values(image).map((edge, i) => (Math.abs(page.padded[i] - edge) > slack ? page.padded[i] : edge));

  // ---- shapes and caption ----------------------------------------------------------------------------------------

  const build = (viewer.build = () => {
    const l = layer(), [x0, y0, x1, y1] = bounds, [u0, v0, u1, v1] = page.input;
    const shapes = [{type: 'rect', x0, y0, x1, y1, fill: '#7d8590'}, {type: 'image', source: photo, ...image}, {type: 'rect', ...image, fill: '#000', alpha: state.dim / 100}];
    // Gray parts of the image are not seen by the network.
    for (const unseen of [{y1: v0}, {y0: v1}, {x1: u0}, {x0: u1}].map((side) => ({...image, ...side}))) {
      if (unseen.x1 - unseen.x0 > 0.75 && unseen.y1 - unseen.y0 > 0.75) shapes.push({type: 'rect', ...unseen, fill: '#777', alpha: 0.75});
    }
    const overlay = state.predictions ? predictions(shapes) : null, result = viewer.modes[state.mode](l, state, shapes);
    if (overlay) result.legend.push(...overlay.legend);
    if (overlay?.name) result.text += ` Predicted class there: ${overlay.name}.`;
    if (x1 > image.x1 || y1 > image.y1) result.legend.push({type: 'dot', color: '#7d8590', label: 'padding of the network’s input'});
    return {shapes, ...result};
  });

  const MOST = 12;  // classes in the legend
  let colors = null;

  /** Draw the predictions; return a legend of the label map and the name of the class at the query. */
  function predictions(shapes) {
    const {objects, map, classes} = page.predictions, legend = classes.slice(0, MOST).map((c) => ({type: 'dot', color: c.color, label: c.name}));
    if (classes.length > MOST) legend.push({type: 'more', label: `and ${classes.length - MOST} rarer classes`});
    if (map) colors ??= Object.assign(new Image(), {src: map, onload: draw});
    if (colors?.complete) shapes.push({type: 'image', source: colors, smooth: false, alpha: 0.55, ...image});
    for (const o of objects) {
      const [x0, y0, x1, y1] = o.box;
      for (const flat of o.outlines) shapes.push({type: 'polygon', points: flat.flatMap((x, i) => (i % 2 ? [] : [[x, flat[i + 1]]])), stroke: o.color, width: 2, fill: `${o.color}40`});
      if (x1 > x0) shapes.push({type: 'rect', x0, y0, x1, y1, stroke: o.color, width: 2.2}, {type: 'text', x: x0, y: y0, text: `${o.label} ${o.score.toFixed(2)}`, fill: o.color});
    }
    if (!colors?.complete || !colors.naturalWidth) return {legend};
    const pixel = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d'), [x, y] = state.query.map(Math.round);
    pixel.drawImage(colors, -x, -y);
    const hex = [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v.toString(16).padStart(2, '0')).join('');
    return {legend, name: classes.find((c) => c.color === `#${hex}`)?.name};
  }

  const captionLines = (viewer.captionLines = ({text}) => {
    const l = layer(), offsets = l.convention ? ` Offsets in the convention “${l.convention}”${l.clamped ? ', clamped to the feature map' : ''}.` : '';
    return [
      text,
      `${page.model}, ${stageName(l).toLowerCase()}, ${blockName(l).toLowerCase()}, module ${l.name}.`,
      `Coordinates are (x, y) in pixels of the ${page.width} × ${page.height} image, pixel centers at whole numbers; the network's input was ${page.inputSize[1]} × ${page.inputSize[0]}.${offsets}`,
    ];
  });

  // ---- drawing ---------------------------------------------------------------------------------------------------

  const element = (tag, properties) => Object.assign(document.createElement(tag), properties);

  const draw = (viewer.draw = () => {
    if (!photo.complete) return;
    const start = performance.now(), ratio = window.devicePixelRatio || 1, last = build(), [first, ...rest] = captionLines(last);
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, view.width, view.height);
    viewer.drawCanvas(ctx, last.shapes, view);
    $('caption').replaceChildren(element('strong', {textContent: first}), ` ${rest.join(' ')}`);
    $('legend').replaceChildren(...last.legend.map(legendItem));
    viewer.drawn = {shapes: last.shapes.length, milliseconds: performance.now() - start, text: last.text};
  });

  function legendItem({type, label, color, low, high}) {
    const item = element('span', {className: 'item'}), mark = element('i', {className: type});
    if (color) mark.style.background = color;
    if (type === 'star') mark.textContent = '★';
    if (type === 'ramp') mark.style.background = `linear-gradient(to right,${Array.from({length: 9}, (_, i) => viewer.css(i / 8)).join(',')})`;
    item.append(...(type === 'ramp' ? [`${label} ${low}`, mark, high] : [mark, label]));
    return item;
  }

  const resize = (viewer.resize = (reset = false) => {
    const width = canvas.parentElement.clientWidth, [x0, y0, x1, y1] = bounds, ratio = window.devicePixelRatio || 1;
    const height = Math.round(Math.min((width * (y1 - y0)) / (x1 - x0), Math.max(260, window.innerHeight * 0.72)));
    canvas.style.height = `${height}px`;
    Object.assign(canvas, {width: Math.round(width * ratio), height: Math.round(height * ratio)});
    const fit = Math.min(width / (x1 - x0), height / (y1 - y0));
    if (reset || view.width === 0 || view.scale === view.fit) Object.assign(view, {scale: fit, tx: (width - (x0 + x1) * fit) / 2, ty: (height - (y0 + y1) * fit) / 2});
    Object.assign(view, {width, height, fit});
    zoom(1);
  });

  const zoom = (viewer.zoom = (factor, x = view.width / 2, y = view.height / 2) => {
    const scale = Math.min(Math.max(view.scale * factor, view.fit * 0.5), view.fit * 40), f = scale / view.scale;
    const unit = Math.min(Math.max(Math.min(view.width, view.height) / 46, 7), 15) * Math.min((scale / view.fit) ** 0.5, 3);
    Object.assign(view, {scale, unit, tx: x - (x - view.tx) * f, ty: y - (y - view.ty) * f});
    draw();
  });

  // ---- controls --------------------------------------------------------------------------------------------------

  const options = (select, entries, value) => {
    select.replaceChildren(...entries.map(([key, textContent]) => element('option', {value: key ?? 'all', textContent})));
    select.value = String(value ?? 'all');
  };
  const show = (id, visible) => ($(id).hidden = !visible);
  const numbered = (count) => [[null, `all ${count}`], ...Array.from({length: count}, (_, i) => [i, i + 1])];

  function update() {
    const l = layer(), {modes} = l, objects = l.objects ?? [], inside = page.layers.map((x, i) => [i, x]).filter(([, x]) => stageName(x) === stageName(l));
    if (!modes.includes(state.mode)) state.mode = 'query';
    options($('stage'), stages.map((s) => [s, s]), stageName(l));
    options($('block'), inside.map(([i, x]) => [i, blockName(x) + (x.held ? '' : ' (no attention)')]), state.layer);
    options($('head'), numbered(l.heads), state.head);
    options($('group'), numbered(l.groups), state.group);
    options($('object'), objects.map((o, i) => [i, `${i + 1}: ${o.label} ${o.score.toFixed(2)}`]).sort((a, b) => objects[b[0]].score - objects[a[0]].score), state.object);
    options($('level'), (l.levels ?? []).map(([h, w], i) => [i, `${i + 1}: ${w} × ${h}`]), state.level);
    $('modes').replaceChildren(...modes.map((mode, i) => {
      const button = element('button', {textContent: mode === 'query' && l.kind === 'deformable_patch' ? 'One patch' : MODES[mode], type: 'button', title: `Key ${i + 1}`, onclick: () => set({mode})});
      button.setAttribute('aria-pressed', String(mode === state.mode));
      return button;
    }));
    const query = state.mode === 'query';
    show('field-head', l.heads > 1);
    show('field-group', l.groups > 1);
    show('field-top', query && l.kind === 'deformable');
    show('field-arrows', query && ['deformable', 'deformable_detr'].includes(l.kind));
    show('field-object', query && objects.length);
    show('field-level', query && l.isEncoder);
    if (l.kind === 'deformable') $('top').max = String(Math.min(l.keyGrid[0] * l.keyGrid[1] * l.groups, 2000));
    $('top').value = String(state.top);
    $('top-value').textContent = $('top').value;
    for (const name of ['arrows', 'predictions']) $(name).checked = state[name];
    $('dim').value = String(state.dim);
    draw();
  }

  const set = (viewer.set = (changes) => {
    if ('layer' in changes && changes.layer !== state.layer) Object.assign(state, {head: null, group: null});
    if ('group' in changes) state.head = null;
    if ('head' in changes) state.group = null;
    Object.assign(state, changes);
    update();
  });

  viewer.moveStage = (step) => {
    const next = stages[(stages.indexOf(stageName(layer())) + step + stages.length) % stages.length];
    const inside = page.layers.map((l, i) => [l, i]).filter(([l]) => stageName(l) === next);
    set({layer: (inside.findLast(([l]) => l.kind === layer().kind && l.held) ?? inside.findLast(([l]) => l.held) ?? inside.at(-1))[1]});
  };
  viewer.moveBlock = (step) => set({layer: (state.layer + step + page.layers.length) % page.layers.length});
  viewer.moveChoice = (name, count, step) => set({[name]: [null, ...Array(count).keys()].at(((state[name] ?? -1) + 1 + step) % (count + 1))});

  $('stage').onchange = (e) => viewer.moveStage(stages.indexOf(e.target.value) - stages.indexOf(stageName(layer())));
  for (const [id, name] of [['block', 'layer'], ['head', 'head'], ['group', 'group'], ['object', 'object'], ['level', 'level']]) {
    $(id).onchange = (e) => set({[name]: e.target.value === 'all' ? null : Number(e.target.value)});
  }
  for (const name of ['top', 'dim']) $(name).oninput = (e) => set({[name]: Number(e.target.value)});
  for (const name of ['arrows', 'predictions']) $(name).onchange = (e) => set({[name]: e.target.checked});
  $('zoom-in').onclick = () => zoom(1.5);
  $('zoom-out').onclick = () => zoom(1 / 1.5);
  $('zoom-fit').onclick = () => resize(true);

  const {objects, map, best} = page.predictions;
  show('field-predictions', objects.length > 0 || Boolean(map));
  $('best').textContent = best.map(([label, score]) => `${label} ${(100 * score).toFixed(1)} %`).join(' · ');
  show('best-row', best.length > 0);
  window.addEventListener('resize', () => resize());
  photo.onload = () => {
    resize(true);
    viewer.ready = true;
  };
  photo.src = page.image;
  update();
})();
