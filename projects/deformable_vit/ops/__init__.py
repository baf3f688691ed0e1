"""Functions of tensors: no parameters, no registry, no configs."""

from .tokens import map_to_tokens, pad_to_multiple, resize_position_embedding, tokens_to_map

__all__ = ['map_to_tokens', 'pad_to_multiple', 'resize_position_embedding', 'tokens_to_map']
