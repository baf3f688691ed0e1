"""The modes of each kind of layer: the views that the page, PNG and SVG have of it."""

from .layers import Layer

MODES = ('query', 'locations', 'received', 'displacement')
_DENSE = ('query', 'locations', 'received')
_OF_KIND: dict[str, tuple[str, ...]] = {
    'deformable': MODES,
    'window': _DENSE,
    'shifted_window': _DENSE,
    'neighborhood': _DENSE,
    'spatial_reduction': _DENSE,
    'deformable_patch': ('query', 'locations', 'displacement'),
    'deformable_detr': ('query', 'received'),
}


def modes_of(layer: Layer) -> tuple[str, ...]:
    """Return the modes of a layer, in the order in which the page offers them."""
    return _OF_KIND[layer.kind]


def check_mode(layer: Layer, mode: str) -> None:
    """Check that a layer has a mode.

    Raises:
        ValueError: It has not.
    """
    if mode not in modes_of(layer):
        raise ValueError(f'{layer.kind} has no mode {mode!r}; choose from {", ".join(modes_of(layer))}')
