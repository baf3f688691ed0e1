// Pointer, keyboard, and saving as PNG and SVG.
(() => {
  'use strict';
  const viewer = window.viewer, {page, state, view, layer, set, zoom, build, captionLines, stageName} = viewer;
  const canvas = document.getElementById('canvas');

  // ---- pointer and keyboard --------------------------------------------------------------------------------------

  function ask(x, y) {
    const l = layer(), query = [(x - view.tx) / view.scale, (y - view.ty) / view.scale], changes = {query};
    const [w, h] = [page.width, page.height];
    if (query[0] < -0.5 || query[1] < -0.5 || query[0] > w - 0.5 || query[1] > h - 0.5) return;
    if (l.kind === 'deformable_detr' && !l.isEncoder) changes.object = objectAt(l, query);
    if (state.mode !== 'query') changes.mode = 'query';
    set(changes);
  }

  /** Return the most confident object query whose box holds a pixel, else the nearest reference point. */
  function objectAt(l, [x, y]) {
    const reference = viewer.array(l, 'reference'), boxes = l.arrays.boxes ? viewer.array(l, 'boxes') : null;
    let best = -1, least = Infinity;
    for (let i = 0; i < l.queries; i++) {
      const inside = boxes && boxes[4 * i] <= x && x <= boxes[4 * i + 2] && boxes[4 * i + 1] <= y && y <= boxes[4 * i + 3];
      const cost = inside ? -l.objects[i].score : (reference[2 * i] - x) ** 2 + (reference[2 * i + 1] - y) ** 2;
      if (cost < least) [least, best] = [cost, i];
    }
    return best;
  }

  const pointers = new Map();
  let moved = 0, pending = null;
  const local = (e) => {
    const box = canvas.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top];
  };
  canvas.onpointerdown = (e) => {
    if (e.button !== 0) return;  // the right button opens a menu
    if (pointers.size === 0) moved = 0;
    pointers.set(e.pointerId, local(e));
    canvas.setPointerCapture(e.pointerId);
  };
  canvas.onpointermove = (e) => {
    const at = local(e), before = pointers.get(e.pointerId);
    if (!before) {
      if (state.follow && state.mode === 'query') {
        pending ??= requestAnimationFrame(() => { pending = null; ask(...viewer.pointer); });
        viewer.pointer = at;
      }
      return;
    }
    moved += Math.hypot(at[0] - before[0], at[1] - before[1]);
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== e.pointerId)[1];
      const factor = Math.hypot(at[0] - other[0], at[1] - other[1]) / Math.max(Math.hypot(before[0] - other[0], before[1] - other[1]), 1);
      zoom(factor, (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
    } else if (moved > 4) {
      view.tx += at[0] - before[0];
      view.ty += at[1] - before[1];
      canvas.classList.add('dragging');
      viewer.draw();
    }
    pointers.set(e.pointerId, at);
  };
  canvas.onpointerup = (e) => {
    if (pointers.size === 1 && pointers.has(e.pointerId) && moved <= 4) ask(...local(e));
    pointers.delete(e.pointerId);
    canvas.classList.remove('dragging');
  };
  // Also without pointerup, which goes to a window that opened meanwhile.
  canvas.onpointercancel = canvas.onlostpointercapture = (e) => {
    pointers.delete(e.pointerId);
    canvas.classList.remove('dragging');
  };
  canvas.addEventListener('wheel', (e) => {
    e.preventDefault();
    zoom(Math.exp(-e.deltaY * 0.0015), ...local(e));
  }, {passive: false});

  const KEYS = {
    ArrowLeft: () => viewer.moveStage(-1), ArrowRight: () => viewer.moveStage(1), ArrowUp: () => viewer.moveBlock(-1), ArrowDown: () => viewer.moveBlock(1),
    h: () => viewer.moveChoice('head', layer().heads, 1), H: () => viewer.moveChoice('head', layer().heads, -1),
    g: () => viewer.moveChoice('group', layer().groups, 1), G: () => viewer.moveChoice('group', layer().groups, -1),
    a: () => set({arrows: !state.arrows}), l: () => set({everything: !state.everything}), p: () => set({predictions: !state.predictions}),
    f: () => set({follow: !state.follow}), '+': () => zoom(1.25), '=': () => zoom(1.25), '-': () => zoom(0.8), 0: () => viewer.resize(true), s: () => viewer.savePng(),
  };
  document.addEventListener('keydown', (e) => {
    // Sliders and lists need the keys themselves; check boxes only the space bar, which is no key of the viewer.
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches('select, input:not([type="checkbox"])')) return;
    const {modes} = layer(), number = Number(e.key);
    const action = KEYS[e.key] ?? (number >= 1 && number <= modes.length ? () => set({mode: modes[number - 1]}) : null);
    if (!action) return;
    e.preventDefault();
    action();
  });

  // ---- saving ----------------------------------------------------------------------------------------------------

  function wrap(lines, width) {
    const out = [];
    for (const line of lines) {
      let current = '';
      for (const word of line.split(' ')) {
        if (current && (current.length + word.length + 1) * 6.7 > width - 20) [current] = [word, out.push(current)];
        else current = current ? `${current} ${word}` : word;
      }
      out.push(current);
    }
    return out;
  }

  viewer.svg = () => {
    const {shapes, ...result} = build();
    return viewer.toSvg(shapes, view, wrap(captionLines(result), view.width), '#ffffff', '#222222');
  };
  viewer.pngCanvas = () => {
    const {shapes, ...result} = build(), lines = wrap(captionLines(result), view.width), scale = 2;
    const out = Object.assign(document.createElement('canvas'), {width: view.width * scale, height: (view.height + lines.length * 17 + 14) * scale});
    const to = out.getContext('2d');
    to.fillStyle = '#fff';
    to.fillRect(0, 0, out.width, out.height);
    to.scale(scale, scale);
    to.save();
    to.beginPath();
    to.rect(0, 0, view.width, view.height);
    to.clip();
    viewer.drawCanvas(to, shapes, view);
    to.restore();
    to.fillStyle = '#222';
    to.font = '12.5px system-ui, sans-serif';
    lines.forEach((line, i) => to.fillText(line, 10, view.height + 20 + 17 * i));
    return out;
  };
  function save(url, suffix) {
    const l = layer(), name = `${page.file}_${stageName(l).toLowerCase().replace(' ', '')}_${l.block}_${state.mode}.${suffix}`;
    Object.assign(document.createElement('a'), {href: url, download: name}).click();
  }
  viewer.savePng = () => viewer.pngCanvas().toBlob((blob) => save(URL.createObjectURL(blob), 'png'));
  viewer.saveSvg = () => save(URL.createObjectURL(new Blob([viewer.svg()], {type: 'image/svg+xml'})), 'svg');
  document.getElementById('save-png').onclick = () => viewer.savePng();
  document.getElementById('save-svg').onclick = () => viewer.saveSvg();
})();
