"""A dry run of the pickle in a checkpoint: what it would make, without making it.

``torch.load(weights_only=True)`` runs no code from a file. But it does what the file says with what it allows: it
allocates a storage of any declared size, hashes tuples of any depth (which overflows the stack of the process), leaves
storages uninitialized, and rebuilds tensors on the meta device, sparse, quantized, or of a subclass. This scan reads
the same opcodes before. It accepts only what a checkpoint of weights and of mmengine's training consists of, in limits.
"""

import io
import math
import struct
from collections.abc import Mapping
from pickle import decode_long
from typing import Any, BinaryIO

from .archive import LARGEST_PICKLE
from .errors import damaged, refused, shown
from .pickle_names import CHECKED_LATER, GETATTR, HISTORY, ITEM_SIZES, SETS, TENSORS, Global, allowed, unusable

_MOST_OPCODES = 1_500_000
_MOST_KEYS = 100_000
_DEEPEST = 64
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001


class _Made:
    """What an opcode would make; numbers, strings and None stand for themselves."""

    __slots__ = ('depth', 'info', 'kind')

    def __init__(self, kind: str, depth: int = 0, info: Any = None) -> None:
        self.kind, self.depth, self.info = kind, depth, info
        if depth > _DEEPEST:
            raise refused(f'it is nested more than {_DEEPEST} levels deep')


def scan_archive(data: bytes, storages: Mapping[str, int]) -> None:
    """Scan the pickle of an archive.

    Args:
        data: The pickle.
        storages: The size in bytes of each storage in the archive, by key.

    Raises:
        ContentError: It is damaged, or holds more than weights and the state of training.
    """
    scan = _Scan(io.BytesIO(data), storages)
    scan.run()


def scan_legacy(file: BinaryIO) -> None:
    """Scan a file that torch wrote before version 1.6, or with ``_use_new_zipfile_serialization=False``.

    Raises:
        ContentError: It is damaged, or holds more than weights and the state of training.
    """
    size = file.seek(0, 2)
    file.seek(0)
    scan = _Scan(file, None)
    if scan.run() != _LEGACY_MAGIC or scan.run() != _LEGACY_VERSION:
        raise damaged('the file does not begin as a checkpoint')
    scan.run()  # the system that wrote it
    scan.largest = size
    scan.run()
    keys = scan.run()
    found = keys.info if isinstance(keys, _Made) and keys.kind == 'list' else None
    if found is None or len(found) != len(scan.found) or set(found) != set(scan.found):
        raise damaged('its tensors and its list of storages do not agree')
    if file.tell() + sum(8 + length for length in scan.found.values()) > size:
        raise damaged('the file is incomplete')


class _Scan:
    """The state of one file: opcodes and storages are counted over all of its pickles."""

    def __init__(self, file: BinaryIO, storages: Mapping[str, int] | None) -> None:
        self.file, self.storages = file, storages
        self.found: dict[str, int] = {}
        self.count = self.bytes = self.tensor_bytes = self.storage_bytes = 0
        self.largest = sum(storages.values()) if storages is not None else 0

    def read(self, length: int) -> bytes:
        self.bytes += length
        if self.bytes > LARGEST_PICKLE:
            raise refused(f'its pickle has more than {LARGEST_PICKLE} bytes')
        data = self.file.read(length)
        if len(data) < length:
            raise damaged('its pickle ends early')
        return data

    def line(self) -> str:
        line = self.file.readline(256)
        if not line.endswith(b'\n'):
            raise damaged('its pickle has no name where one belongs')
        return line[:-1].decode('utf-8')

    def run(self) -> Any:
        """Scan one pickle and return what it would make."""
        stack: list[Any] = []
        outer: list[list[Any]] = []
        memo: dict[int, Any] = {}
        read, read_any = self.file.read, self.read  # of a few bytes, of a number that the file declares
        while True:
            self.count += 1
            if self.count > _MOST_OPCODES:
                raise refused(f'its pickle has more than {_MOST_OPCODES} opcodes')
            op = read(1)
            if not op:
                raise damaged('its pickle ends early')
            if op in b'qr':  # BINPUT, LONG_BINPUT
                memo[read(1)[0] if op == b'q' else _unpack('<I', read(4))] = stack[-1]
            elif op in b'hj':  # BINGET, LONG_BINGET
                stack.append(memo[read(1)[0] if op == b'h' else _unpack('<I', read(4))])
            elif op == b'K':
                stack.append(read(1)[0])
            elif op == b'M':
                stack.append(_unpack('<H', read(2)))
            elif op == b'J':
                stack.append(_unpack('<i', read(4)))
            elif op == b'\x8a':  # LONG1
                stack.append(decode_long(read_any(read(1)[0])))
            elif op == b'G':
                stack.append(_unpack('>d', read(8)))
            elif op == b'X':  # BINUNICODE
                stack.append(str(read_any(_unpack('<I', read(4))), 'utf-8', 'surrogatepass'))
            elif op == b'U':  # SHORT_BINSTRING, of Python 2
                stack.append(read_any(read(1)[0]).decode('utf-8'))
            elif op in b'N\x88\x89':
                stack.append({b'N': None, b'\x88': True, b'\x89': False}[op])
            elif op == b'(':
                outer.append(stack)
                stack = []
            elif op == b't':
                items, stack = stack, outer.pop()
                stack.append(_tuple(items))
            elif op in b'\x85\x86\x87':  # TUPLE1 to TUPLE3
                length = op[0] - 0x84
                items = stack[-length:]
                if len(items) < length:
                    raise IndexError('pop from empty list')
                stack[-length:] = [_tuple(items)]
            elif op == b')':
                stack.append(_tuple([]))
            elif op == b']':
                stack.append(_Made('list', info=[]))
            elif op == b'}':
                stack.append(_Made('dict', info=[]))
            elif op == b'\x8f':
                stack.append(_Made('set'))
            elif op in b'ae':  # APPEND, APPENDS
                if op == b'a':
                    items = [stack.pop()]
                else:
                    items, stack = stack, outer.pop()
                _expect(stack[-1], 'list')
                _add(stack[-1], items, items)
            elif op in b'su':  # SETITEM, SETITEMS
                if op == b's':
                    items = [stack.pop(-2), stack.pop()]
                else:
                    items, stack = stack, outer.pop()
                _expect(stack[-1], 'dict', 'OrderedDict', 'Counter')
                _add(stack[-1], items, items[::2])
                if len(stack[-1].info) > _MOST_KEYS:
                    raise refused(f'a dict in it has more than {_MOST_KEYS} keys')
            elif op == b'c':
                stack.append(allowed(f'{self.line()} {self.line()}'))
            elif op == b'Q':  # BINPERSID
                stack.append(self.storage(stack.pop()))
            elif op == b'R':
                arguments = stack.pop()
                stack[-1] = self.call(stack[-1], arguments)
            elif op == b'\x81':  # NEWOBJ
                arguments, kind = stack.pop(), stack.pop()
                if kind != Global(HISTORY) or _items(arguments):
                    raise refused(f'it makes an object of {_name(kind)}')
                stack.append(_Made('history'))
            elif op == b'b':  # BUILD
                state = stack.pop()
                _check_state(stack[-1], state)
            elif op == b'\x80':
                if read(1) != b'\x02':
                    raise refused('its pickle is not of protocol 2, which torch.save writes')
            elif op == b'.':
                return stack.pop()
            else:
                raise damaged(f'its pickle has opcode {op!r}')

    def storage(self, pid: Any) -> _Made:
        items = _items(pid)
        if len(items) == 6 and items[5] is None and self.storages is None:
            items = items[:5]
        if len(items) != 5 or items[0] != 'storage' or type(items[2]) is not str or type(items[3]) is not str:
            raise damaged('a storage in its pickle is not described as torch does')
        _, kind, key, location, numel = items
        name = kind.name if isinstance(kind, Global) else None
        if name not in ITEM_SIZES or type(numel) is not int or numel < 0:
            raise damaged(f'storage {shown(key)} has no valid type and size')
        if location.partition(':')[0] in ('meta', ''):
            raise unusable('a tensor without values (of the meta device)')
        length = numel * ITEM_SIZES[name]
        if self.storages is not None and self.storages.get(key) != length:
            raise damaged(
                f'storage {shown(key)} is declared with {length} bytes, and the file has '
                f'{self.storages.get(key, "none of that name")}'
            )
        if key not in self.found:
            self.found[key] = length
            self.storage_bytes += length
        if self.found[key] != length:
            raise damaged(f'storage {shown(key)} is declared with two sizes')
        if self.storage_bytes > self.largest:
            raise damaged(f'it declares storages of {self.storage_bytes} bytes, more than the file has')
        return _Made('storage', info=(numel, ITEM_SIZES[name]))

    def call(self, function: Any, arguments: Any) -> Any:
        name, items = _name(function), _items(arguments)
        depth = arguments.depth + 1
        if name in TENSORS:
            return self.tensor(name, items)
        if name in CHECKED_LATER:
            return _Made('array' if name.endswith('_reconstruct') else name, depth)
        if name == '_codecs encode' and len(items) == 2 and type(items[0]) is str and items[1] == 'latin1':
            return items[0].encode('latin1')
        if name == 'collections OrderedDict' and (not items or _is(items[0], 'list')) and len(items) < 2:
            return _Made('OrderedDict', depth, list(items[0].info) if items else [])
        if name == 'collections Counter' and (not items or _is(items[0], 'dict')) and len(items) < 2:
            return _Made('Counter', depth, list(items[0].info) if items else [])
        if name in SETS and len(items) == 1 and _is(items[0], 'list'):
            return _Made('set', depth)
        if name == 'torch Size' and len(items) == 1:
            return _Made('size', depth, _sizes(items[0]))
        if name == 'torch device' and items and type(items[0]) is str:
            return _Made('device')
        if name in GETATTR and len(items) == 2 and items[0] == Global(HISTORY):
            return _Made('statistic')
        raise refused(f'it calls {name} in a way that is not needed for weights, which could run code')

    def tensor(self, name: str, items: list[Any]) -> _Made:
        if name.endswith('parameter'):
            if len(items) != 3 or not _is(items[0], 'tensor') or type(items[1]) is not bool:
                raise damaged('a parameter is not described as torch does')
            return _Made('tensor')
        if len(items) != (6 if name.endswith('v2') else 4) or not _is(items[0], 'storage'):
            raise damaged('a tensor is not described as torch does')
        (numel, item_size), offset = items[0].info, items[1]
        size, stride = _sizes(items[2]), _sizes(items[3])
        if len(size) != len(stride) or type(offset) is not int or offset < 0:
            raise damaged(f'a tensor of size {shown(size)} has stride {shown(stride)}')
        if all(size) and offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= numel:
            raise damaged(f'a tensor of size {shown(size)} is larger than its storage of {numel}')
        # Views share a storage; copies of them may need a multiple of it.
        self.tensor_bytes += math.prod(size) * item_size
        if self.tensor_bytes > 8 * self.largest + 2**26:
            raise refused(f'a tensor of size {shown(size)} repeats its storage of {numel}')
        return _Made('tensor')


def _unpack(form: str, data: bytes) -> Any:
    return struct.unpack(form, data)[0]


def _depth(items: list[Any]) -> int:
    return 1 + max([item.depth for item in items if type(item) is _Made], default=0)


def _tuple(items: list[Any]) -> _Made:
    return _Made('tuple', _depth(items), items)


def _add(container: _Made, items: list[Any], kept: list[Any]) -> None:
    """Add items to a container; it keeps strings alone, which keys and names of storages are."""
    depth = _depth(items)
    if depth > container.depth:
        if depth > _DEEPEST:
            raise refused(f'it is nested more than {_DEEPEST} levels deep')
        container.depth = depth
    container.info += [item if type(item) is str else None for item in kept]


def _is(value: Any, *kinds: str) -> bool:
    return type(value) is _Made and value.kind in kinds


def _expect(value: Any, *kinds: str) -> None:
    if not _is(value, *kinds):
        raise damaged(f'its pickle fills {_name(value)} as if it were a {kinds[0]}')


def _items(value: Any) -> list[Any]:
    _expect(value, 'tuple')
    items: list[Any] = value.info
    return items


def _sizes(value: Any) -> list[int]:
    items = value.info if _is(value, 'size', 'tuple') else []
    if not _is(value, 'size', 'tuple') or len(items) > 16 or any(type(n) is not int or n < 0 for n in items):
        raise damaged('a tensor without a valid size and stride')
    return list(items)


def _name(value: Any) -> str:
    if isinstance(value, Global):
        return value.name
    return value.kind if type(value) is _Made else type(value).__name__


def _check_state(target: Any, state: Any) -> None:
    """Check a BUILD: attributes of an object that exists."""
    if _is(target, 'array', 'numpy dtype') and _is(state, 'tuple'):
        return
    if _is(target, 'history') and _is(state, 'dict'):
        return
    # torch keeps the versions of modules as an attribute of a state dict.
    if _is(target, 'OrderedDict') and _is(state, 'dict') and set(state.info) <= {'_metadata'}:
        return
    raise refused(f'it sets attributes of {_name(target)}')
