"""Functions of tensors: no parameters, no registry, no configs. Slow, obvious forms are in :mod:`.reference`."""

from .coordinates import coordinate_dtype, key_coordinates, key_grid, key_spacing, query_coordinates
from .deform_conv import deform_conv_at, mmcv_deform_conv, sample_and_project
from .deformable_attention import deformable_attention, deformable_key_value
from .deformable_patch import decode_boxes, deformable_patch_projection
from .dense_attention import dense_attention
from .paths import current_path, use_path
from .tiled_attention import neighborhood_attention, window_attention
from .tokens import map_to_tokens, pad_to_multiple, resize_position_embedding, tokens_to_map

__all__ = [
    'coordinate_dtype',
    'current_path',
    'decode_boxes',
    'deform_conv_at',
    'deformable_attention',
    'deformable_key_value',
    'deformable_patch_projection',
    'dense_attention',
    'key_coordinates',
    'key_grid',
    'key_spacing',
    'map_to_tokens',
    'mmcv_deform_conv',
    'neighborhood_attention',
    'pad_to_multiple',
    'query_coordinates',
    'resize_position_embedding',
    'sample_and_project',
    'tokens_to_map',
    'use_path',
    'window_attention',
]
