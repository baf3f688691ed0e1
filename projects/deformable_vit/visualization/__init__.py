"""See where a model looks: record what a forward pass uses, and draw it."""

from .affine import Affine
from .export import to_json
from .figure import View, draw
from .layers import AttentionLayer, DeformableLayer, Layer, LocalLayer, PatchLayer, PointsLayer, ReductionLayer
from .page import PageInfo, build_page
from .predictions import Predictions, read_predictions
from .record import Recording, record

__all__ = [
    'Affine',
    'AttentionLayer',
    'DeformableLayer',
    'Layer',
    'LocalLayer',
    'PageInfo',
    'PatchLayer',
    'PointsLayer',
    'Predictions',
    'Recording',
    'ReductionLayer',
    'View',
    'build_page',
    'draw',
    'read_predictions',
    'record',
    'to_json',
]
