"""What the tests of the attention page share: recordings of small models, and clicks in the page."""

import numpy as np
import torch
from browser import Browser
from small_models import build_small

from deformable_vit.visualization import Affine, PointsLayer, Recording, record


def move_offsets(model: torch.nn.Module) -> torch.nn.Module:
    """Make everything that starts with zeros or nearly so large enough to matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ('offset', 'rpe_table', 'bias_table', 'rpb', 'sampling_offsets')):
                parameter.normal_(std=0.5)
    return model.eval()


def recording_of(*names: str, cells: tuple[int, int] = (6, 10)) -> Recording:
    """Record small backbones, one after the other, as one model, on an image of rows x columns of 16 x 16 pixels."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (*cells, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 64 - 2
    recordings = [record(move_offsets(build_small(name)), pixels) for name in names]
    whole = recordings[0]
    whole.image = image
    whole.layers = [layer for r in recordings for layer in r.layers]
    for i, layer in enumerate(whole.layers):
        layer.name = f'{i}.{layer.name}'
    return whole


def points_layer(encoder: bool) -> PointsLayer:
    """Return made-up sampling locations over two levels."""
    levels = ((6, 10), (3, 5))
    if encoder:
        grids = [np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).reshape(-1, 2) for h, w in levels]
        reference = np.concatenate([(g + 0.5) * s - 0.5 for g, s in zip(grids, (16, 32), strict=True)])
    else:
        reference = np.array([(20.0, 30.0), (100.0, 60.0), (140.0, 20.0)])
    n = len(reference)
    random = np.random.default_rng(1)
    offsets = random.normal(0, 12, (n, 4, 2, 3, 2))
    weights = random.random((n, 4, 2, 3))
    boxes = np.concatenate([reference - 12, reference + 12], axis=1).astype(np.float32)
    return PointsLayer(
        kind='deformable_detr',
        stage=0,
        block=1,
        name='encoder' if encoder else 'decoder',
        query_grid=(1, n),
        to_image=Affine(),
        heads=4,
        groups=4,
        levels=levels,
        locations=(reference[:, None, None, None] + offsets).astype(np.float32),
        weights=(weights / weights.sum((2, 3), keepdims=True)).astype(np.float32),
        reference=reference.astype(np.float32),
        is_encoder=encoder,
        boxes=None if encoder else boxes,
        labels=None if encoder else np.array([0, 1, 0]),
        scores=None if encoder else np.array([0.2, 0.9, 0.5], dtype=np.float32),
    )


def click(browser: Browser, x: float, y: float) -> None:
    """Click a pixel of the image."""
    left, top, scale, tx, ty = browser.js(
        '(() => {const b = document.getElementById("canvas").getBoundingClientRect(), v = viewer.view;'
        'return [b.left, b.top, v.scale, v.tx, v.ty]})()'
    )
    browser.click(left + x * scale + tx, top + y * scale + ty)
