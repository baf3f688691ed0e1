// The page: its state, the controls, and the drawing on the canvas. The rest follows from the state.
(() => {
  'use strict';
  const viewer = window.viewer, {page} = viewer, {layers} = page;
  const $ = (id) => document.getElementById(id), canvas = $('canvas'), ctx = canvas.getContext('2d');
  const image = (src) => Object.assign(new Image(), {src: src ?? '', onload: () => resize(true)});
  const photo = image(page.image), drawn = image(page.drawn);
  const state = (viewer.state = {...page.initial, predictions: false});
  const view = (viewer.view = {scale: 1, fit: 1, tx: 0, ty: 0});  // from pixels of the image to those of the screen

  const stages = [...new Set(layers.map((l) => l.stage))].sort();
  const blockName = (l) => {
    if (l.stage === 0) return `${l.encoder ? 'Encoder' : 'Decoder'}, layer ${l.block}`;
    const kind = l.block ? `${l.block}: ${l.kind.replace('_', ' ')} attention` : 'deformable patch embedding';
    return l.part ? `${kind}, offset ${l.part.join(', ')}` : kind;
  };

  // ---- drawing ---------------------------------------------------------------------------------------------------

  function drawMarks(marks, max) {
    const color = (weight) => page.colors[Math.round((weight / max) * (page.colors.length - 1))], px = 1 / view.scale;
    const unit = Math.min(Math.max(canvas.clientWidth / 60, 7), 15) * Math.min((view.scale / view.fit) ** 0.5, 3) * px;
    ctx.lineWidth = px;
    for (const {weight, box, at, from} of marks) {
      ctx.fillStyle = color(weight);
      ctx.globalAlpha = 0.2 + 0.5 * Math.sqrt(weight / max);
      if (box) ctx.fillRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
      else if (from) line(from, at);
    }
    ctx.strokeStyle = '#000';
    for (const {weight, at} of marks.filter((mark) => mark.at)) {
      ctx.globalAlpha = 0.9;
      ctx.fillStyle = color(weight);
      ctx.beginPath();
      ctx.arc(...at, (0.2 + 0.6 * Math.sqrt(weight / max)) * unit, 0, 2 * Math.PI);
      ctx.fill();
      ctx.stroke();
    }
    ctx.globalAlpha = 1;
  }

  function line(from, to) {
    ctx.strokeStyle = '#fff';
    ctx.beginPath();
    ctx.moveTo(...from);
    ctx.lineTo(...to);
    ctx.stroke();
  }

  function outline([x0, y0, x1, y1], color, width) {
    Object.assign(ctx, {strokeStyle: color, lineWidth: width / view.scale});
    ctx.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }

  /** Draw the image: darker, and gray where the network did not see it. */
  function drawImage() {
    const ratio = window.devicePixelRatio, {width, height, seen} = page, shown = state.predictions ? drawn : photo;
    ctx.resetTransform();
    ctx.clearRect(0, 0, canvas.width, canvas.height);
    ctx.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.tx, ratio * view.ty);
    if (shown.complete) ctx.drawImage(shown, -0.5, -0.5, width, height);
    ctx.fillStyle = '#0005';
    ctx.fillRect(-0.5, -0.5, width, height);
    const [x0, y0, x1, y1] = seen.map((v, i) => Math.min(Math.max(v, -0.5), (i % 2 ? height : width) - 0.5));
    ctx.fillStyle = '#777c';
    ctx.beginPath();
    ctx.rect(-0.5, -0.5, width, height);
    ctx.rect(x0, y0, x1 - x0, y1 - y0);
    ctx.fill('evenodd');
  }

  function draw() {
    const l = viewer.layer(state.layer), index = viewer.queryIndex(l, state.query);
    const at = [...l.queries.subarray(2 * index, 2 * index + 2)], all = viewer.marks(l, index, state);
    const marks = l.locations && l.q ? all.slice(-state.top) : all, max = marks.at(-1).weight;
    drawImage();
    const box = (i) => l.boxes.subarray(4 * i, 4 * i + 4);
    if (l.kind === 'deformable_patch') for (let i = 0; i < l.boxes.length / 4; i++) outline(box(i), '#e69f0080', 0.7);
    drawMarks(marks, max);
    if (l.boxes && l.locations) outline(box(index), '#fff', 2.2);
    const size = 34 / view.scale;
    Object.assign(ctx, {fillStyle: '#ff2d55', strokeStyle: '#fff', lineWidth: 1.5 / view.scale, font: `${size}px sans-serif`});
    Object.assign(ctx, {textAlign: 'center', textBaseline: 'middle'});
    ctx.fillText('★', ...at);
    ctx.strokeText('★', ...at);
    viewer.drawn = {marks, at, text: caption(l, index, at, marks, all)};
    $('caption').textContent = viewer.drawn.text;
    $('max').textContent = percent(max);
    $('ramp').hidden = l.kind === 'deformable_patch';
  }

  const percent = (v) => `${v >= 0.1 ? (100 * v).toFixed(0) : (100 * v).toPrecision(2)} %`;

  function caption(l, index, at, marks, all) {
    const position = `(${at.map((v) => v.toFixed(1)).join(', ')})`, sum = (list) => list.reduce((total, m) => total + m.weight, 0);
    const heads = state.head !== null ? `head ${state.head + 1} of ${l.heads}` : 'mean over the heads';
    let text = `Attention of the query at ${position}, ${heads}${state.group === null ? '' : ` of group ${state.group + 1}`}`;
    if (l.kind === 'deformable_patch') text = `Patch of the token at ${position} and its sampling locations, among all patches`;
    else if (l.locations) text += `: the ${marks.length} strongest of ${all.length} sampling locations, ${percent(sum(marks) / sum(all))} of the attention`;
    if (l.labels) text += `; object query ${index + 1} of ${l.labels.length}: ${l.labels[index]} ${l.scores[index].toFixed(2)}`;
    if (l.extra) text += `; the class token gets ${percent(1 - sum(all))}`;
    return `${text}. Module ${l.name}; (x, y) in pixels of the ${page.width} × ${page.height} image.`;
  }

  // ---- controls --------------------------------------------------------------------------------------------------

  function options(id, entries, value) {
    const make = ([key, text]) => new Option(text, key ?? '', false, key === value);
    $(id).replaceChildren(...entries.map(make));
    $(`field-${id}`).hidden = entries.length < 2;
  }

  const set = (viewer.set = (changes) => {
    if ('layer' in changes) Object.assign(state, {head: null, group: null});
    if ('group' in changes) state.head = null;
    if ('head' in changes) state.group = null;
    Object.assign(state, changes);
    const l = layers[state.layer], numbers = (n, all) => [[null, all], ...Array.from({length: n}, (_, i) => [i, i + 1])];
    const inside = [...layers.entries()].filter(([, x]) => x.stage === l.stage);
    options('stage', stages.map((s) => [s, s ? `Stage ${s}` : 'Encoder and decoder']), l.stage);
    options('block', inside.map(([i, x]) => [i, blockName(x)]), state.layer);
    options('head', l.heads > 1 ? numbers(l.heads, 'mean') : [], state.head);
    options('group', l.groups > 1 && l.groups < l.heads ? numbers(l.groups, 'all') : [], state.group);
    $('field-top').hidden = l.kind !== 'deformable';
    $('top').value = String(state.top);
    $('predictions').checked = state.predictions;
    $('field-predictions').hidden = !page.drawn;
    draw();
  });

  $('stage').onchange = (e) => set({layer: layers.findLastIndex((l) => l.stage === Number(e.target.value))});
  $('block').onchange = (e) => set({layer: Number(e.target.value)});
  for (const id of ['head', 'group']) $(id).onchange = (e) => set({[id]: e.target.value === '' ? null : Number(e.target.value)});
  $('top').oninput = (e) => set({top: Number(e.target.value)});
  $('predictions').onchange = (e) => set({predictions: e.target.checked});

  // ---- canvas ----------------------------------------------------------------------------------------------------

  function resize(reset) {
    const ratio = window.devicePixelRatio, width = canvas.clientWidth;
    const height = Math.round(Math.min((width * page.height) / page.width, Math.max(260, window.innerHeight * 0.78)));
    canvas.style.height = `${height}px`;
    Object.assign(canvas, {width: Math.round(width * ratio), height: Math.round(height * ratio)});
    const fit = Math.min(width / page.width, height / page.height);
    if (reset || view.scale === view.fit) {
      Object.assign(view, {scale: fit, tx: (width - (page.width - 1) * fit) / 2, ty: (height - (page.height - 1) * fit) / 2});
    }
    view.fit = fit;
    draw();
    viewer.ready = photo.complete;
  }

  let pressed = null;  // where the pointer was, until it is released
  let moved = 0;
  canvas.onpointerdown = (e) => {
    if (e.button !== 0) return;  // the right button opens a menu, which saves the image
    [pressed, moved] = [[e.offsetX, e.offsetY], 0];
    canvas.setPointerCapture(e.pointerId);
  };
  canvas.onpointermove = (e) => {
    if (!pressed) return;
    const by = [e.offsetX - pressed[0], e.offsetY - pressed[1]];
    moved += Math.hypot(...by);
    if (moved <= 4) return;
    Object.assign(view, {tx: view.tx + by[0], ty: view.ty + by[1]});
    pressed = [e.offsetX, e.offsetY];
    draw();
  };
  canvas.onpointerup = (e) => {
    const query = [(e.offsetX - view.tx) / view.scale, (e.offsetY - view.ty) / view.scale];
    const inside = query.every((v, i) => v >= -0.5 && v <= [page.width, page.height][i] - 0.5);
    if (pressed && moved <= 4 && inside) set({query});
  };
  canvas.onlostpointercapture = () => (pressed = null);
  canvas.addEventListener('wheel', (e) => {
    e.preventDefault();
    zoom(Math.exp(-e.deltaY * 0.0015), e.offsetX, e.offsetY);
  }, {passive: false});

  function zoom(factor, x, y) {
    const scale = Math.min(Math.max(view.scale * factor, view.fit * 0.5), view.fit * 40), f = scale / view.scale;
    Object.assign(view, {scale, tx: x - (x - view.tx) * f, ty: y - (y - view.ty) * f});
    draw();
  }
  for (const [id, factor] of [['zoom-in', 1.5], ['zoom-out', 1 / 1.5]]) {
    $(id).onclick = () => zoom(factor, canvas.clientWidth / 2, canvas.clientHeight / 2);
  }
  $('zoom-fit').onclick = () => resize(true);
  window.onresize = () => resize(false);
  set({});
})();
