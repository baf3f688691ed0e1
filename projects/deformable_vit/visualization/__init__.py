"""See where a model looks: record what a forward pass uses, and draw it."""

from .affine import Affine
from .attention_data import AttentionLayer, DeformableLayer, LocalLayer, ReductionLayer
from .export import to_json
from .figure import draw
from .layer_data import Layer, PatchLayer, PointsLayer
from .overlay import Overlay, read_overlay
from .page import View, build_page
from .recording import Recording, record

__all__ = [
    'Affine',
    'AttentionLayer',
    'DeformableLayer',
    'Layer',
    'LocalLayer',
    'Overlay',
    'PatchLayer',
    'PointsLayer',
    'Recording',
    'ReductionLayer',
    'View',
    'build_page',
    'draw',
    'read_overlay',
    'record',
    'to_json',
]
