"""Loading of checkpoint files without trust in them.

A checkpoint is a pickle, and a pickle can call any function. mmengine 0.10.7 loads downloads with
``weights_only=False``, onedl-mmengine falls back to it, and both evaluate configs that they find in a checkpoint.
:func:`enable_safe_loading` registers the loaders of this module with mmengine's ``CheckpointLoader``: for ``init_cfg``,
``load_from``, ``resume``, and the tools and inferencers of OpenMMLab.

They compare the checksums of the file, call ``torch.load(weights_only=True)``, drop configs, and check that weights and
the state of the optimizer are finite. How much time and memory a hostile file takes is up to torch.
"""

import hashlib
import io
import logging
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)
from torch import Tensor
from torch.hub import get_dir

from ..errors import CheckpointError, first_line, shown
from .compare import check_finite
from .download import download


def enable_safe_loading() -> None:
    """Make mmengine load checkpoints safely in this process; importing ``deformable_vit`` calls it."""
    for prefixes, loader in (  # the log names what follows `load_from_`
        ('', load_from_local),
        (('http://', 'https://'), load_from_http),
        (('open-mmlab://', 'openmmlab://', 'mmcls://', 'torchvision://', 'modelzoo://', 'pavi://'), load_from_zoo),
        ((r'(\S+\:)?s3://', r'(\S+\:)?petrel://'), load_from_ceph),
    ):
        CheckpointLoader.register_scheme(prefixes, loader, force=True)


def read_checkpoint(filename: str | Path, map_location: Any = 'cpu') -> Any:
    """Return the content of the checkpoint at a path or URL.

    Raises:
        CheckpointError: The file is missing or damaged, or holds more than weights and the state of a training.
    """
    return CheckpointLoader.load_checkpoint(str(filename), map_location)


def read_state_dict(filename: str | Path, map_location: Any = 'cpu') -> dict[str, Tensor]:
    """Return the state dict of a checkpoint: under ``state_dict`` (mmengine), under ``model`` (official), or bare.

    Raises:
        CheckpointError: As :func:`read_checkpoint`, or there is no state dict.
    """
    checkpoint = read_checkpoint(filename, map_location)
    found = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    named = found.items() if isinstance(found, dict) else ()
    tensors = {str(name).removeprefix('module.'): value for name, value in named if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f'checkpoint {shown(str(filename))} has no weights, bare or in "state_dict" or "model"')
    return tensors


def load_from_local(filename: str, map_location: Any = None) -> Any:
    path = Path(filename).expanduser()
    if not path.exists():
        raise CheckpointError(f'checkpoint {shown(filename)} does not exist')
    return _load(path, filename, map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    path = Path(urlparse(filename).path)
    # As torch names it; a page of a cloud has no file name.
    name = path.name if path.suffix else f'{hashlib.sha256(filename.encode()).hexdigest()[:16]}.pth'
    cached = Path(get_dir(), 'checkpoints', name)
    if not cached.exists():
        try:
            download(filename, cached)
        except CheckpointError as error:
            raise CheckpointError(f'checkpoint {shown(filename)} {error}') from error
    try:
        return load_from_local(str(cached), map_location)
    except CheckpointError as error:
        raise CheckpointError(f'{error}; to download it from {shown(filename)} again, remove it') from error


def load_from_zoo(filename: str, map_location: Any = None) -> Any:
    scheme, _, name = filename.partition('://')
    finders = dict(torchvision=get_torchvision_models, modelzoo=get_torchvision_models, mmcls=get_mmcls_models)
    urls = finders.get(scheme, get_external_models)()
    name = get_deprecated_model_names().get(name, name)
    if scheme == 'pavi' or not str(urls.get(name)).startswith('http'):
        raise CheckpointError(f'checkpoint {shown(filename)} has no known URL: download the file and pass its path')
    checkpoint = load_from_http(urls[name], map_location)
    if scheme != 'mmcls':
        return checkpoint
    names = checkpoint.get('state_dict', checkpoint).items()
    return {name.removeprefix('backbone.'): value for name, value in names if name.startswith('backbone.')}


def load_from_ceph(filename: str, map_location: Any = None) -> Any:
    content = get_file_backend(filename, backend_args=dict(backend='petrel')).get(filename)
    return _load(io.BytesIO(content), filename, map_location)


def _load(source: Path | BinaryIO, filename: str, map_location: Any) -> Any:
    name = f'checkpoint {shown(filename)}'
    try:
        with source.open('rb') if isinstance(source, Path) else source as file:
            if filename.endswith('.safetensors'):
                return _checked(_load_safetensors(file.read(), map_location))
            if not _has_checksums(file):
                print_log(f'{name} has no checksums, so damage goes unnoticed', 'current', logging.WARNING)
            file.seek(0)
            with torch.serialization.safe_globals(_SAFE_GLOBALS):
                return _checked(torch.load(file, map_location=map_location, weights_only=True))
    except CheckpointError as error:
        raise CheckpointError(f'{name} {error}') from error
    except OSError as error:
        raise CheckpointError(f'{name} cannot be read: {first_line(error)}') from error
    except pickle.UnpicklingError as error:
        # torch's message has several lines and tells how to load the file unsafely.
        if found := re.search(r'GLOBAL (\S+)', str(error)):
            raise CheckpointError(f'{name} is refused: it needs {shown(found[1])}, which could run code') from error
        found = re.search(r'WeightsUnpickler error:\s*(.+)', str(error))
        raise CheckpointError(f'{name} is refused: {shown(found[1] if found else first_line(error))}') from error
    except Exception as error:  # a damaged file can raise anything
        raise CheckpointError(f'{name} is damaged or not a checkpoint: {shown(first_line(error))}') from error


def _has_checksums(file: BinaryIO) -> bool:
    """Compare the checksums of a file, which ``torch.load`` does not, and return whether it has any."""
    if file.read(4) != b'PK\x03\x04':  # torch before 1.6
        return False
    with zipfile.ZipFile(file) as archive:
        if not any(record.CRC for record in archive.infolist()):  # torch.serialization.set_crc32_options(False)
            return False
        if damaged := archive.testzip():
            raise CheckpointError(f'is damaged: the checksum of {shown(damaged)} differs; copy or download it again')
    return True


def _load_safetensors(content: bytes, map_location: Any) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise CheckpointError("needs the package safetensors: pip install 'deformable-vit[safetensors]'") from error
    return {k: v if map_location is None else v.to(map_location) for k, v in load(content).items()}


def _checked(checkpoint: Any) -> Any:
    """Return a checkpoint with its weights in ``state_dict``, and without configs, which mmengine would evaluate."""
    if not isinstance(checkpoint, dict):
        return checkpoint
    if 'state_dict' not in checkpoint and isinstance(checkpoint.get('model'), dict):  # official
        checkpoint['state_dict'] = checkpoint.pop('model')
    hub = checkpoint.get('message_hub')
    for part in (checkpoint.get('meta'), *(hub.values() if isinstance(hub, dict) else ())):
        if isinstance(part, dict):
            part.pop('config', None)
            part.pop('cfg', None)
    named = {key: checkpoint[key] for key in ('state_dict', 'ema_state_dict', 'optimizer') if key in checkpoint}
    check_finite(named or checkpoint)
    return checkpoint


# mmengine's checkpoints hold log histories and numbers of numpy. numpy trusts a pickle: the state of a dtype can make
# it follow pointers from the file. These classes replace numpy's during a load, and accept arrays of numbers only.


class _Dtype:
    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not re.fullmatch('[biuf][1248]', code):
            raise pickle.UnpicklingError(f'array of dtype {code!r}, which is not numeric')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray[Any, Any]):
    def __new__(cls) -> '_Array':
        return super().__new__(cls, (0,))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        array: Any = np.frombuffer(data, dtype.dtype).reshape(shape, order='F' if is_fortran else 'C')
        super().__setstate__(array.__reduce__()[2])

    def __reduce__(self) -> Any:
        return np.array(self, subok=False).__reduce__()


class _History(HistoryBuffer):
    def __setstate__(self, state: dict[str, Any]) -> None:
        del state['statistics_methods']  # of the class, for all histories
        super().__setstate__({k: np.array(v, subok=False) if isinstance(v, _Array) else v for k, v in state.items()})
        self.__class__ = HistoryBuffer


_SAFE_GLOBALS: list[Any] = [
    (_History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_Array, 'numpy.ndarray'),
    (_Dtype, 'numpy.dtype'),
    (lambda *_: None, 'builtins.getattr'),  # in the statistics of histories
]
for _module in ('numpy._core.multiarray', 'numpy.core.multiarray'):  # of numpy 2 and 1
    _SAFE_GLOBALS += [
        (lambda *_: _Array(), f'{_module}._reconstruct'),
        (lambda dtype, data: np.frombuffer(data, dtype.dtype)[0], f'{_module}.scalar'),
    ]
