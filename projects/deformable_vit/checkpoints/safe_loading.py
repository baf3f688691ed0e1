"""Reading of checkpoint files without trust in them.

A checkpoint is a pickle, and a pickle can call any function when it is loaded. ``torch.load(weights_only=True)``
refuses all but tensors and plain containers. mmengine 0.10 does not pass that argument: torch >= 2.6 then assumes True
for local files, unless an environment variable disagrees, and False for downloads. mmengine's own checkpoints hold a
class that torch refuses, so that it cannot resume from them. And ``resume`` and the inferencers evaluate text in a
checkpoint as a program. onedl-mmengine 0.10 passes the argument, loads again without it when torch refuses the file,
and allows ``getattr`` of anything.

:func:`enable_safe_loading` closes these gaps for ``init_cfg``, ``load_from`` and ``resume``, also in the tools of
mmdet, mmseg and mmpretrain. A file passes four steps: :mod:`.archive` compares its checksums, :mod:`.pickle_scan` goes
through its pickle without making anything, ``torch.load(weights_only=True)`` reads it with the stand-ins of
:mod:`.values`, and :mod:`.content` checks the result.
"""

import logging
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import mmengine.runner.checkpoint
import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch.hub import download_url_to_file, get_dir

from .archive import is_archive, read_archive
from .content import normalize
from .errors import CheckpointError, ContentError, shown
from .kept_files import protect_other_files
from .pickle_scan import scan_archive, scan_legacy
from .safetensors_file import is_safetensors, read_safetensors
from .values import allow_stand_ins


def enable_safe_loading() -> None:
    """Make mmengine load checkpoints safely in this process. Importing ``deformable_vit`` calls it.

    It changes:

    - The loaders of mmengine's ``CheckpointLoader`` for local files, HTTP(S) and ``open-mmlab://``, and
      ``mmengine.runner.checkpoint.load_from_http``, check files before they load them with ``weights_only=True``.
    - So does ``_safe_torch_load`` of onedl-mmengine, which its other loaders call (``s3://``).
    - They return checkpoints without the configs in ``meta`` and ``message_hub``, which are programs, and with the
      weights of ``model`` (official checkpoints) under ``state_dict``.
    - ``torch.load(weights_only=True)`` also accepts the classes in mmengine's own checkpoints: ``HistoryBuffer``, and
      numpy's arrays and numbers, of numeric types. None of them runs code when it is unpickled.
    - ``CheckpointHook`` deletes only its own files after resuming (:mod:`.kept_files`).

    Calling it again has no effect.
    """
    protect_other_files()
    allow_stand_ins()
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)
    CheckpointLoader.register_scheme(prefixes=('open-mmlab://', 'openmmlab://'), loader=load_from_openmmlab, force=True)
    # mmengine calls this name for what it resolves to a URL itself, such as torchvision://resnet50.
    mmengine.runner.checkpoint.load_from_http = load_from_http
    if hasattr(mmengine.runner.checkpoint, '_safe_torch_load'):
        mmengine.runner.checkpoint._safe_torch_load = load_weights_only


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a local file for mmengine's ``CheckpointLoader``.

    Raises:
        CheckpointError: The file does not exist, is damaged, or holds more than weights and the state of training.
    """
    return _load(filename, lambda: _read_path(Path(filename).expanduser(), map_location))


def load_from_http(filename: str, map_location: Any = None, model_dir: str | None = None) -> Any:
    """Download a file into torch's cache and load it, for mmengine's ``CheckpointLoader``.

    Raises:
        CheckpointError: The URL is a web page, the download fails, or as :func:`load_from_local`.
    """
    # torch names the file in its cache after the URL; links to web pages of clouds have no such name.
    path = Path(urlparse(filename).path)
    if not path.suffix:
        raise CheckpointError(
            f'checkpoint {shown(filename)} has no file name: it is probably a web page; download the file with a '
            'browser and pass its path, for example as init_cfg=dict(type="Pretrained", checkpoint="FILE")'
        )
    cached = Path(model_dir or os.path.join(get_dir(), 'checkpoints')) / path.name

    def load() -> Any:
        return _load(filename, lambda: _read_download(filename, cached, map_location))

    # One process downloads; the others find the file in torch's cache.
    rank, world_size = get_dist_info()
    checkpoint = load() if rank == 0 else None
    if world_size > 1:
        barrier()
    return load() if rank > 0 else checkpoint


def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """Load a model that mmengine knows by name, ``open-mmlab://NAME``, for its ``CheckpointLoader``.

    Raises:
        CheckpointError: mmengine knows no such name, or as :func:`load_from_local` and :func:`load_from_http`.
    """
    name = filename.partition('://')[2]
    name = mmengine.runner.checkpoint.get_deprecated_model_names().get(name, name)
    target = mmengine.runner.checkpoint.get_external_models().get(name)
    if target is None:
        raise CheckpointError(f'checkpoint {shown(filename)}: mmengine knows no model of this name')
    if target.startswith(('http://', 'https://')):
        return load_from_http(target, map_location)
    return load_from_local(os.path.join(mmengine.runner.checkpoint._get_mmengine_home(), target), map_location)


def load_weights_only(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Load a path or an open file with ``weights_only=True``, for onedl-mmengine, which passes ``None``.

    Raises:
        CheckpointError: As :func:`load_from_local`.
    """
    if isinstance(file, (str, Path)):
        return load_from_local(str(file), map_location)
    return _load('in memory', lambda: _read_file(file, 'in memory', map_location))


def _read_path(path: Path, map_location: Any) -> Any:
    if not path.is_file():
        raise ContentError('is a directory' if path.is_dir() else 'does not exist')
    if is_safetensors(path):
        return read_safetensors(path, map_location)
    with path.open('rb') as file:
        return _read_file(file, str(path), map_location)


def _read_download(url: str, cached: Path, map_location: Any) -> Any:
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        print_log(f'downloading {shown(url)} to {cached}', 'current')
        download_url_to_file(url, str(cached))
    try:
        return _read_path(cached, map_location)
    except ContentError as error:
        raise ContentError(f'{error}; to download it again, remove {cached}') from error


def _read_file(file: BinaryIO, name: str, map_location: Any) -> Any:
    """Check an open file, then load it."""
    if is_archive(file):
        archive = read_archive(file)
        scan_archive(archive.pickle, archive.storages)
        unchecked = None if archive.has_checksums else 'it was saved without checksums'
    else:
        scan_legacy(file)
        unchecked = 'it has the format of torch before 1.6, without checksums'
    if unchecked and name not in _warned:
        _warned.add(name)
        print_log(f'{shown(name)}: {unchecked}, so that damage cannot be noticed', 'current', logging.WARNING)
    file.seek(0)
    return torch.load(file, map_location=map_location, weights_only=True)


_warned: set[str] = set()


def _load(filename: str, load: Callable[[], Any]) -> Any:
    try:
        return normalize(load())
    except ContentError as error:
        raise CheckpointError(f'checkpoint {shown(filename)} {error}') from error
    except pickle.UnpicklingError as error:
        # torch's explanation has several lines, and tells to load the file unsafely.
        found = re.search(r'WeightsUnpickler error:\s*(.+)', str(error))
        reason = shown(found[1] if found else ' '.join(str(error).split()))
        raise CheckpointError(f'checkpoint {shown(filename)} is refused: {reason}') from error
    except OSError as error:  # no permission, no network, no such server or page
        raise CheckpointError(f'checkpoint {shown(filename)} cannot be read: {error}') from error
    except Exception as error:  # a damaged file can raise anything
        reason = str(error).splitlines()[0] if str(error) else ''
        raise CheckpointError(
            f'checkpoint {shown(filename)} is damaged or not a checkpoint: '
            f'{shown(f"{type(error).__name__}: {reason}" if reason else type(error).__name__)}'
        ) from error


def read_checkpoint(filename: str, map_location: Any = 'cpu') -> Any:
    """Return the contents of the file at a path or URL.

    Raises:
        CheckpointError: The file is missing or damaged, or holds more than weights and the state of training.
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
        named = {k: v for k, v in found.items() if isinstance(k, str)} if isinstance(found, dict) else {}
        tensors = {k: v for k, v in named.items() if isinstance(v, torch.Tensor)}
        if tensors:
            return {key.removeprefix('module.'): value for key, value in tensors.items()}
    raise CheckpointError(f'checkpoint {shown(filename)} holds no state dict, bare or under "state_dict" or "model"')
