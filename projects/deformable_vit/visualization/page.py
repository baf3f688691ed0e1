"""Write recorded layers as one HTML page that computes the attention of the query that is clicked.

The page holds queries, keys and bias tables in half precision, and coordinates in float32, as base64 text. Blocks that
would make it too large are left out.
"""

import base64
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib import colormaps, colors
from PIL import Image

from .affine import Array
from .layer_data import Layer
from .recording import Recording

SOURCES = Path(__file__).parent / 'page'
_LONGEST_SIDE = 1600  # of the image in the page; coordinates stay those of the image
_KINDS = (
    'deformable',
    'deformable_detr',
    'deformable_patch',
    'spatial_reduction',
    'neighborhood',
    'shifted_window',
    'window',
)


@dataclass
class View:
    """A view of a recorded layer, in the page and in figures.

    Attributes:
        layer: Index of the layer.
        query: (x, y) in pixels of the image.
        head: Index of a head; None for the mean.
        group: Index of a group; None for all.
        top: Number of sampling locations, the strongest.
    """

    layer: int
    query: tuple[float, float]
    head: int | None = None
    group: int | None = None
    top: int = 100

    @classmethod
    def of(cls, recording: Recording) -> 'View':
        """Return the view of the last deformable layer, if possible of stage 3."""
        order = [(_KINDS.index(x.kind), abs(x.stage - 3), -i) for i, x in enumerate(recording.layers)]
        return cls(order.index(min(order)), recording.default_query())


def build_page(
    recording: Recording,
    view: View,
    model: str,
    subtitle: str = '',
    names: Sequence[str] = (),
    drawn: Array | None = None,
    max_bytes: int = 30_000_000,
    keep: Collection[int] = (),
) -> str:
    """Return the page.

    Args:
        recording: The recorded layers, with the image.
        view: What is shown first.
        model: Name of the model.
        subtitle: Config, checkpoint and image.
        names: Names of the classes.
        drawn: (height, width, 3), RGB, the image with the predictions drawn into it.
        max_bytes: Limit of the size of all layers but the first; decides which blocks the page has.
        keep: Indices of the layers that the page has beside the one that is shown first, instead.

    Raises:
        ValueError: There is no image, or a number is not finite.
    """
    if recording.image is None:
        raise ValueError('a page needs an image; record a path or an array')
    recorded, rest = {i: _page_data(x, names) for i, x in enumerate(recording.layers)}, max_bytes
    sizes = {i: sum(v.nbytes for v in x.values() if isinstance(v, np.ndarray)) * 4 // 3 for i, x in recorded.items()}
    held = {view.layer, *keep}
    for i in () if keep else _by_importance(recording.layers, sizes):
        if i not in held and sizes[i] <= rest:
            held.add(i)
            rest -= sizes[i]
    page: dict[str, Any] = dict(
        width=recording.size[1],
        height=recording.size[0],
        seen=recording.input_box,
        image=_url(recording.image),
        drawn=None if drawn is None else _url(drawn),
        colors=[colors.to_hex(c) for c in colormaps['viridis'](np.linspace(0, 1, 64))],
        layers=[recorded[i] for i in sorted(held)],
        initial=dict(asdict(view), layer=sorted(held).index(view.layer)),
    )
    sources = {path.name: path.read_text(encoding='utf-8') for path in SOURCES.iterdir()}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(sources['template.html']).render(
        model=model,
        subtitle=subtitle,
        css=Markup(sources['viewer.css']),
        scripts=[Markup(sources[name]) for name in ('attention.js', 'app.js')],
        page=jinja2.utils.htmlsafe_json_dumps(page, _dumps),
        ramp=Markup(', '.join(page['colors'])),
        left_out=len(recorded) - len(held),
    )


def _page_data(layer: Layer, names: Sequence[str]) -> dict[str, Any]:
    out = {key: getattr(layer, key) for key in ('kind', 'stage', 'block', 'name', 'part', 'heads', 'groups')}
    out |= layer.page_data()
    if labels := out.pop('labels', None):
        out['labels'] = [names[label] for label in labels]
    return out


def _dumps(page: dict[str, Any], **_options: Any) -> str:
    def encode(array: Array) -> dict[str, str]:
        text = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return dict(dtype=str(array.dtype), base64=text)

    return json.dumps(page, default=encode, allow_nan=False)


def _url(image: Array) -> str:
    """Return an image as a data URL, smaller if it is large."""
    photo, data = Image.fromarray(image), io.BytesIO()
    photo.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    photo.save(data, 'JPEG', quality=90)
    return 'data:image/jpeg;base64,' + base64.b64encode(data.getvalue()).decode()


def _by_importance(layers: Sequence[Layer], sizes: dict[int, int]) -> list[int]:
    """Return the order in which layers are held: the last block of each kind in each stage, then those before."""
    later = [sum(a.kind == x.kind and a.stage == x.stage for a in layers[i + 1 :]) for i, x in enumerate(layers)]
    return sorted(range(len(layers)), key=lambda i: (later[i], sizes[i]))
