// Colors that color-blind people can tell apart: Okabe and Ito's for groups, viridis for amounts.
(() => {
  'use strict';
  const viewer = (window.viewer ??= {});
  viewer.GROUPS = ['#e69f00', '#56b4e9', '#009e73', '#f0e442', '#d55e00', '#cc79a7', '#0072b2', '#ffffff'];
  viewer.QUERY = '#ff2d55';

  // Every 16th of matplotlib's viridis.
  const viridis = [
    [68, 1, 84], [72, 26, 108], [71, 47, 125], [65, 68, 135], [57, 86, 140], [49, 104, 142], [42, 120, 142],
    [35, 136, 142], [31, 152, 139], [34, 168, 132], [53, 183, 121], [84, 197, 104], [122, 209, 81], [165, 219, 54],
    [210, 226, 27], [253, 231, 37],
  ];

  /** Return viridis at 0 to 1 as [red, green, blue]. */
  viewer.viridis = (t) => {
    const at = Math.min(Math.max(t, 0), 1) * 15, i = Math.min(Math.floor(at), 14), f = at - i;
    return viridis[i].map((v, c) => Math.round(v + (viridis[i + 1][c] - v) * f));
  };
  viewer.css = (rgb) => `rgb(${rgb.join(',')})`;
  viewer.groupColor = (group) => viewer.GROUPS[group % viewer.GROUPS.length];
})();
