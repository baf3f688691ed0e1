// One list of shapes, drawn on a canvas or written as SVG. Shapes are in pixels of the image, pixel centers at whole
// numbers; radii and widths are in pixels of the screen.
(() => {
  'use strict';
  const viewer = (window.viewer ??= {});

  function starPoints(x, y, r) {
    return Array.from({length: 10}, (_, i) => {
      const angle = (i * Math.PI) / 5 - Math.PI / 2, radius = i % 2 ? r * 0.42 : r;
      return [x + radius * Math.cos(angle), y + radius * Math.sin(angle)];
    });
  }

  /** Return the two barbs of an arrow's head, or null for short arrows. */
  function barbs(x1, y1, x2, y2, width) {
    const length = Math.hypot(x2 - x1, y2 - y1), size = Math.min(3 + 2 * width, length / 2);
    if (length < 5) return null;
    const angle = Math.atan2(y2 - y1, x2 - x1);
    return [-1, 1].map((side) => [x2 - size * Math.cos(angle + side * 0.5), y2 - size * Math.sin(angle + side * 0.5)]);
  }

  /** Map a shape to the screen: polygons, circles and text in screen pixels. */
  function place(shape, view) {
    const X = (x) => x * view.scale + view.tx, Y = (y) => y * view.scale + view.ty;
    switch (shape.type) {
      case 'circle': return {...shape, x: X(shape.x), y: Y(shape.y), r: shape.r * view.unit};
      case 'star': return {...shape, type: 'polygon', points: starPoints(X(shape.x), Y(shape.y), shape.r * view.unit)};
      case 'rect': {
        const x = X(shape.x0), y = Y(shape.y0);
        return {...shape, x, y, width: X(shape.x1) - x, height: Y(shape.y1) - y, lineWidth: shape.width};
      }
      case 'polygon': return {...shape, points: shape.points.map(([x, y]) => [X(x), Y(y)])};
      case 'arrow': return {...shape, x1: X(shape.x1), y1: Y(shape.y1), x2: X(shape.x2), y2: Y(shape.y2)};
      case 'text': return {...shape, x: X(shape.x), y: Y(shape.y)};
      case 'image': {
        const x = X(shape.x0), y = Y(shape.y0);
        return {...shape, x, y, width: X(shape.x1) - x, height: Y(shape.y1) - y};
      }
      default: throw new Error(`unknown shape ${shape.type}`);
    }
  }

  function paint(ctx, s) {
    ctx.globalAlpha = s.alpha ?? 1;
    ctx.setLineDash(s.dash ?? []);
    ctx.lineWidth = s.lineWidth ?? s.width ?? 1;
    if (s.stroke) ctx.strokeStyle = s.stroke;
    if (s.fill) ctx.fillStyle = s.fill;
    ctx.beginPath();
    if (s.type === 'image') {
      ctx.imageSmoothingEnabled = s.smooth ?? true;
      ctx.drawImage(s.source, s.x, s.y, s.width, s.height);
      return;
    }
    if (s.type === 'text') {
      ctx.font = `600 ${s.size}px system-ui, sans-serif`;
      const width = ctx.measureText(s.text).width;
      ctx.fillStyle = s.background;
      ctx.fillRect(s.x, s.y - s.size - 4, width + 8, s.size + 6);
      ctx.fillStyle = s.fill;
      ctx.fillText(s.text, s.x + 4, s.y - 3);
      return;
    }
    if (s.type === 'circle') ctx.arc(s.x, s.y, Math.max(s.r, 0.4), 0, 2 * Math.PI);
    if (s.type === 'rect') ctx.rect(s.x, s.y, s.width, s.height);
    if (s.type === 'polygon') {
      s.points.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
      ctx.closePath();
    }
    if (s.type === 'arrow') {
      ctx.moveTo(s.x1, s.y1);
      ctx.lineTo(s.x2, s.y2);
      const head = s.head === false ? null : barbs(s.x1, s.y1, s.x2, s.y2, ctx.lineWidth);
      if (head) {
        ctx.moveTo(...head[0]);
        ctx.lineTo(s.x2, s.y2);
        ctx.lineTo(...head[1]);
      }
    }
    if (s.fill && s.type !== 'arrow') ctx.fill();
    if (s.stroke) ctx.stroke();
  }

  viewer.drawCanvas = (ctx, shapes, view) => {
    for (const shape of shapes) paint(ctx, place(shape, view));
    ctx.globalAlpha = 1;
    ctx.setLineDash([]);
  };

  const escape = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  viewer.escape = escape;
  const number = (v) => +v.toFixed(2);
  const pairs = (points) => points.map(([x, y]) => `${number(x)},${number(y)}`).join(' ');

  /** Return a color as an attribute; SVG 1.1 has no colors with opacity, such as #rrggbbaa. */
  function colorAttribute(name, color = 'none') {
    const found = /^#(?:([0-9a-f]{3})([0-9a-f])|([0-9a-f]{6})([0-9a-f]{2}))$/i.exec(color);
    if (!found) return `${name}="${color}"`;
    const opacity = found[1] ? parseInt(found[2], 16) / 15 : parseInt(found[4], 16) / 255;
    return `${name}="#${found[1] ?? found[3]}" ${name}-opacity="${number(opacity)}"`;
  }

  function element(s) {
    const style = `${colorAttribute('fill', s.fill)} ${colorAttribute('stroke', s.stroke)} stroke-width="${s.lineWidth ?? s.width ?? 1}"` +
      (s.alpha !== undefined ? ` opacity="${number(s.alpha)}"` : '') +
      (s.dash ? ` stroke-dasharray="${s.dash.join(' ')}"` : '');
    switch (s.type) {
      case 'circle': return `<circle cx="${number(s.x)}" cy="${number(s.y)}" r="${number(Math.max(s.r, 0.4))}" ${style}/>`;
      case 'rect': return `<rect x="${number(s.x)}" y="${number(s.y)}" width="${number(s.width)}" height="${number(s.height)}" ${style}/>`;
      case 'polygon': return `<polygon points="${pairs(s.points)}" ${style}/>`;
      case 'arrow': {
        const head = s.head === false ? null : barbs(s.x1, s.y1, s.x2, s.y2, s.width ?? 1), tip = `${number(s.x2)} ${number(s.y2)}`;
        const ends = head && head.map(([x, y]) => `${number(x)} ${number(y)}`);
        const path = `M${number(s.x1)} ${number(s.y1)}L${tip}` + (ends ? `M${ends[0]}L${tip}L${ends[1]}` : '');
        return `<path d="${path}" ${style.replace(/fill="[^"]*"/, 'fill="none"')}/>`;
      }
      case 'image': {
        const href = s.source.toDataURL ? s.source.toDataURL('image/png') : s.source.src;
        return `<image x="${number(s.x)}" y="${number(s.y)}" width="${number(s.width)}" height="${number(s.height)}" ` +
          `preserveAspectRatio="none" opacity="${number(s.alpha ?? 1)}" href="${href}"/>`;
      }
      case 'text': {
        const width = s.text.length * s.size * 0.58 + 8;
        return `<rect x="${number(s.x)}" y="${number(s.y - s.size - 4)}" width="${number(width)}" height="${s.size + 6}" ${colorAttribute('fill', s.background)}/>` +
          `<text x="${number(s.x + 4)}" y="${number(s.y - 3)}" font-size="${s.size}" font-weight="600" ${colorAttribute('fill', s.fill)}>${escape(s.text)}</text>`;
      }
      default: throw new Error(`unknown shape ${s.type}`);
    }
  }

  /** Return a view of width x height pixels as SVG with lines of text below. */
  viewer.toSvg = (shapes, view, lines, background, foreground) => {
    const {width, height} = view, total = height + (lines.length ? lines.length * 17 + 14 : 0);
    const body = shapes.map((shape) => element(place(shape, view))).join('\n');
    const text = lines.map((line, i) => `<text x="10" y="${height + 20 + 17 * i}" font-size="12.5" fill="${foreground}">${escape(line)}</text>`);
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${total}" viewBox="0 0 ${width} ${total}" font-family="system-ui, sans-serif">
<defs><clipPath id="view"><rect width="${width}" height="${height}"/></clipPath></defs>
<rect width="${width}" height="${total}" fill="${background}"/>
<g clip-path="url(#view)">
${body}
</g>
${text.join('\n')}
</svg>
`;
  };
})();
