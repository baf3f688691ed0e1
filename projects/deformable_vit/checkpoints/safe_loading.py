"""Reading of checkpoint files without running code from them.

A checkpoint is a pickle, and a pickle can call any function when it is loaded. ``torch.load(weights_only=True)``
refuses all but tensors and plain containers. mmengine 0.10 does not pass that argument: torch >= 2.6 then assumes True
for local files, unless an environment variable disagrees, and False for downloads. mmengine's own checkpoints hold a
class that torch refuses, so that it cannot resume from them. And ``resume`` evaluates the text of ``meta.config`` as a
program, to look for a key that no current version writes; what is read here comes without it (mmengine keeps the config
a second time, in ``meta.cfg``). onedl-mmengine 0.10 passes the argument, loads again without it when torch refuses the
file, and allows ``getattr`` of anything.

:func:`enable_safe_loading` closes these gaps for ``init_cfg``, ``load_from`` and ``resume``, also in the tools of
mmdet, mmseg and mmpretrain.
"""

import pickle
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlparse

import mmengine.runner.checkpoint
import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch.hub import load_state_dict_from_url

from .errors import CheckpointError
from .kept_files import protect_other_files


def enable_safe_loading() -> None:
    """Make mmengine load checkpoints safely in this process. Importing ``deformable_vit`` calls it.

    It changes:

    - The loaders of mmengine's ``CheckpointLoader`` for local files and HTTP(S), and
      ``mmengine.runner.checkpoint.load_from_http``, always pass ``weights_only=True``.
    - So does ``_safe_torch_load`` of onedl-mmengine, which its other loaders call (``openmmlab://``, ``s3://``).
    - They return checkpoints without ``meta.config``, and with the weights of ``model`` (official checkpoints) under
      ``state_dict``.
    - ``torch.load(weights_only=True)`` also accepts the classes in mmengine's own checkpoints: ``HistoryBuffer``, and
      numpy's arrays and numeric scalars. None of them runs code when it is unpickled.

    - ``CheckpointHook`` deletes only its own files after resuming (:mod:`.kept_files`).

    Calling it again has no effect.
    """
    protect_other_files()
    # Files written with numpy 1 name its private module differently.
    multiarray = import_module('numpy._core.multiarray')
    reconstruct, scalar = multiarray._reconstruct, multiarray.scalar
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_statistic, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            reconstruct,
            scalar,
            (reconstruct, 'numpy.core.multiarray._reconstruct'),
            (scalar, 'numpy.core.multiarray.scalar'),
            *{type(np.dtype(code)) for code in '?bBhHiIlLqQefd'},
        ]
    )
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)
    # mmengine calls this name for what it resolves to a URL itself, such as torchvision://resnet50.
    mmengine.runner.checkpoint.load_from_http = load_from_http
    if hasattr(mmengine.runner.checkpoint, '_safe_torch_load'):
        mmengine.runner.checkpoint._safe_torch_load = load_weights_only


def _statistic(owner: type, name: str) -> Callable[..., Any]:
    """Stand in for ``getattr`` in checkpoints, which log histories use to name their statistics; refuse all else."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'Trying to call reduce for unsupported GLOBAL getattr({owner!r}, {name!r})')


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a local file for mmengine's ``CheckpointLoader``.

    Raises:
        CheckpointError: The file does not exist, is damaged, or needs unsafe unpickling.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise CheckpointError(f'checkpoint {filename} {"is a directory" if path.is_dir() else "does not exist"}')
    return _load(filename, lambda: torch.load(path, map_location=map_location, weights_only=True))


def load_from_http(filename: str, map_location: Any = None, model_dir: str | None = None) -> Any:
    """Download a file into torch's cache and load it, for mmengine's ``CheckpointLoader``.

    Raises:
        CheckpointError: The URL is a web page, the download fails, or the file is damaged or needs unsafe unpickling.
    """
    # torch names the file in its cache after the URL; links to web pages of clouds have no such name.
    if not Path(urlparse(filename).path).suffix:
        raise CheckpointError(
            f'checkpoint {filename} has no file name: it is probably a web page; download the file with a browser and '
            'pass its path, for example as init_cfg=dict(type="Pretrained", checkpoint="FILE")'
        )

    def load() -> Any:
        return _load(filename, lambda: load_state_dict_from_url(filename, model_dir, map_location, weights_only=True))

    # One process downloads; the others find the file in torch's cache.
    rank, world_size = get_dist_info()
    checkpoint = load() if rank == 0 else None
    if world_size > 1:
        barrier()
    return load() if rank > 0 else checkpoint


def load_weights_only(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Load a path or an open file with ``weights_only=True``, for onedl-mmengine, which passes ``None``.

    Raises:
        CheckpointError: The file is damaged or needs unsafe unpickling.
    """
    name = str(file) if isinstance(file, (str, Path)) else 'in memory'
    return _load(name, lambda: torch.load(file, map_location=map_location, weights_only=True))


def _load(filename: str, load: Callable[[], Any]) -> Any:
    try:
        return _normalize(load())
    except pickle.UnpicklingError as error:
        _raise_unpickling_error(filename, error)
    except OSError as error:  # no permission, no network, no such server or page
        raise CheckpointError(f'checkpoint {filename} cannot be read: {error}') from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:  # what torch raises for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f'checkpoint {filename} is damaged or not a checkpoint: {reason}') from error


def _raise_unpickling_error(filename: str, error: pickle.UnpicklingError) -> NoReturn:
    found = re.search(r'GLOBAL ([\w.]+)', str(error))
    if not found:
        raise CheckpointError(f'checkpoint {filename} is damaged or not a checkpoint that loads safely') from error
    raise CheckpointError(
        f'checkpoint {filename} is refused: it needs {found[1]}, and unpickling that could run code. '
        'If you trust its origin, save its weights alone: torch.save(dict(state_dict=...), FILE)'
    ) from error


def _normalize(checkpoint: Any) -> Any:
    """Drop the program in ``meta.config``, and move the weights to the key that mmengine expects."""
    if not isinstance(checkpoint, dict):
        return checkpoint
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    if 'state_dict' not in checkpoint and isinstance(checkpoint.get('model'), dict):
        checkpoint['state_dict'] = checkpoint.pop('model')
    return checkpoint


def read_checkpoint(filename: str, map_location: Any = 'cpu') -> Any:
    """Return the contents of the file at a path or URL.

    Raises:
        CheckpointError: The file is missing or damaged, or needs unsafe unpickling.
    """
    return CheckpointLoader.load_checkpoint(str(filename), map_location)


def read_state_dict(filename: str, map_location: Any = 'cpu') -> dict[str, torch.Tensor]:
    """Return the state dict of a checkpoint: under ``state_dict`` (mmengine), under ``model`` (official), or bare.

    Raises:
        CheckpointError: As :func:`read_checkpoint`, or there is no state dict.
    """
    checkpoint = read_checkpoint(filename, map_location)
    if isinstance(checkpoint, dict):
        found = checkpoint.get('state_dict', checkpoint)
        tensors = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)} if isinstance(found, dict) else {}
        if tensors:
            return {key.removeprefix('module.'): value for key, value in tensors.items()}
    raise CheckpointError(f'checkpoint {filename} holds no state dict, bare or under "state_dict" or "model"')
