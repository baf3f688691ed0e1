"""Files that attack, exhaust or mislead the program that loads them, and small real ones; see docs/reliability.md."""

import io
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from deformable_vit.checkpoints import plain

_NUMPY = np._core.multiarray


class Call:
    """Something that unpickling calls: a function, its arguments, and the state that it sets afterwards."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.function, self.arguments, self.state)[: 3 if self.state is not None else 2]


def training_state(*, as_plain: bool = False) -> dict[str, Any]:
    """Return what mmengine saves, or what this project saves."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    hub = dict(
        log_scalars=OrderedDict({'train/loss': HistoryBuffer([0.5, 0.25, 0.125], [1, 1, 1])}),
        runtime_info=OrderedDict(epoch=1, iter=2, best_score=np.float64(0.5), cfg='import os', last_ckpt='x.pth'),
        resumed_keys={'train/loss': True, 'epoch': True, 'cfg': True},
    )
    meta = dict(epoch=1, iter=2, seed=0, cfg='import os', dataset_meta=dict(classes=('a', 'b'), palette=np.eye(3)))
    rest = dict(meta=meta, message_hub=hub, optimizer=optimizer.state_dict(), param_schedulers=[{'last_step': 2}])
    return dict(plain(rest) if as_plain else rest, state_dict=layer.state_dict())


def saved(content: Any, **kwargs: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **kwargs)
    return file.getvalue()


def legacy(content: Any) -> bytes:
    return saved(content, _use_new_zipfile_serialization=False)


def archive(data: bytes, records: dict[str, bytes] | None = None, **options: Any) -> bytes:
    """Return an archive with a pickle and records such as ``data/0``, with valid checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', **options) as opened:
        for name, content in {'data.pkl': data, 'byteorder': b'little', **(records or {})}.items():
            opened.writestr(f'archive/{name}', content)
    return file.getvalue()


def rebuilt(file: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return an archive whose pickle is changed, with valid checksums."""
    with zipfile.ZipFile(io.BytesIO(file)) as opened:
        records = {record.filename.partition('/')[2]: opened.read(record) for record in opened.infolist()}
    return archive(change(records.pop('data.pkl')), records)


def array(dtype: Any, data: bytes, shape: tuple[int, ...] = (1,)) -> Call:
    return Call(_NUMPY._reconstruct, np.ndarray, (0,), b'b', state=(1, shape, dtype, False, data))


def weights(**values: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    return {'state_dict': {key.replace('__', '.'): value for key, value in values.items()}}


def training(key: str, value: Any) -> dict[str, Any]:
    """Return a training state where a key such as ``meta.epoch`` has another value, or none if it is ``...``."""
    state = training_state()
    *path, last = key.split('.')
    node = state
    for name in path:
        node = node[int(name) if name.isdigit() else name]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return state


def _chain(opcode: bytes, count: int) -> bytes:
    return b'\x80\x02}(' + b')' + opcode * count


def _self_containing() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _exponential() -> list[Any]:
    value: list[Any] = []
    for _ in range(40):
        value = [value, value]
    return value


def _metadata(value: Any) -> dict[str, Any]:
    state = OrderedDict(x=torch.ones(1))
    state._metadata = value
    return {'state_dict': state}


_FIELDS = (3, '|', None, ('a',), {'a': (np.dtype('i8'), -64)}, 8, 1, 0)
_STORAGE = b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu'
_BIG = b'\x8a\x06' + (2**40).to_bytes(6, 'little')
_GOOD = saved(training_state())


def _without_storage_keys() -> bytes:
    """A legacy file that declares a tensor, and no storage to fill it."""
    file = legacy({'x': torch.ones(3)})
    return file[: file.rindex(b'\x80\x02]')] + b'\x80\x02].'


def _relocated(change: Callable[[bytearray], None]) -> bytes:
    file = bytearray(_GOOD)
    change(file)
    return bytes(file)


# What is saved or written, and a part of the one line that says why it is refused.
HOSTILE: dict[str, tuple[Any, str]] = {
    'object array': ({'x': array(np.dtype('O'), b'A' * 8)}, "dtype 'O8', which is not numeric"),
    'dtype with negative offsets': ({'x': Call(np.dtype, 'V8', False, True, state=_FIELDS)}, "'V8', which is not"),
    'dtype with fields': ({'x': Call(np.dtype, 'i8', False, True, state=_FIELDS)}, 'has fields'),
    'dtype without an array': ({'x': Call(np.dtype, 'i8', False, True)}, 'a dtype without an array'),
    'array of another length': ({'x': array(np.dtype('i8'), b'A' * 8, (9,))}, 'shape .* with 8 bytes'),
    'array of negative shape': ({'x': array(np.dtype('i8'), b'A' * 8, (-1,))}, 'array of shape'),
    'array that is called': ({'x': Call(np.ndarray, (2,), 'O')}, 'calls numpy ndarray'),
    'number of another length': ({'x': Call(_NUMPY.scalar, np.dtype('f8'), b'A')}, 'number that is not stored'),
    'getattr': ({'x': Call(getattr, HistoryBuffer, '__init__')}, 'getattr'),
    'bytearray': ({'x': Call(bytearray, 10**13)}, 'needs builtins.bytearray|needs __builtin__.bytearray'),
    'tensor by size': ({'x': Call(torch.FloatTensor, 10**12)}, 'needs torch.FloatTensor'),
    'doubling codec': (
        archive(b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.'),
        'calls _codecs',
    ),
    'history that is called': ({'x': Call(HistoryBuffer, [1], [1])}, 'calls mmengine'),
    'quantized': (archive(b'\x80\x02ctorch._utils\n_rebuild_qtensor\n.'), 'holds a quantized tensor'),
    'storage with an escape code': (
        archive(b'\x80\x02ctorch\n\x1b[31mStorage\n.'),
        r"holds a '\\x1b\[31mStorage' tensor",
    ),
    'sparse': ({'x': torch.eye(2).to_sparse()}, 'holds a sparse tensor'),
    'meta': ({'x': torch.ones(2, device='meta')}, 'meta device'),
    'complex': ({'x': torch.ones(2, dtype=torch.complex64)}, 'complex tensor|ComplexFloatStorage'),
    'text for a weight': ({'state_dict': {'a.weight': 'x'}}, 'a.weight in its state_dict is of type str'),
    'text beside weights': ({'x': torch.ones(1), 'attn.q.weight': 'x'}, 'attn.q.weight in its state_dict is of type'),
    'number for a name': ({'state_dict': {3: torch.ones(1)}}, 'has the name 3, which is not text'),
    'integer weights': (weights(a__weight=torch.ones(2, dtype=torch.int64)), 'a.weight is torch.int64'),
    'boolean weights': (weights(a__bias=torch.ones(2, dtype=torch.bool)), 'a.bias is torch.bool'),
    'NaN': (weights(a__x=torch.tensor([1.0, float('nan')])), 'a.x has 1 of 2 values that are NaN'),
    'infinite': (weights(a__x=torch.tensor([float('inf')])), 'a.x has 1 of 1 values'),
    'NaN in the optimizer': (training('optimizer.state.0.exp_avg', torch.tensor([float('nan')])), 'exp_avg has 1 of 1'),
    'name with an escape code': (weights(**{'a\x1b[31m\nb': torch.ones(1)}), r"name 'a\\x1b\[31m\\nb'"),
    'name with a lone surrogate': (weights(**{'a\udc80': torch.ones(1)}), r"name 'a\\udc80'"),
    'long name': (weights(**{'a' * 2000: torch.ones(1)}), r'name a{200}\.\.\.'),
    'metadata': (_metadata([1]), '_metadata'),
    'attribute of a state dict': ({'x': Call(OrderedDict, state={'items': 3})}, 'sets attributes of OrderedDict'),
    'state dict that is a list': ({'state_dict': [torch.ones(1)]}, 'state_dict is of type list'),
    'meta that is a list': (training('meta', [1]), 'meta is of type list'),
    'epoch that is text': (training('meta.epoch', 'x'), 'meta.epoch'),
    'epoch below zero': (training('meta.epoch', -1), 'meta.epoch is -1'),
    'iteration that is a boolean': (training('meta.iter', True), 'meta.iter is True'),
    'iteration beyond all numbers': (training('meta.iter', 10**300), 'meta.iter is 1000'),
    'seed that is text': (training('meta.seed', 'x'), 'meta.seed'),
    'dataset_meta that is a list': (training('meta.dataset_meta', []), 'dataset_meta'),
    'message_hub without a key': (training('message_hub.runtime_info', ...), 'message_hub does not hold'),
    'message_hub with a number for a name': (training('message_hub.resumed_keys', {3: True}), 'has the name 3'),
    'log of objects': (training('message_hub.log_scalars', {'x': HistoryBuffer(['a'], [1])}), 'not numeric'),
    'list that contains itself': ({'x': _self_containing()}, 'holds itself'),
    'list that doubles forty times': ({'x': _exponential()}, 'expanded, it has more than'),
    'deep tuple as a key': (archive(_chain(b'\x85', 10**6) + b'K\x00u.'), 'nested more than 64'),
    'deep lists': (archive(b'\x80\x02' + b']' * 10**5 + b'a' * (10**5 - 1) + b'.'), 'nested more than 64'),
    'a million keys': (
        archive(b'\x80\x02}(' + b''.join(b'J' + struct.pack('<i', i) + b'N' for i in range(10**6)) + b'u.'),
        'more than 100000 keys|opcodes',
    ),
    'two million opcodes': (archive(b'\x80\x02' + b'N' * (2 * 10**6) + b'.'), 'more than .* opcodes'),
    'text of 4 GB': (archive(b'\x80\x02X\xff\xff\xff\xff.'), 'pickle has more than'),
    'storage beyond the file': (
        archive(b'\x80\x02' + _STORAGE + _BIG + b'tQ.', {'data/0': b'AAAA'}),
        'is declared with',
    ),
    'storage that is missing': (archive(b'\x80\x02' + _STORAGE + b'K\x01tQ.'), 'none of that name'),
    'legacy storage beyond the file': (
        legacy({'x': torch.ones(3)}).replace(b'X\x03\x00\x00\x00cpuq\x06K\x03', b'X\x03\x00\x00\x00cpuq\x06' + _BIG),
        'more than the file has',
    ),
    'legacy without the values': (_without_storage_keys(), 'do not agree'),
    'legacy, cut': (legacy({'x': torch.ones(300)})[:-20], 'incomplete'),
    'unknown opcode': (archive(b'\x80\x02\xff.'), "opcode b'.xff'"),
    'empty stack': (archive(b'\x80\x02R.'), 'IndexError'),
    'protocol 4': (saved({'x': 1}, pickle_protocol=4), 'protocol 2'),
    'compressed': (archive(b'\x80\x02}.', compression=zipfile.ZIP_DEFLATED), 'is compressed'),
    'TorchScript': (archive(b'\x80\x02}.', {'constants.pkl': b''}), 'TorchScript'),
    'no pickle': (archive(b'').replace(b'data.pkl', b'data.pkm'), 'without data.pkl'),
    'a million records': (
        _relocated(lambda file: file.__setitem__(slice(-74, -58), struct.pack('<QQ', 10**6, 10**6))),
        'has 1000000 records',
    ),
    'no end': (_GOOD[:-1], 'incomplete'),
    'empty': (b'', 'ends early'),
    'a web page': (b'<html>not found</html>', 'not a checkpoint'),
    'a tar file': (b'storages'.ljust(257, b'\0') + b'ustar'.ljust(255, b'\0'), 'not a checkpoint'),
    'nothing but zeros': (bytes(1000), 'not a checkpoint'),
}


def write_hostile(name: str, path: Path) -> str:
    """Write one of :data:`HOSTILE` and return the pattern of its error."""
    content, pattern = HOSTILE[name]
    path.write_bytes(content if isinstance(content, bytes) else saved(content))
    return pattern
