// Pointer, keyboard, and saving as PNG.
(() => {
  'use strict';
  const {page, state, view, layer, set, zoom, build, captionLines} = window.viewer, viewer = window.viewer;
  const canvas = document.getElementById('canvas');

  function ask([x, y]) {
    const l = layer(), query = [(x - view.tx) / view.scale, (y - view.ty) / view.scale], changes = {query, mode: 'query'};
    if (query.some((v, i) => v < -0.5 || v > [page.width, page.height][i] - 0.5)) return;
    if (l.objects) changes.object = objectAt(l, query);
    set(changes);
  }

  /** Return the most confident object query whose box holds a pixel, else the nearest reference point. */
  function objectAt(l, [x, y]) {
    const reference = viewer.array(l, 'reference'), boxes = viewer.array(l, 'boxes');
    const cost = l.objects.map(({score}, i) => {
      const [x0, y0, x1, y1] = boxes.subarray(4 * i, 4 * i + 4);
      return x0 <= x && x <= x1 && y0 <= y && y <= y1 ? -score : (reference[2 * i] - x) ** 2 + (reference[2 * i + 1] - y) ** 2;
    });
    return cost.indexOf(Math.min(...cost));
  }

  const pointers = new Map();
  let moved = 0;
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
    if (!before) return;
    moved += Math.hypot(at[0] - before[0], at[1] - before[1]);
    if (pointers.size === 2) {  // pinch
      const other = [...pointers].find(([id]) => id !== e.pointerId)[1];
      const distance = (p) => Math.max(Math.hypot(p[0] - other[0], p[1] - other[1]), 1);
      zoom(distance(at) / distance(before), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
    } else if (moved > 4) {
      view.tx += at[0] - before[0];
      view.ty += at[1] - before[1];
      viewer.draw();
    }
    pointers.set(e.pointerId, at);
  };
  canvas.onpointerup = (e) => {
    if (pointers.size === 1 && pointers.has(e.pointerId) && moved <= 4) ask(local(e));
    pointers.delete(e.pointerId);
  };
  // Also without pointerup, which goes to a window that opened meanwhile.
  canvas.onpointercancel = canvas.onlostpointercapture = (e) => pointers.delete(e.pointerId);
  canvas.addEventListener('wheel', (e) => {
    e.preventDefault();
    zoom(Math.exp(-e.deltaY * 0.0015), ...local(e));
  }, {passive: false});

  const KEYS = {
    ArrowLeft: () => viewer.moveStage(-1), ArrowRight: () => viewer.moveStage(1), ArrowUp: () => viewer.moveBlock(-1), ArrowDown: () => viewer.moveBlock(1),
    h: () => viewer.moveChoice('head', layer().heads, 1), g: () => viewer.moveChoice('group', layer().groups, 1),
    a: () => set({arrows: !state.arrows}), p: () => set({predictions: !state.predictions}),
    '+': () => zoom(1.25), '-': () => zoom(0.8), 0: () => viewer.resize(true), s: () => viewer.savePng(),
  };
  document.addEventListener('keydown', (e) => {
    // Sliders and lists need the keys themselves; check boxes only the space bar, which is no key of the viewer.
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches('select, input:not([type="checkbox"])')) return;
    const mode = layer().modes[Number(e.key) - 1], action = KEYS[e.key] ?? (mode && (() => set({mode})));
    if (!action) return;
    e.preventDefault();
    action();
  });

  /** Break lines of text where a context draws them wider than `width`. */
  function wrap(ctx, lines, width) {
    return lines.flatMap((line) => line.split(' ').reduce((out, word) => {
      const longer = `${out.at(-1)} ${word}`;
      return out.length && ctx.measureText(longer).width <= width ? [...out.slice(0, -1), longer] : [...out, word];
    }, []));
  }

  viewer.pngCanvas = () => {
    const {shapes, ...result} = build(), out = document.createElement('canvas'), ctx = out.getContext('2d'), font = '12.5px system-ui, sans-serif';
    ctx.font = font;
    const lines = wrap(ctx, captionLines(result), view.width - 20);
    Object.assign(out, {width: 2 * view.width, height: 2 * (view.height + lines.length * 17 + 14)});
    ctx.scale(2, 2);
    viewer.drawCanvas(ctx, shapes, view);
    ctx.fillStyle = '#fff';
    ctx.fillRect(0, view.height, out.width, out.height);
    Object.assign(ctx, {fillStyle: '#222', font});
    lines.forEach((line, i) => ctx.fillText(line, 10, view.height + 20 + 17 * i));
    return out;
  };
  viewer.savePng = () => viewer.pngCanvas().toBlob((blob) => {
    const name = `${page.file}_${layer().name}_${state.mode}.png`;
    Object.assign(document.createElement('a'), {href: URL.createObjectURL(blob), download: name}).click();
  });
  document.getElementById('save-png').onclick = () => viewer.savePng();
})();
