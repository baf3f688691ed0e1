"""Draw synthetic images: textured shapes, deformed and overlapping, in front of textured backgrounds.

Color and texture are independent of the class and no two outlines of a class are equal, so a model has to recognize the
outline. Coordinates are (x, y) in pixels; the origin is the top left corner of the image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# Closed curves of shape (points, 2). A pixel is inside if an odd number of curves surrounds it.
Outline = list[NDArray[Any]]

_SUBPIXEL_BITS = 4
_OVERSAMPLING = 4
_MIN_VISIBLE = 0.75


def _polygon(corners: NDArray[Any], per_side: int = 12) -> NDArray[Any]:
    """Sample points along the sides of a polygon, so that bending it bends the sides too."""
    steps = np.linspace(0, 1, per_side, endpoint=False)[:, None]
    sides = [a + steps * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    return np.concatenate(sides)


def _on_circle(count: int, radii: tuple[float, ...] = (1.0,)) -> NDArray[Any]:
    """Return ``count`` points around the origin, (count, 2), whose radii cycle through ``radii``."""
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
class SyntheticImage:
    """An image and its annotations.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        labels: The class of each shape, an index into ``CLASSES``, from back to front.
        masks: (N, H, W) bool, the visible pixels of each shape; they do not overlap.
        clutter: (H, W) bool, the visible pixels of strokes, which belong to no class.
    """

    image: NDArray[Any]
    labels: tuple[int, ...]
    masks: NDArray[Any]
    clutter: NDArray[Any]


def deform(outline: Outline, rng: Generator, center: tuple[float, float], radius: float) -> Outline:
    """Bend, stretch, shear and rotate an outline of unit radius, scale it to ``radius`` and move it to ``center``."""
    bend, shear, stretch = rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25), np.exp(rng.uniform(-0.25, 0.25))
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[stretch, shear], [0, 1 / stretch]])
    curves = []
    for curve in outline:
        bent = np.stack([curve[:, 0] + bend * curve[:, 1] ** 2, curve[:, 1]], axis=1)
        curves.append(radius * bent @ matrix.T + np.asarray(center))
    return curves


def rasterize(outline: Outline, height: int, width: int) -> NDArray[Any]:
    """Return the fraction of each pixel that the outline covers, (H, W) float32 in [0, 1]."""
    canvas = np.zeros((_OVERSAMPLING * height, _OVERSAMPLING * width), np.float32)
    # Pixel i is centered at i in both resolutions. cv2.fillPoly fills every pixel that it touches: hence oversampling.
    fine = [(curve + 0.5) * _OVERSAMPLING - 0.5 for curve in outline]
    points = [np.round(curve * 2**_SUBPIXEL_BITS).astype(np.int32) for curve in fine]
    cv2.fillPoly(canvas, points, 1.0, shift=_SUBPIXEL_BITS)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def _noise(rng: Generator, height: int, width: int, cells: int) -> NDArray[Any]:
    """Return smooth noise of about unit amplitude, (H, W, 3), with ``cells`` bumps along the shorter side."""
    grid = rng.normal(size=(cells + 2, cells + 2, 3)).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def _stripes(rng: Generator, height: int, width: int) -> NDArray[Any]:
    """Return a sine wave of random direction and period, (H, W, 1) in [-1, 1]."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 14)
    y, x = np.mgrid[:height, :width]
    phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period
    return np.sin(phase + rng.uniform(0, 6))[..., None].astype(np.float32)


def _texture(rng: Generator, height: int, width: int, color: NDArray[Any]) -> NDArray[Any]:
    """Return a texture around ``color``, (H, W, 3) float32: smooth patches, grain and sometimes stripes."""
    out = color + 10 * _noise(rng, height, width, int(rng.integers(2, 6))) + 3 * rng.normal(size=(height, width, 3))
    if rng.random() < 0.5:
        out = out + rng.uniform(4, 10) * _stripes(rng, height, width)
    return out.astype(np.float32)


def _dark(rng: Generator) -> NDArray[Any]:
    """Sample a color for background or clutter."""
    return rng.uniform(20, 110, size=3)


def _bright(rng: Generator) -> NDArray[Any]:
    """Sample a color for a shape: finding shapes is easy, classifying and delineating them is the task."""
    return rng.uniform(110, 240, size=3)


def _strokes(rng: Generator, image: NDArray[Any]) -> NDArray[Any]:
    """Draw up to two thin lines into ``image`` and return their pixels, (H, W) bool."""
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


def _try_to_place(
    masks: list[NDArray[Any]], areas: list[int], draw: Callable[[], NDArray[Any]], attempts: int = 20
) -> NDArray[Any] | None:
    """Draw a shape until enough of every earlier one stays visible.

    Args:
        masks: The visible pixels of the earlier shapes.
        areas: Their areas before anything was drawn over them.
        draw: Returns the coverage of a random shape, (H, W).
        attempts: How often to draw.

    Returns:
        The coverage, (H, W), or ``None`` if all attempts fail.
    """
    for _ in range(attempts):
        coverage = draw()
        inside = coverage > 0.5
        if all((mask & ~inside).sum() >= _MIN_VISIBLE * area for mask, area in zip(masks, areas, strict=True)):
            return coverage
    return None


def draw_image(rng: Generator, height: int, width: int, max_shapes: int = 5) -> SyntheticImage:
    """Draw 1 to ``max_shapes`` shapes, each at least three quarters visible."""
    image = _texture(rng, height, width, _dark(rng))
    clutter = _strokes(rng, image)
    labels: list[int] = []
    masks: list[NDArray[Any]] = []
    areas: list[int] = []
    for _ in range(int(rng.integers(1, max_shapes + 1))):
        label = int(rng.integers(len(CLASSES)))

        def draw(label: int = label) -> NDArray[Any]:
            radius = min(height, width) * rng.uniform(0.15, 0.25)
            x, y = (rng.uniform(0.9 * radius, size - 0.9 * radius) for size in (width, height))
            return rasterize(deform(_OUTLINES[CLASSES[label]], rng, (x, y), radius), height, width)

        coverage = _try_to_place(masks, areas, draw)
        if coverage is None:
            continue
        inside = coverage > 0.5
        masks = [mask & ~inside for mask in masks]
        clutter &= ~inside
        labels.append(label)
        masks.append(inside)
        areas.append(int(inside.sum()))
        image = _blend(image, _texture(rng, height, width, _bright(rng)), coverage)
    return SyntheticImage(np.clip(image, 0, 255).astype(np.uint8), tuple(labels), np.stack(masks), clutter)


def draw_object(rng: Generator, label: int, size: int) -> NDArray[Any]:
    """Draw one shape that fills most of the image, for classification: (size, size, 3) uint8, BGR."""
    image = _texture(rng, size, size, _dark(rng))
    _strokes(rng, image)
    x, y = rng.uniform(0.42, 0.58, size=2) * size
    coverage = rasterize(deform(_OUTLINES[CLASSES[label]], rng, (x, y), size * rng.uniform(0.24, 0.36)), size, size)
    image = _blend(image, _texture(rng, size, size, _bright(rng)), coverage)
    return np.clip(image, 0, 255).astype(np.uint8)


def _blend(image: NDArray[Any], fill: NDArray[Any], coverage: NDArray[Any]) -> NDArray[Any]:
    """Draw ``fill`` over ``image``, both (H, W, 3), with the opacity ``coverage``, (H, W)."""
    return image * (1 - coverage[..., None]) + fill * coverage[..., None]
