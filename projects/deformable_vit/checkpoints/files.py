"""Reading checkpoint files without running code from them.

A checkpoint is a pickle, and a pickle can call any function when it is loaded. ``torch.load(weights_only=True)``
refuses all but tensors and plain containers. mmengine 0.10 leaves that argument out: for local files torch >= 2.6 then
takes True, unless an environment variable says otherwise, and for downloads it takes False. Its own checkpoints hold a
class that torch does not know, so that it cannot resume from them. This module closes both gaps for local files and
downloads, in this project's tools and in the hosts': ``init_cfg``, ``load_from`` and ``resume``.

There is a third: ``resume`` evaluates the text under ``meta.config`` as a program, to look for a key that nobody writes
any more. What is read here comes without it (mmengine keeps the config a second time, under ``meta.cfg``).
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine.runner.checkpoint
import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch.hub import load_state_dict_from_url


def _statistic(owner: type, name: str) -> Callable:
    """Stands in for ``getattr`` in checkpoints, where log histories name their own statistics with it; nothing else."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'Trying to call reduce for unsupported GLOBAL getattr({owner!r}, {name!r})')


# What mmengine's own checkpoints hold besides tensors: log histories, with their numbers in numpy arrays. None of these
# runs anything when it is unpickled. Old files name numpy's private module as numpy 1 did.
_reconstruct, _scalar = np._core.multiarray._reconstruct, np._core.multiarray.scalar
torch.serialization.add_safe_globals(
    [
        HistoryBuffer,
        (_statistic, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        _reconstruct,
        _scalar,
        (_reconstruct, 'numpy.core.multiarray._reconstruct'),
        (_scalar, 'numpy.core.multiarray.scalar'),
        *{type(np.dtype(code)) for code in '?bBhHiIlLqQefd'},
    ]
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and the reason, on one line."""


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> Any:
    path = Path(filename).expanduser()
    if not path.is_file():
        raise CheckpointError(f'checkpoint {filename} {"is a folder" if path.is_dir() else "does not exist"}')
    return _explained(filename, lambda: torch.load(path, map_location=map_location, weights_only=True))


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http(filename: str, map_location: Any = None, model_dir: str | None = None) -> Any:
    def load() -> Any:
        return _explained(
            filename, lambda: load_state_dict_from_url(filename, model_dir, map_location, weights_only=True)
        )

    # One process downloads; the others find the file in torch's cache.
    rank, world_size = get_dist_info()
    checkpoint = load() if rank == 0 else None
    if world_size > 1:
        barrier()
    return load() if rank > 0 else checkpoint


# What mmengine resolves to a URL by itself, such as torchvision://resnet50, goes through this name.
mmengine.runner.checkpoint.load_from_http = load_from_http


def _normalised(checkpoint: Any) -> Any:
    """Without the program under ``meta.config``, and with the weights under the name that mmengine looks for."""
    if not isinstance(checkpoint, dict):
        return checkpoint
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    if 'state_dict' not in checkpoint and isinstance(checkpoint.get('model'), dict):
        checkpoint['state_dict'] = checkpoint.pop('model')
    return checkpoint


def _explained(filename: str, load: Callable[[], Any]) -> Any:
    try:
        return _normalised(load())
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL ([\w.]+)', str(error))
        if not found:
            raise CheckpointError(f'checkpoint {filename} is damaged or not a checkpoint that loads safely') from error
        raise CheckpointError(
            f'checkpoint {filename} is refused: it needs {found[1]}, and unpickling that could run code. '
            "Where you trust the file's origin, save the weights alone: torch.save(dict(state_dict=...), FILE)"
        ) from error
    except OSError as error:  # no permission, no network, no such host or page
        raise CheckpointError(f'checkpoint {filename} cannot be read: {error}') from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:  # what torch raises on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f'checkpoint {filename} is damaged or not a checkpoint: {reason}') from error


def read_checkpoint(filename: str, map_location: Any = 'cpu') -> Any:
    """What the file at a path or URL holds.

    Raises:
        CheckpointError: The file is missing or damaged, or would need unsafe unpickling.
    """
    return CheckpointLoader.load_checkpoint(str(filename), map_location)


def read_state_dict(filename: str, map_location: Any = 'cpu') -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint: under ``state_dict`` (mmengine), under ``model`` (the authors), or bare.

    Raises:
        CheckpointError: As :func:`read_checkpoint`, and where no state dict is found.
    """
    checkpoint = read_checkpoint(filename, map_location)
    if isinstance(checkpoint, dict):
        found = checkpoint.get('state_dict', checkpoint)
        tensors = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)} if isinstance(found, dict) else {}
        if tensors:
            return {k.removeprefix('module.'): v for k, v in tensors.items()}
    raise CheckpointError(f'checkpoint {filename} holds no state dict, bare or under "state_dict" or "model"')
