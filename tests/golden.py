"""Reference values of the official implementations, and the weights and inputs that they belong to.

Every weight is a function of its name in the official implementation, so that no weight file is needed.
``data/golden/*.json`` holds outputs and gradient norms of the official code on a CPU, computed in float64 for these
float32 weights and inputs.
"""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / 'data'


def official_parameters() -> dict[str, dict[str, Any]]:
    """Return for each published model its kind, num_params, and the official parameter names and shapes."""
    return json.loads((DATA / 'official_parameters.json').read_text())


def reference_values(name: str) -> dict[str, Any]:
    """Return the contents of ``data/golden/NAME.json``."""
    return json.loads((DATA / 'golden' / f'{name}.json').read_text())


def _normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the value of the parameter with this name in the official implementation."""
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


def official_state_dict(model: str) -> dict[str, Tensor]:
    """Return the state dict of a published model, in official names."""
    return {k: weight(k, tuple(shape)) for k, shape in official_parameters()[model]['parameters'].items()}


def image(shape: tuple[int, int, int, int]) -> Tensor:
    """Return the input (B, 3, H, W) that the reference values of this shape belong to."""
    b, _, h, w = shape
    return torch.from_numpy(_normal(b * 1000003 + h * 1009 + w, shape))


def probe(name: str, output: Tensor) -> Tensor:
    """Return the 64 values of an output that the reference values list."""
    index = np.random.RandomState(zlib.crc32(name.encode())).randint(0, output.numel(), 64)
    return output.detach().flatten()[torch.from_numpy(index)]


def loss(outputs: dict[str, Tensor]) -> Tensor:
    """Return the sum over outputs of mean(output * cotangent)."""
    terms = [
        (out * torch.from_numpy(_normal(zlib.crc32(f'cot:{name}'.encode()), tuple(out.shape)))).mean()
        for name, out in outputs.items()
    ]
    return torch.stack(terms).sum()
