"""Checkpoints: safe reading and writing, and conversion from the official implementations.

Five independent parts: :mod:`.safe_loading` reads files, :mod:`.safe_saving` writes them, :mod:`.names` translates
parameter names, :mod:`.resize` resizes position embeddings and bias tables, :mod:`.compare` reports what fits a model.
:mod:`.convert` combines them for the load hook of the backbones. State dicts go in and out; no model classes are known
here.
"""

from .compare import Difference, compare
from .convert import adapt_to_backbone, convert_classifier, convert_state_dict
from .load import load_backbone_weights
from .safe_loading import CheckpointError, enable_safe_loading, read_checkpoint, read_state_dict
from .safe_saving import (
    INTERRUPTED,
    AtomicCheckpointHook,
    enable_safe_saving,
    remove_partial_files,
    write_atomically,
)

__all__ = [
    'INTERRUPTED',
    'AtomicCheckpointHook',
    'CheckpointError',
    'Difference',
    'adapt_to_backbone',
    'compare',
    'convert_classifier',
    'convert_state_dict',
    'enable_safe_loading',
    'enable_safe_saving',
    'load_backbone_weights',
    'read_checkpoint',
    'read_state_dict',
    'remove_partial_files',
    'write_atomically',
]
