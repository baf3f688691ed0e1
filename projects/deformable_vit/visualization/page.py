"""Write recorded layers as one HTML page that computes the attention of the query that is clicked.

The page holds queries, keys and bias tables in half precision, and coordinates in float32, as base64 text. Blocks whose
queries and keys would make it too large are shown without attention.
"""

import base64
import io
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from .affine import Array
from .layers import AttentionLayer, DeformableLayer, Layer, LocalLayer, PatchLayer, PointsLayer, ReductionLayer
from .modes import check_mode, modes_of
from .predictions import Predictions, color_of, rank_colors, ranked
from .record import Recording

SOURCES = Path(__file__).parent / 'page'
SCRIPTS = ('arrays.js', 'attention.js', 'colors.js', 'shapes.js', 'views.js', 'points.js', 'app.js', 'controls.js')
_LONGEST_SIDE = 1600  # of the image in the page; coordinates stay those of the image
_FIRST = ('deformable', 'deformable_detr', 'deformable_patch', 'spatial_reduction', 'neighborhood', 'shifted_window')
_KIND_ORDER = ('deformable', 'spatial_reduction', 'neighborhood', 'shifted_window', 'window')


@dataclass
class PageInfo:
    """Texts of the page, and the view that it shows first.

    Attributes:
        model: Name of the model.
        subtitle: Config, checkpoint and image.
        weights: Where the weights come from.
        file: Beginning of the names of saved images.
        query: (x, y) in pixels of the image; None for :meth:`.Recording.default_query`.
        layer: Index of the layer that is shown first; None for the last deformable one.
        head: Index of a head; None for the mean.
        group: Index of a group; None for all.
        mode: One of :func:`.modes_of` the layer.
        top: Number of sampling locations.
    """

    model: str
    subtitle: str = ''
    weights: str = ''
    file: str = 'attention'
    query: tuple[float, float] | None = None
    layer: int | None = None
    head: int | None = None
    group: int | None = None
    mode: str = 'query'
    top: int = 100

    def first(self, layers: Sequence[Layer]) -> int:
        """Return the layer that is shown first: ``layer``, else the last deformable one, if possible of stage 3."""
        if self.layer is not None:
            return self.layer
        order = [_FIRST.index(x.kind) if x.kind in _FIRST else len(_FIRST) for x in layers]
        return max(range(len(layers)), key=lambda i: (-order[i], -abs(layers[i].stage - 3), i))


@dataclass
class _Arrays:
    """The arrays of a page, as base64 text."""

    entries: list[dict[str, str]] = field(default_factory=list)
    size: int = 0

    def add(self, array: Array, dtype: str) -> str:
        """Add an array as ``f16``, ``f32`` or ``u8`` and return its id."""
        numpy_dtype = {'f16': '<f2', 'f32': '<f4', 'u8': 'u1'}[dtype]
        text = base64.b64encode(np.ascontiguousarray(array).astype(numpy_dtype).tobytes()).decode()
        self.size += len(text) + 80
        self.entries.append(dict(id=f'array-{len(self.entries)}', dtype=dtype, text=text))
        return self.entries[-1]['id']


def build_page(
    recording: Recording,
    info: PageInfo,
    predictions: Predictions | None = None,
    max_bytes: int = 30_000_000,
    keep: Collection[int] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Return the page.

    Args:
        recording: The recorded layers, with the image.
        info: Texts, and the view that is shown first.
        predictions: Boxes, masks or label map to lay over the image.
        max_bytes: Limit of the size of the page; decides which blocks have attention.
        keep: Indices of the layers that have attention, instead.
        progress: Called with the number of layers done and their number.

    Raises:
        ValueError: There is no image, no layer to show or no such mode, or a number is not finite.
    """
    if recording.image is None or not recording.layers:
        raise ValueError('a page needs an image and at least one layer; record a path or an array')
    check_mode(recording.layers[info.first(recording.layers)], info.mode)
    arrays, layers = _Arrays(), []
    for i, layer in enumerate(recording.layers):
        layers.append(_geometry(layer, arrays))
        progress(i + 1, len(recording.layers))
    predictions = predictions or Predictions()
    page = dict(
        model=info.model,
        weights=info.weights,
        file=info.file,
        width=recording.size[1],
        height=recording.size[0],
        input=recording.input_box,
        padded=recording.padded_box,
        inputSize=recording.input_size,
        image=image_url(recording.image),
        predictions=_predictions(predictions),
        layers=layers,
    )
    budget = max_bytes - 100_000 - len(json.dumps(page)) - sum(len(_source(name)) for name in SCRIPTS)
    for i in keep or _by_importance(recording.layers):
        layer = recording.layers[i]
        if isinstance(layer, AttentionLayer) and (keep or arrays.size + _text_size(layer.q, layer.k) <= budget):
            layers[i]['arrays'] |= dict(q=arrays.add(layer.q, 'f16'), k=arrays.add(layer.k, 'f16'))
        elif isinstance(layer, PointsLayer):
            _add_points(layer, layers[i], arrays, math.inf if keep else budget)
        layers[i]['held'] = bool({'q', 'weights'} & set(layers[i]['arrays'])) or isinstance(layer, PatchLayer)
    for layer, data in zip(recording.layers, layers, strict=True):
        data.setdefault('held', isinstance(layer, PatchLayer))
        if isinstance(layer, PointsLayer) and not layer.is_encoder:
            data['objects'] = _objects(layer, predictions)
    page['initial'] = _initial(recording, info, layers)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_source('template.html')).render(
        title=f'{info.model}: attention',
        model=info.model,
        subtitle=info.subtitle,
        css=Markup(_source('viewer.css')),
        scripts=[Markup(_source(name)) for name in SCRIPTS],
        page=jinja2.utils.htmlsafe_json_dumps(page, partial(json.dumps, allow_nan=False)),
        arrays=arrays.entries,
    )


def _initial(recording: Recording, info: PageInfo, held: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of the page when it is opened; the queries are those of a figure and of the JSON file.

    Args:
        recording: The recorded layers.
        info: The view that is shown first.
        held: For each layer, what the page holds of it.
    """
    layers, query = recording.layers, info.query or recording.default_query()
    first = info.first(layers)
    points = [i for i, layer in enumerate(layers) if isinstance(layer, PointsLayer)]
    points.sort(key=lambda i: i == first)  # the shown one counts
    state = dict(object=0, level=0)
    for i in points:
        layer = layers[i]
        assert isinstance(layer, PointsLayer)
        index = layer.query_index(*query)
        if layer.is_encoder:
            # The finest level may be one that the page does not hold.
            index = max(index, held[i]['firstQuery']) if held[i]['held'] else index
            state['level'] = layer.level_of(index)
        else:
            state['object'] = index
    return state | dict(
        layer=first,
        mode=info.mode,
        query=query,
        head='all' if info.head is None else info.head,
        group='all' if info.group is None else info.group,
        top=info.top,
    )


@cache
def _source(name: str) -> str:
    return (SOURCES / name).read_text(encoding='utf-8')


def image_url(image: Array, longest_side: int = _LONGEST_SIDE) -> str:
    """Return an RGB image as a data URL, smaller if it is large."""
    pil = Image.fromarray(image)
    pil.thumbnail((longest_side, longest_side))
    data = io.BytesIO()
    pil.save(data, 'JPEG', quality=90)
    return 'data:image/jpeg;base64,' + base64.b64encode(data.getvalue()).decode()


def _predictions(predictions: Predictions) -> dict[str, Any]:
    url, classes = None, []
    if predictions.label_map is not None:
        labels, ranks = ranked(predictions.label_map)
        colors, data = rank_colors(len(labels)), io.BytesIO()
        image = Image.fromarray(ranks, mode='P')
        image.putpalette(bytes.fromhex(''.join(color[1:] for color in colors)))
        image.save(data, 'PNG')
        url = 'data:image/png;base64,' + base64.b64encode(data.getvalue()).decode()
        names = [predictions.name(int(label)) for label in labels]
        classes = [dict(name=name, color=color) for name, color in zip(names, colors, strict=True)]
    objects = [dict(o, color=color_of(o['class_index'])) for o in predictions.objects]
    return dict(objects=objects, map=url, classes=classes, best=predictions.best)


def _geometry(layer: Layer, arrays: _Arrays) -> dict[str, Any]:
    """Return what the page holds of every layer: everything but queries and keys."""
    out: dict[str, Any] = dict(
        kind=layer.kind,
        stage=layer.stage,
        block=layer.block,
        name=layer.name,
        part=layer.part,
        modes=modes_of(layer),
        queryGrid=layer.query_grid,
        scale=layer.to_image.scale,
        shift=layer.to_image.shift,
        heads=1,
        groups=1,
        extra=0,
        isEncoder=False,
    )
    if isinstance(layer, PatchLayer):
        ids = dict(boxes=(layer.boxes, 'f32'), points=(layer.points, 'f32'), border=(layer.border, 'u8'))
        return out | dict(arrays={name: arrays.add(*value) for name, value in ids.items()})
    if isinstance(layer, PointsLayer):
        out |= dict(heads=layer.heads, levels=layer.levels, points=layer.weights.shape[-1])
        out |= dict(queries=len(layer.reference), isEncoder=layer.is_encoder, firstQuery=len(layer.reference))
        return out | dict(arrays=dict(reference=arrays.add(layer.reference[:, :2], 'f32')))
    assert isinstance(layer, AttentionLayer)
    # Half precision has no room for 1 / 4200: relative to an even distribution.
    held = dict(received=arrays.add(layer.received() * layer.k.shape[1], 'f16'))
    out |= dict(heads=layer.heads, headDim=layer.q.shape[-1], keyGrid=layer.key_grid, extra=layer.extra)
    if isinstance(layer, DeformableLayer):
        # Normalized, because pixels do not tell a location on an axis of one pixel; the page computes pixels from it.
        held |= dict(reference=arrays.add(layer.reference, 'f32'), normalized=arrays.add(layer.normalized, 'f32'))
        held |= dict(border=arrays.add(layer.border, 'u8'))
        out |= dict(groups=layer.groups, convention=layer.convention, clamped=layer.clamped)
        out |= dict(queryY=layer.query_y.tolist(), queryX=layer.query_x.tolist())
        if layer.table is not None:
            held |= dict(table=arrays.add(layer.table, 'f16'))
            out |= dict(tableSize=layer.table.shape[1:])
    elif isinstance(layer, LocalLayer):
        held |= dict(table=arrays.add(layer.table, 'f16'))
        out |= dict(size=layer.size, windowShift=layer.shift)
    elif isinstance(layer, ReductionLayer):
        held |= dict(cells=arrays.add(layer.cells, 'f32'))
    return out | dict(arrays=held)


def _add_points(layer: PointsLayer, data: dict[str, Any], arrays: _Arrays, budget: float) -> None:
    """Add sampling locations and weights; of an encoder from the first level on that leaves the page small enough."""
    starts = [0] if not layer.is_encoder else [start for start, _ in layer.level_slices()]
    for start in starts:
        # Half precision is coarser than a pixel beyond 2048.
        if arrays.size + _text_size(layer.locations[start:]) * 2 + _text_size(layer.weights[start:]) <= budget:
            data['arrays'] |= dict(
                locations=arrays.add(layer.locations[start:], 'f32'), weights=arrays.add(layer.weights[start:], 'f16')
            )
            data['firstQuery'] = start
            break
    if layer.boxes is not None:
        data['arrays'] |= dict(boxes=arrays.add(layer.boxes, 'f32'))


def _objects(layer: PointsLayer, predictions: Predictions) -> list[dict[str, Any]]:
    count = len(layer.reference)
    if layer.labels is None or layer.scores is None:
        return [dict(label='object', score=0.0)] * count
    pairs = zip(layer.labels.tolist(), layer.scores.tolist(), strict=True)
    return [dict(label=predictions.name(label), score=round(score, 4)) for label, score in pairs]


def _text_size(*arrays: Array) -> int:
    """Return the size of arrays in half precision as base64 text."""
    return sum(array.size * 2 * 4 // 3 + 100 for array in arrays)


def _by_importance(layers: Sequence[Layer]) -> list[int]:
    """Return the order in which layers get attention: the last block of each kind in each stage, then those before."""
    ranks = []
    for i, layer in enumerate(layers):
        later = sum(a.kind == layer.kind and a.stage == layer.stage for a in layers[i + 1 :])
        kind = _KIND_ORDER.index(layer.kind) if layer.kind in _KIND_ORDER else -1
        ranks.append((-1 if kind < 0 and later == 0 else later, kind, -layer.stage, i))
    return [i for *_, i in sorted(ranks)]
