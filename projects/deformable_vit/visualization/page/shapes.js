// Colors, and shapes drawn on a canvas. Shapes are in pixels of the image, pixel centers at whole numbers; radii and
// widths are in pixels of the screen.
(() => {
  'use strict';
  const viewer = (window.viewer ??= {});

  // Colors that color-blind people can tell apart: Okabe and Ito's for groups and levels, viridis for amounts.
  const GROUPS = ['#e69f00', '#56b4e9', '#009e73', '#f0e442', '#d55e00', '#cc79a7', '#0072b2', '#ffffff'];
  viewer.groupColor = (group) => GROUPS[group % GROUPS.length];

  // Every 16th of matplotlib's viridis.
  const VIRIDIS = [
    [68, 1, 84], [72, 26, 108], [71, 47, 125], [65, 68, 135], [57, 86, 140], [49, 104, 142], [42, 120, 142],
    [35, 136, 142], [31, 152, 139], [34, 168, 132], [53, 183, 121], [84, 197, 104], [122, 209, 81], [165, 219, 54],
    [210, 226, 27], [253, 231, 37],
  ];

  /** Return viridis at 0 to 1 as [red, green, blue]. */
  viewer.viridis = (t) => {
    const at = Math.min(Math.max(t, 0), 1) * 15, i = Math.min(Math.floor(at), 14), f = at - i;
    return VIRIDIS[i].map((v, c) => Math.round(v + (VIRIDIS[i + 1][c] - v) * f));
  };
  viewer.css = (t) => `rgb(${viewer.viridis(t).join(',')})`;

  function trace(ctx, s, X, Y, unit) {
    if (s.type === 'circle') ctx.arc(X(s.x), Y(s.y), Math.max(s.r * unit, 0.4), 0, 2 * Math.PI);
    if (s.type === 'rect') ctx.rect(X(s.x0), Y(s.y0), X(s.x1) - X(s.x0), Y(s.y1) - Y(s.y0));
    if (s.type === 'polygon') s.points.forEach(([x, y]) => ctx.lineTo(X(x), Y(y)));
    if (s.type === 'star') {
      for (let i = 0; i < 10; i++) {
        const angle = (i * Math.PI) / 5 - Math.PI / 2, r = s.r * unit * (i % 2 ? 0.42 : 1);
        ctx.lineTo(X(s.x) + r * Math.cos(angle), Y(s.y) + r * Math.sin(angle));
      }
    }
    if (s.type !== 'arrow') return ctx.closePath();
    const [x, y, dx, dy] = [X(s.x2), Y(s.y2), X(s.x2) - X(s.x1), Y(s.y2) - Y(s.y1)];
    const length = Math.hypot(dx, dy), angle = Math.atan2(dy, dx), size = Math.min(3 + 2 * s.width, length / 2);
    ctx.moveTo(x - dx, y - dy);
    ctx.lineTo(x, y);
    for (const side of length < 5 ? [] : [-0.5, 0.5]) {
      ctx.moveTo(x, y);
      ctx.lineTo(x - size * Math.cos(angle + side), y - size * Math.sin(angle + side));
    }
  }

  /** Draw shapes; a view has `scale`, `tx` and `ty` from the image to the screen, and the `unit` of radii. */
  viewer.drawCanvas = (ctx, shapes, {scale, tx, ty, unit}) => {
    const X = (x) => x * scale + tx, Y = (y) => y * scale + ty;
    for (const s of shapes) {
      ctx.globalAlpha = s.alpha ?? 1;
      ctx.setLineDash(s.dash ?? []);
      ctx.lineWidth = s.width ?? 1;
      ctx.strokeStyle = s.stroke ?? '#0000';
      ctx.fillStyle = s.fill ?? '#0000';
      if (s.type === 'image') {
        ctx.imageSmoothingEnabled = s.smooth ?? true;
        ctx.drawImage(s.source, X(s.x0), Y(s.y0), (s.x1 - s.x0) * scale, (s.y1 - s.y0) * scale);
      } else if (s.type === 'text') {
        ctx.font = '600 12px system-ui, sans-serif';
        ctx.fillRect(X(s.x), Y(s.y) - 16, ctx.measureText(s.text).width + 8, 18);
        ctx.fillStyle = '#111';
        ctx.fillText(s.text, X(s.x) + 4, Y(s.y) - 3);
      } else {
        ctx.beginPath();
        trace(ctx, s, X, Y, unit);
        if (s.fill) ctx.fill();
        if (s.stroke) ctx.stroke();
      }
    }
    ctx.globalAlpha = 1;
    ctx.setLineDash([]);
  };
})();
