// Decode the arrays of the page: base64 text of half-precision, single-precision or byte values.
(() => {
  'use strict';
  const viewer = (window.viewer ??= {});

  // All 65536 half-precision numbers: reading one is then one look-up.
  const numbers = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 0) numbers[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) numbers[bits] = fraction ? NaN : sign * Infinity;
    else numbers[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  function bytes(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const binary = atob(text), out = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) out[i] = binary.charCodeAt(i);
    return out;
  }

  function decode(text, dtype) {
    const raw = bytes(text.trim());
    if (dtype === 'u8') return raw;
    if (dtype === 'f32') return new Float32Array(raw.buffer, raw.byteOffset, raw.length / 4);
    const half = new Uint16Array(raw.buffer, raw.byteOffset, raw.length / 2), out = new Float32Array(half.length);
    for (let i = 0; i < half.length; i++) out[i] = numbers[half[i]];
    return out;
  }

  const cache = new Map();
  /** Return the array of a layer by its name (q, k, locations, ...), or null if the page does not hold it. */
  viewer.array = (layer, name) => {
    const id = layer.arrays[name];
    if (id === undefined) return null;
    if (!cache.has(id)) {
      const element = document.getElementById(id);
      cache.set(id, decode(element.textContent, element.dataset.dtype));
    }
    return cache.get(id);
  };
  viewer.decode = decode;
})();
