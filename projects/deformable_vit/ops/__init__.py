"""Functions of tensors, without parameters. Attention and sampling take ``backend=None``, see :mod:`.backends`."""

from . import attention, sampling, separable, triton_attention
from .attention import deformable_attention, dense_attention
from .backends import BACKENDS, current_backend, recompute_with_backend, use_backend
from .coordinates import (
    CONVENTIONS,
    coordinate_dtype,
    key_coordinates,
    key_grid,
    key_spacing,
    query_coordinates,
    without_autocast,
)
from .local_attention import neighborhood_attention, surplus_pairs, window_attention
from .sampling import (
    box_locations,
    decode_boxes,
    deformable_patch_projection,
    deformable_patch_samples,
    deformable_sampling,
)
from .tokens import interleave, map_to_tokens, pad_to_multiple, resize_position_embedding, tokens_to_map
from .tracing import adaptive_avg_pool2d, at_least, constant_size, is_tracing, sharing, unflatten

# For ``FlopCounterMode(custom_mapping=FLOP_FORMULAS)``. Not registered: that would change other programs' counts of
# torch's ops, and importing the counter imports triton, 72 MiB.
FLOP_FORMULAS = (
    attention.FLOP_FORMULAS | sampling.FLOP_FORMULAS | separable.FLOP_FORMULAS | triton_attention.FLOP_FORMULAS
)

__all__ = [
    'BACKENDS',
    'CONVENTIONS',
    'FLOP_FORMULAS',
    'adaptive_avg_pool2d',
    'at_least',
    'box_locations',
    'constant_size',
    'coordinate_dtype',
    'current_backend',
    'decode_boxes',
    'deformable_attention',
    'deformable_patch_projection',
    'deformable_patch_samples',
    'deformable_sampling',
    'dense_attention',
    'interleave',
    'is_tracing',
    'key_coordinates',
    'key_grid',
    'key_spacing',
    'map_to_tokens',
    'neighborhood_attention',
    'pad_to_multiple',
    'query_coordinates',
    'recompute_with_backend',
    'resize_position_embedding',
    'sharing',
    'surplus_pairs',
    'tokens_to_map',
    'unflatten',
    'use_backend',
    'window_attention',
    'without_autocast',
]
