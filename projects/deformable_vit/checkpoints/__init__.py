"""Checkpoints: safe loading, atomic writing, and conversion from the official implementations.

:mod:`.safe_loading` reads files, :mod:`.atomic_writing` writes them, :mod:`.names` translates parameter names,
:mod:`.resize` resizes position embeddings and bias tables, :mod:`.compare` reports what fits a model. :mod:`.convert`
combines them for the load hook of the backbones. :mod:`.official` has the published weights by name, and
:mod:`.download` fetches them. State dicts go in and out; no model classes are known here.
"""

from .atomic_writing import AtomicBackend, enable_atomic_writing, remove_partial_files, write_atomically
from .compare import check_dtypes, check_finite, compare
from .convert import adapt_to_backbone, convert_classifier, convert_model, convert_state_dict
from .load import load_backbone_weights
from .names import translate_names
from .official import (
    SCHEME,
    OfficialWeights,
    enable_official_weights,
    find_official,
    official_file,
    official_weights,
    recorded_size,
)
from .safe_loading import enable_safe_loading, read_checkpoint, read_state_dict

__all__ = [
    'SCHEME',
    'AtomicBackend',
    'OfficialWeights',
    'adapt_to_backbone',
    'check_dtypes',
    'check_finite',
    'compare',
    'convert_classifier',
    'convert_model',
    'convert_state_dict',
    'enable_atomic_writing',
    'enable_official_weights',
    'enable_safe_loading',
    'find_official',
    'load_backbone_weights',
    'official_file',
    'official_weights',
    'read_checkpoint',
    'read_state_dict',
    'recorded_size',
    'remove_partial_files',
    'translate_names',
    'write_atomically',
]
