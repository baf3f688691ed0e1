"""Drawn scenes: textured shapes, rotated, scaled, sheared, bent and overlapping, before textured backgrounds.

Colour and texture say nothing of the class, and no two outlines of a class are the same, so that a model has to follow
the outline. All coordinates are (x, y) in pixels with the origin at the top left corner of the picture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

Outline = list[np.ndarray]  # closed curves of (points, 2); inside is what an odd number of them surrounds

_SUBPIXEL_BITS = 4
_FINER = 4
_MIN_VISIBLE = 0.75


def _polygon(corners: np.ndarray, per_side: int = 12) -> np.ndarray:
    """Corners -> a curve with points along each side, so that bending bends the sides too."""
    steps = np.linspace(0, 1, per_side, endpoint=False)[:, None]
    sides = [a + steps * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    return np.concatenate(sides)


def _on_circle(count: int, radii: tuple[float, ...] = (1.0,)) -> np.ndarray:
    angles = np.arange(count) * 2 * np.pi / count - np.pi / 2
    radius = np.resize(radii, count)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


# Outlines of about unit radius around the origin.
_OUTLINES: dict[str, Outline] = {
    'disc': [_on_circle(72)],
    'triangle': [_polygon(1.15 * _on_circle(3))],
    'square': [_polygon(np.array([[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]]))],
    'star': [_polygon(1.2 * _on_circle(10, (1.0, 0.42)))],
    'ring': [_on_circle(72), 0.55 * _on_circle(72)],
}
CLASSES = tuple(_OUTLINES)


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        labels: The class of each shape, an index into ``CLASSES``, from the farthest to the nearest.
        masks: (N, H, W) bool, the visible pixels of each shape; they do not overlap.
        clutter: (H, W) bool, visible pixels of strokes that belong to no class.
    """

    image: np.ndarray
    labels: tuple[int, ...]
    masks: np.ndarray
    clutter: np.ndarray


def deform(outline: Outline, rng: Generator, centre: tuple[float, float], radius: float) -> Outline:
    """Bend, stretch, shear, rotate and place an outline of unit radius."""
    bend, shear, stretch = rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25), np.exp(rng.uniform(-0.25, 0.25))
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[stretch, shear], [0, 1 / stretch]])
    curves = []
    for curve in outline:
        bent = np.stack([curve[:, 0] + bend * curve[:, 1] ** 2, curve[:, 1]], axis=1)
        curves.append(radius * bent @ matrix.T + np.asarray(centre))
    return curves


def rasterise(outline: Outline, height: int, width: int) -> np.ndarray:
    """(H, W) float32 in [0, 1]: how much of each pixel the outline covers."""
    canvas = np.zeros((_FINER * height, _FINER * width), np.float32)
    # Pixel i is centred at i, in the fine grid too. cv2 fills what the outline touches: draw larger, then average.
    fine = [(curve + 0.5) * _FINER - 0.5 for curve in outline]
    points = [np.round(curve * 2**_SUBPIXEL_BITS).astype(np.int32) for curve in fine]
    cv2.fillPoly(canvas, points, 1.0, shift=_SUBPIXEL_BITS)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def _noise(rng: Generator, height: int, width: int, cells: int) -> np.ndarray:
    """(H, W, 3) smooth noise of about unit amplitude with ``cells`` bumps along the shorter side."""
    grid = rng.normal(size=(cells + 2, cells + 2, 3)).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def _stripes(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 1) waves in [-1, 1] of random direction and period."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 14)
    y, x = np.mgrid[:height, :width]
    phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period
    return np.sin(phase + rng.uniform(0, 6))[..., None].astype(np.float32)


def _texture(rng: Generator, height: int, width: int, colour: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32 around a colour: smooth patches, grain, and sometimes stripes."""
    out = colour + 10 * _noise(rng, height, width, int(rng.integers(2, 6))) + 3 * rng.normal(size=(height, width, 3))
    if rng.random() < 0.5:
        out = out + rng.uniform(4, 10) * _stripes(rng, height, width)
    return out.astype(np.float32)


def _dark(rng: Generator) -> np.ndarray:
    """A colour for a background or clutter."""
    return rng.uniform(20, 110, size=3)


def _bright(rng: Generator) -> np.ndarray:
    """A colour for a shape: what is a shape is quickly learnt, which one it is and where it ends is not."""
    return rng.uniform(110, 240, size=3)


def _strokes(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Draw a few thin lines into ``image``; returns their pixels, (H, W) bool."""
    height, width = image.shape[:2]
    drawn = np.zeros((height, width), bool)
    for _ in range(int(rng.integers(0, 3))):
        points = rng.uniform(0, 1, size=(4, 2)) * (width, height)
        line = np.zeros((height, width), np.uint8)
        cv2.polylines(line, [points.astype(np.int32)], False, 255, int(rng.integers(1, 3)), cv2.LINE_AA)
        alpha = line[..., None].astype(np.float32) / 255
        image[:] = image * (1 - alpha) + _dark(rng) * alpha
        drawn |= line > 127
    return drawn


def _place(
    rng: Generator, masks: list[np.ndarray], areas: list[int], draw: Callable[[], np.ndarray]
) -> np.ndarray | None:
    """A coverage map that leaves half of each earlier shape in sight, or ``None`` after some tries."""
    for _ in range(20):
        coverage = draw()
        inside = coverage > 0.5
        if all((mask & ~inside).sum() >= _MIN_VISIBLE * area for mask, area in zip(masks, areas, strict=True)):
            return coverage
    return None


def draw_scene(rng: Generator, height: int, width: int, max_shapes: int = 5) -> Scene:
    """A scene of 1 to ``max_shapes`` shapes, each at least half visible."""
    image = _texture(rng, height, width, _dark(rng))
    clutter = _strokes(rng, image)
    labels: list[int] = []
    masks: list[np.ndarray] = []
    areas: list[int] = []
    for _ in range(int(rng.integers(1, max_shapes + 1))):
        label = int(rng.integers(len(CLASSES)))

        def draw(label: int = label) -> np.ndarray:
            radius = min(height, width) * rng.uniform(0.15, 0.25)
            centre = tuple(rng.uniform(0.9 * radius, edge - 0.9 * radius) for edge in (width, height))
            return rasterise(deform(_OUTLINES[CLASSES[label]], rng, centre, radius), height, width)

        coverage = _place(rng, masks, areas, draw)
        if coverage is None:
            continue
        inside = coverage > 0.5
        masks = [mask & ~inside for mask in masks]
        clutter &= ~inside
        labels.append(label)
        masks.append(inside)
        areas.append(int(inside.sum()))
        fill = _texture(rng, height, width, _bright(rng))
        image = image * (1 - coverage[..., None]) + fill * coverage[..., None]
    return Scene(np.clip(image, 0, 255).astype(np.uint8), tuple(labels), np.stack(masks), clutter)


def draw_portrait(rng: Generator, label: int, size: int) -> np.ndarray:
    """(size, size, 3) uint8, BGR: one shape that fills most of the picture, for classification."""
    image = _texture(rng, size, size, _dark(rng))
    _strokes(rng, image)
    centre = tuple(rng.uniform(0.42, 0.58, size=2) * size)
    coverage = rasterise(deform(_OUTLINES[CLASSES[label]], rng, centre, size * rng.uniform(0.24, 0.36)), size, size)
    fill = _texture(rng, size, size, _bright(rng))
    image = image * (1 - coverage[..., None]) + fill * coverage[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)
