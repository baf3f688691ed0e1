"""Write recorded layers as one HTML page that computes the attention of the query that is clicked.

The page holds queries, keys and bias tables in half precision, and coordinates in float32, as base64 text. Blocks whose
queries and keys would make it too large are shown without attention.
"""

import base64
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from .affine import Array
from .attention_data import AttentionLayer, DeformableLayer, LocalLayer, ReductionLayer
from .layer_data import Layer, PatchLayer, PointsLayer
from .overlay import Overlay
from .recording import Box, Recording

SOURCES = Path(__file__).parent / 'page'
SCRIPTS = ('arrays.js', 'attention.js', 'shapes.js', 'views.js', 'app.js', 'controls.js')
_LONGEST_SIDE = 1600  # of the image in the page; coordinates stay those of the image
_ORDER = ('deformable_detr', 'deformable', 'deformable_patch', 'spatial_reduction', 'neighborhood')


@dataclass
class View:
    """A view of a recorded layer, in the page and in figures.

    Attributes:
        layer: Index of the layer.
        query: (x, y) in pixels of the image.
        mode: One of the layer's ``modes``.
        head: Index of a head; None for the mean.
        group: Index of a group; None for all.
        top: Number of sampling locations, the strongest.
    """

    layer: int
    query: tuple[float, float]
    mode: str = 'query'
    head: int | None = None
    group: int | None = None
    top: int = 100

    @classmethod
    def of(cls, recording: Recording) -> 'View':
        """Return the view of the last deformable layer, if possible of stage 3."""
        layers = recording.layers
        order = [0 if x.kind == 'deformable' else _ORDER.index(x.kind) if x.kind in _ORDER else 9 for x in layers]
        first = max(range(len(layers)), key=lambda i: (-order[i], -abs(layers[i].stage - 3), i))
        return cls(first, recording.default_query())


class _Arrays:
    """The arrays of a page, as base64 text."""

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []

    @property
    def size(self) -> int:
        return sum(len(entry['text']) + 80 for entry in self.entries)

    def add(self, array: Array, dtype: str) -> str:
        """Add an array as ``f16``, ``f32`` or ``u8`` and return its id."""
        numpy_dtype = {'f16': '<f2', 'f32': '<f4', 'u8': 'u1'}[dtype]
        text = base64.b64encode(np.ascontiguousarray(array).astype(numpy_dtype).tobytes()).decode()
        self.entries.append(dict(id=f'array-{len(self.entries)}', dtype=dtype, text=text))
        return self.entries[-1]['id']


def build_page(
    recording: Recording,
    view: View,
    model: str,
    subtitle: str = '',
    file: str = 'attention',
    overlay: Overlay | None = None,
    max_bytes: int = 30_000_000,
    keep: Collection[int] = (),
) -> str:
    """Return the page.

    Args:
        recording: The recorded layers, with the image.
        view: What is shown first.
        model: Name of the model.
        subtitle: Config, checkpoint and image.
        file: Beginning of the names of saved images.
        overlay: Predictions to lay over the image.
        max_bytes: Limit of the size of the page; decides which blocks have attention.
        keep: Indices of the layers that have attention, instead.

    Raises:
        ValueError: There is no image, or a number is not finite.
    """
    if recording.image is None:
        raise ValueError('a page needs an image; record a path or an array')
    arrays, recorded, overlay = _Arrays(), recording.layers, overlay or Overlay()
    layers = [_layer_data(layer, recording, arrays, overlay.names) for layer in recorded]
    page: dict[str, Any] = dict(
        model=model,
        file=file,
        width=recording.size[1],
        height=recording.size[0],
        input=recording.input_box,
        padded=recording.padded_box,
        inputSize=recording.input_size,
        image=_url(Image.fromarray(recording.image), 'JPEG'),
        predictions=_predictions(overlay),
        layers=layers,
    )
    sources = {path.name: path.read_text(encoding='utf-8') for path in SOURCES.iterdir()}
    rest = max_bytes - 100_000 - len(json.dumps(page)) - sum(map(len, sources.values()))
    for i in keep or _by_importance(recorded):
        layer, held = recorded[i], layers[i]
        if isinstance(layer, AttentionLayer) and (keep or arrays.size + _text_size(layer.q, layer.k) <= rest):
            held['arrays'] |= dict(q=arrays.add(layer.q, 'f16'), k=arrays.add(layer.k, 'f16'))
        elif isinstance(layer, PointsLayer):
            # Of an encoder, from the first level on that leaves the page small enough. Half precision is coarser than
            # a pixel beyond 2048.
            for start in layer.level_starts() if layer.is_encoder else [0]:
                locations, weights = layer.locations[start:], layer.weights[start:]
                if keep or arrays.size + 2 * _text_size(locations) + _text_size(weights) <= rest:
                    held['arrays'] |= dict(locations=arrays.add(locations, 'f32'), weights=arrays.add(weights, 'f16'))
                    held['firstQuery'] = start
                    break
        held['held'] = isinstance(layer, PatchLayer) or not {'q', 'weights'}.isdisjoint(held['arrays'])
    page['initial'] = dict(asdict(view), object=0, level=0)
    for i, layer in sorted(enumerate(recorded), key=lambda item: item[0] == view.layer):  # the shown one counts
        if isinstance(layer, PointsLayer):
            index = layer.query_index(*view.query)
            if layer.is_encoder:  # the finest level may be one that the page does not hold
                page['initial']['level'] = layer.level_of(
                    min(max(index, layers[i]['firstQuery']), layers[i]['queries'] - 1)
                )
            else:
                page['initial']['object'] = index
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(sources['template.html']).render(
        model=model,
        subtitle=subtitle,
        css=Markup(sources['viewer.css']),
        scripts=[Markup(sources[name]) for name in SCRIPTS],
        page=jinja2.utils.htmlsafe_json_dumps(page, partial(json.dumps, allow_nan=False)),
        arrays=arrays.entries,
    )


def _url(image: Image.Image, kind: str) -> str:
    """Return an image as a data URL; photographs are made smaller if they are large."""
    if kind == 'JPEG':
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    data = io.BytesIO()
    image.save(data, kind, quality=90)
    return f'data:image/{kind.lower()};base64,' + base64.b64encode(data.getvalue()).decode()


def _predictions(overlay: Overlay) -> dict[str, Any]:
    url = None
    if overlay.ranks is not None:
        image = Image.fromarray(overlay.ranks, mode='P')
        image.putpalette(bytes.fromhex(''.join(entry['color'][1:] for entry in overlay.classes)))
        url = _url(image, 'PNG')
    return dict(objects=overlay.objects, map=url, classes=overlay.classes, best=overlay.best)


def _layer_data(layer: Layer, recording: Recording, arrays: _Arrays, names: Sequence[str]) -> dict[str, Any]:
    """Return what the page holds of every layer: everything but queries and keys."""
    keys = ('kind', 'stage', 'block', 'name', 'part', 'modes')
    out: dict[str, Any] = {key: getattr(layer, key) for key in keys}
    out |= dict(queryGrid=layer.query_grid, scale=layer.to_image.scale, shift=layer.to_image.shift, heads=1, groups=1)
    held: dict[str, tuple[Array, str]] = {}
    if isinstance(layer, PatchLayer):
        held = dict(boxes=(layer.boxes, 'f32'), points=(layer.points, 'f32'), border=(layer.border, 'u8'))
    elif isinstance(layer, PointsLayer):
        held, count = dict(reference=(layer.reference, 'f32')), len(layer.reference)
        out |= dict(
            heads=layer.heads,
            levels=layer.levels,
            points=layer.weights.shape[-1],
            queries=count,
            isEncoder=layer.is_encoder,
            firstQuery=count,
        )
        if layer.boxes is not None and layer.scores is not None and layer.labels is not None:
            held['boxes'] = (layer.boxes, 'f32')
            pairs = zip(layer.labels.tolist(), layer.scores.round(4).tolist(), strict=True)
            out['objects'] = [dict(label=names[label], score=score) for label, score in pairs]
    elif isinstance(layer, AttentionLayer):
        out |= dict(heads=layer.heads, groups=layer.groups, headDim=layer.q.shape[-1], extra=layer.extra)
        if isinstance(layer, DeformableLayer):
            # Normalized for the bias, because pixels do not tell a location on an axis of one pixel.
            held = {key: (getattr(layer, key), 'f32') for key in ('reference', 'locations', 'normalized')}
            held['border'] = (layer.border, 'u8')
            out |= dict(keyGrid=layer.key_grid, convention=layer.convention, clamped=layer.clamped)
            out |= dict(queryY=layer.query_y.tolist(), queryX=layer.query_x.tolist())
        elif isinstance(layer, LocalLayer):
            out |= dict(size=layer.size, spans=[layer.spans(axis).tolist() for axis in (0, 1)])
        elif isinstance(layer, ReductionLayer):
            held = dict(boxes=(layer.boxes, 'f32'))
            out |= dict(keyGrid=layer.key_grid)
        if (table := getattr(layer, 'table', None)) is not None:
            held['table'] = (table, 'f16')
            out['tableSize'] = table.shape[1:]
    if 'received' in layer.modes:
        out['receivedBox'], maps = received_maps(layer, recording)
        held['received'], out['receivedSize'] = (maps, 'f16'), maps.shape[1:]
    return out | dict(
        arrays={key: arrays.add(*value) for key, value in held.items()}, held=isinstance(layer, PatchLayer)
    )


def received_maps(layer: Layer, recording: Recording) -> tuple[Box, Array]:
    """Return the attention that keys receive as maps (heads, height, width), and their box in the image."""
    if isinstance(layer, PointsLayer):
        return recording.padded_box, layer.received_map(recording.padded_box)
    assert isinstance(layer, AttentionLayer)
    h, w = layer.query_grid
    x0, y0, x1, y1 = layer.to_image(np.array([(-0.5, -0.5), (w - 0.5, h - 0.5)])).ravel().tolist()
    if isinstance(layer, ReductionLayer):
        (x0, y0), (x1, y1) = layer.boxes[0, :2].tolist(), layer.boxes[-1, 2:].tolist()
    return (x0, y0, x1, y1), layer.received_map()


def _text_size(*arrays: Array) -> int:
    """Return the size of arrays in half precision as base64 text."""
    return sum(array.size * 2 * 4 // 3 + 100 for array in arrays)


def _by_importance(layers: Sequence[Layer]) -> list[int]:
    """Return the order in which layers get attention: the last block of each kind in each stage, then those before."""
    later = [sum(a.kind == x.kind and a.stage == x.stage for a in layers[i + 1 :]) for i, x in enumerate(layers)]
    kinds = [_ORDER.index(x.kind) if x.kind in _ORDER else len(_ORDER) for x in layers]
    return sorted(range(len(layers)), key=lambda i: (later[i], kinds[i], -layers[i].stage))
