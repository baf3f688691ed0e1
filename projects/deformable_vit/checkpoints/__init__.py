"""Checkpoints: safe reading, and the authors' names turned into ours by pure functions on dicts."""

from .adapt import adapt_to_backbone, compare, to_classifier
from .backbone import load_backbone_weights
from .files import CheckpointError, read_checkpoint, read_state_dict

__all__ = [
    'CheckpointError',
    'adapt_to_backbone',
    'compare',
    'load_backbone_weights',
    'read_checkpoint',
    'read_state_dict',
    'to_classifier',
]
