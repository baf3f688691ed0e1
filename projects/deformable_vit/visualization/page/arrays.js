// Decode the arrays of the page: base64 text of half-precision, single-precision or byte values.
(() => {
  'use strict';
  const viewer = (window.viewer ??= {});

  // All 65536 half-precision numbers: reading one is then one look-up.
  const numbers = Float32Array.from({length: 65536}, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return exponent ? sign * (1 + fraction) * 2 ** (exponent - 15) : sign * fraction * 2 ** -14;
  });

  viewer.decode = (text, dtype) => {
    const raw = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
    if (dtype === 'u8') return raw;
    return dtype === 'f32' ? new Float32Array(raw.buffer) : Float32Array.from(new Uint16Array(raw.buffer), (bits) => numbers[bits]);
  };

  const cache = new Map();
  /** Return the array of a layer by its name (q, k, locations, ...), or null if the page does not hold it. */
  viewer.array = (layer, name) => {
    const id = layer.arrays[name];
    if (id === undefined) return null;
    if (!cache.has(id)) {
      const element = document.getElementById(id);
      cache.set(id, viewer.decode(element.textContent, element.dataset.dtype));
    }
    return cache.get(id);
  };
})();
