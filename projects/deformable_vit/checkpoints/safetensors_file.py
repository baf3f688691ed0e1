"""Files of safetensors: names and tensors alone, without a pickle. The package of that name is optional."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from .errors import ContentError, shown

SUFFIX = '.safetensors'
_MISSING = "needs the package safetensors, which is not installed: pip install 'deformable-vit[safetensors]'"


def is_safetensors(path: Path) -> bool:
    return path.suffix == SUFFIX


def read_safetensors(path: Path, map_location: Any = 'cpu') -> dict[str, Tensor]:
    """Return the tensors of a file.

    Raises:
        ContentError: safetensors is not installed, or cannot read the file.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ContentError(_MISSING) from error
    try:
        with safe_open(path, framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except SafetensorError as error:
        raise ContentError(f'is damaged or not a file of safetensors: {shown(str(error))}') from error
    print_log(
        f'{shown(str(path))}: safetensors has no checksums, so that damage cannot be noticed', 'current', logging.INFO
    )
    return {name: _to(tensor, map_location) for name, tensor in tensors.items()}


def write_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a file.

    Raises:
        ContentError: safetensors is not installed.
    """
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise ContentError(f'{shown(str(path))} {_MISSING}') from error
    # The entry that libraries look for to know which one wrote the tensors.
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata={'format': 'pt'})


def _to(tensor: Tensor, map_location: Any) -> Tensor:
    """Move a tensor as ``torch.load`` does, to a device by name; mmengine passes no other ``map_location``."""
    return tensor.to(map_location) if isinstance(map_location, (str, torch.device)) else tensor
