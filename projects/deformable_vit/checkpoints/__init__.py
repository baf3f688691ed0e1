"""Checkpoints: safe reading and writing, and conversion from the official implementations.

Five independent parts: :mod:`.safe_loading` reads files (with :mod:`.archive`, :mod:`.pickle_scan`, :mod:`.values`,
:mod:`.content` and :mod:`.safetensors_file`), :mod:`.safe_saving` writes them, :mod:`.names` translates parameter
names, :mod:`.resize` resizes position embeddings and bias tables, :mod:`.compare` reports what fits a model.
:mod:`.convert` combines them for the load hook of the backbones. State dicts go in and out; no model classes are known
here.
"""

from .compare import Difference, check_dtypes, compare
from .convert import adapt_to_backbone, convert_classifier, convert_state_dict
from .errors import CheckpointError, ContentError, shown
from .load import load_backbone_weights
from .safe_loading import enable_safe_loading, read_checkpoint, read_state_dict
from .safe_saving import (
    INTERRUPTED,
    AtomicCheckpointHook,
    enable_safe_saving,
    remove_partial_files,
    write_atomically,
)
from .safetensors_file import write_safetensors
from .values import plain

__all__ = [
    'INTERRUPTED',
    'AtomicCheckpointHook',
    'CheckpointError',
    'ContentError',
    'Difference',
    'adapt_to_backbone',
    'check_dtypes',
    'compare',
    'convert_classifier',
    'convert_state_dict',
    'enable_safe_loading',
    'enable_safe_saving',
    'load_backbone_weights',
    'plain',
    'read_checkpoint',
    'read_state_dict',
    'remove_partial_files',
    'shown',
    'write_atomically',
    'write_safetensors',
]
