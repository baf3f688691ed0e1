"""Checkpoints: safe reading, and conversion from the official implementations.

Four independent parts: :mod:`.safe_loading` reads files, :mod:`.names` translates parameter names, :mod:`.resize`
resizes position embeddings and bias tables, :mod:`.compare` reports what fits a model. :mod:`.convert` combines them
for the load hook of the backbones. State dicts go in and out; no model classes are known here.
"""

from .compare import Difference, compare
from .convert import adapt_to_backbone, convert_classifier, convert_state_dict
from .errors import CheckpointError
from .load import load_backbone_weights
from .safe_loading import enable_safe_loading, read_checkpoint, read_state_dict

__all__ = [
    'CheckpointError',
    'Difference',
    'adapt_to_backbone',
    'compare',
    'convert_classifier',
    'convert_state_dict',
    'enable_safe_loading',
    'load_backbone_weights',
    'read_checkpoint',
    'read_state_dict',
]
