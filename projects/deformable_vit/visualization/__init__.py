"""See where a model looks: record what a forward pass uses, and draw it."""

from .affine import Affine
from .drawing import View
from .export import to_json
from .figure import draw
from .layers import AttentionLayer, DeformableLayer, Layer, LocalLayer, PatchLayer, PointsLayer, ReductionLayer
from .modes import MODES, check_mode, modes_of
from .page import PageInfo, build_page
from .predictions import Predictions, read_predictions
from .record import Recording, record

__all__ = [
    'MODES',
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
    'check_mode',
    'draw',
    'modes_of',
    'read_predictions',
    'record',
    'to_json',
]
