"""Attention of every query to every key, without a bias."""

import torch.nn.functional as F
from torch import Tensor

from .paths import with_reference


@with_reference
def dense_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(Q K' / sqrt(d)) V (Vaswani et al., https://arxiv.org/abs/1706.03762, equation 1).

    Args:
        q: (B, heads, M, d).
        k: (B, heads, N, d).
        v: (B, heads, N, d).

    Returns:
        (B, heads, M, d).
    """
    return F.scaled_dot_product_attention(q, k, v)
