"""See where a model looks: record what a forward pass uses, and draw it."""

from .affine import Affine
from .export import to_json
from .figure import draw, layer_title
from .layer_data import AttentionLayer, Layer, PatchLayer, PointsLayer
from .page import View, build_page
from .recording import Recording, record

__all__ = [
    'Affine',
    'AttentionLayer',
    'Layer',
    'PatchLayer',
    'PointsLayer',
    'Recording',
    'View',
    'build_page',
    'draw',
    'layer_title',
    'record',
    'to_json',
]
