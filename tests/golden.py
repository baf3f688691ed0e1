"""The authors' figures: how their weights and inputs are made, and what comes out.

Every weight is a function of its name in the authors' code, so no weight file is needed. ``data/golden/*.json`` holds
outputs and gradient norms of the authors' float32 CPU code for these weights and inputs.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / 'data'


def author_parameters() -> dict[str, dict]:
    """For each published model: kind, num_params, and the authors' parameter names and shapes."""
    return json.loads((DATA / 'author_parameters.json').read_text())


def figures(name: str) -> dict:
    return json.loads((DATA / 'golden' / f'{name}.json').read_text())


def _normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The value of the parameter that has this name in the authors' code."""
    n = _normal(zlib.crc32(name.encode()), shape)
    if name.endswith('wh_bias'):
        n = 0.25 + 0.05 * n
    elif any(part in name for part in ('rpe_table', 'rpb', 'relative_position_bias_table')):
        n = 0.5 * n
    elif 'pos_embed' in name or 'cls_token' in name:
        n = 0.2 * n
    elif len(shape) == 1:
        n = 1 + 0.1 * n if name.endswith('weight') else 0.05 * n
    else:
        n = n / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(n, dtype=np.float32))


def author_state_dict(model: str) -> dict[str, Tensor]:
    """The whole state dict in the authors' names."""
    return {k: weight(k, tuple(shape)) for k, shape in author_parameters()[model]['parameters'].items()}


def picture(shape: tuple[int, int, int, int]) -> Tensor:
    b, _, h, w = shape
    return torch.from_numpy(_normal(b * 1000003 + h * 1009 + w, shape))


def probe(name: str, output: Tensor) -> Tensor:
    """The 64 values of an output that the figures list."""
    index = np.random.RandomState(zlib.crc32(name.encode())).randint(0, output.numel(), 64)
    return output.detach().flatten()[torch.from_numpy(index)]


def loss(outputs: dict[str, Tensor]) -> Tensor:
    """Sum over outputs of mean(output * cotangent)."""
    terms = [
        (out * torch.from_numpy(_normal(zlib.crc32(f'cot:{name}'.encode()), tuple(out.shape)))).mean()
        for name, out in outputs.items()
    ]
    return torch.stack(terms).sum()
