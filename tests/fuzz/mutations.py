"""Changed checkpoint files: bytes, opcodes of the pickle with valid checksums, and records of the archive."""

import io
import pickletools
import zipfile
from collections.abc import Callable
from typing import Any

from hostile_files import HOSTILE, archive, legacy, saved, training_state
from hypothesis import strategies as st

_STATES = [training_state(), training_state(as_plain=True), {'model': training_state()['state_dict']}]
ARCHIVES = [saved(state) for state in _STATES]
ARCHIVES += [content for content, _ in HOSTILE.values() if isinstance(content, bytes) and 4 < len(content) < 10**5]
ARCHIVES += [saved(content) for content, _ in HOSTILE.values() if not isinstance(content, bytes)]
ARCHIVES = [file for file in ARCHIVES if file.startswith(b'PK') and zipfile.is_zipfile(io.BytesIO(file))]
LEGACY = [legacy(state) for state in _STATES]
_NUMBERS = [
    b'K\x00',
    b'K\x01',
    b'J\xff\xff\xff\xff',
    b'\x8a\x08' + b'\xff' * 7 + b'\x7f',
    b'G\x7f\xf8' + bytes(6),
    b'N',
]
_GLOBALS = [
    f'c{module}\n{name}\n'.encode()
    for module, name in [
        ('os', 'system'),
        ('builtins', 'eval'),
        ('builtins', 'open'),
        ('socket', 'create_connection'),
        ('shutil', 'rmtree'),
        ('__builtin__', 'getattr'),
        ('__builtin__', 'set'),
        ('_codecs', 'encode'),
        ('collections', 'OrderedDict'),
        ('collections', 'Counter'),
        ('numpy', 'ndarray'),
        ('numpy', 'dtype'),
        ('numpy._core.multiarray', '_reconstruct'),
        ('numpy._core.multiarray', 'scalar'),
        ('mmengine.logging.history_buffer', 'HistoryBuffer'),
        ('torch', 'FloatStorage'),
        ('torch', 'Size'),
        ('torch', 'device'),
        ('torch._utils', '_rebuild_tensor'),
        ('torch._utils', '_rebuild_tensor_v2'),
        ('torch._utils', '_rebuild_parameter'),
        ('torch._utils', '_rebuild_qtensor'),
    ]
]
_SIMPLE = [bytes([code]) for code in b'()]}NRQabesut.\x81\x85\x86\x87\x88\x89']
FRAGMENTS = [*_NUMBERS, *_GLOBALS, *_SIMPLE, b'h\x00', b'q\x00', b'X\x06\x00\x00\x00latin1', b'X\x02\x00\x00\x00\n\x1b']


def opcodes(data: bytes) -> list[bytes]:
    """Return a pickle as a list of opcodes with their arguments; what does not parse is one piece."""
    starts = []
    try:
        starts = [position for _, _, position in pickletools.genops(data)]
    except Exception:  # pickletools raises whatever it meets
        starts = starts or [0]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def _read(file: bytes) -> dict[str, bytes]:
    records = {}
    with zipfile.ZipFile(io.BytesIO(file)) as opened:
        for record in opened.infolist():
            try:
                records[record.filename.partition('/')[2]] = opened.read(record)
            except Exception:  # one of the damaged files
                records[record.filename.partition('/')[2]] = b''
    return records


# The record data.pkl and the others of each archive.
_RECORDS = [_read(file) for file in ARCHIVES]
_OPCODES = [opcodes(records.get('data.pkl', b'')) for records in _RECORDS]


def _edited(draw: st.DrawFn, pieces: list[Any], new: Callable[[], Any], most: int = 6) -> list[Any]:
    """Delete, repeat, exchange, replace and insert pieces."""
    pieces = list(pieces)
    for _ in range(draw(st.integers(1, most))):
        if not pieces:
            return [new()]
        kind = draw(st.sampled_from(['delete', 'repeat', 'exchange', 'replace', 'insert', 'move']))
        at, other = (draw(st.integers(0, len(pieces) - 1)) for _ in range(2))
        if kind == 'delete':
            del pieces[at : at + draw(st.integers(1, 3))]
        elif kind == 'repeat':
            pieces[at:at] = pieces[at : at + 3] * draw(st.integers(1, 20))
        elif kind == 'exchange':
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif kind == 'replace':
            pieces[at] = new()
        elif kind == 'insert':
            pieces.insert(at, new())
        else:
            pieces.insert(other, pieces.pop(at))
    return pieces


@st.composite
def changed_opcodes(draw: st.DrawFn) -> bytes:
    """Another pickle in an archive whose checksums are valid."""
    # The first three are real files, which change most often.
    index = draw(st.one_of(st.integers(0, 2), st.integers(0, len(_RECORDS) - 1)))
    pieces = _edited(draw, _OPCODES[index], lambda: draw(st.sampled_from(FRAGMENTS)))
    if draw(st.booleans()):  # and another argument
        at = draw(st.integers(0, max(len(pieces) - 1, 0)))
        if pieces and len(pieces[at]) > 1:
            piece = bytearray(pieces[at])
            piece[draw(st.integers(1, len(piece) - 1))] = draw(st.integers(0, 255))
            pieces[at] = bytes(piece)
    records = dict(_RECORDS[index])
    records.pop('data.pkl', None)
    return archive(b''.join(pieces), records)


@st.composite
def changed_records(draw: st.DrawFn) -> bytes:
    """Other records in an archive, and other bytes in its directory."""
    records = list(_RECORDS[draw(st.integers(0, 2))].items())
    names = st.sampled_from([name for name, _ in records] + ['../x', 'data/99', 'data.pkl', 'constants.pkl', ''])
    changed = _edited(draw, records, lambda: (draw(names), draw(st.binary(max_size=64))), 3)
    file = io.BytesIO()
    method = draw(st.sampled_from([zipfile.ZIP_STORED] * 3 + [zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(file, 'w', method) as opened:
        for name, content in changed:
            opened.writestr(f'{draw(st.sampled_from(["archive"] * 9 + ["x"]))}/{name}', content)
    data = bytearray(file.getvalue())
    for _ in range(draw(st.integers(0, 3))):
        data[-draw(st.integers(1, min(len(data), 400)))] = draw(st.integers(0, 255))
    return bytes(data)


@st.composite
def changed_bytes(draw: st.DrawFn) -> bytes:
    """Other bytes anywhere, a part only, or a part twice."""
    data = bytearray(draw(st.sampled_from([*ARCHIVES[:3], *LEGACY])))
    for _ in range(draw(st.integers(0, 5))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    kind = draw(st.sampled_from(['same', 'cut', 'remove', 'repeat']))
    a, b = sorted(draw(st.integers(0, len(data))) for _ in range(2))
    if kind == 'cut':
        del data[a:]
    elif kind == 'remove':
        del data[a:b]
    elif kind == 'repeat':
        data[a:a] = data[a:b]
    return bytes(data)


@st.composite
def changed_legacy(draw: st.DrawFn) -> bytes:
    """Other opcodes in a file of the old format, before the values of its tensors."""
    file = draw(st.sampled_from(LEGACY))
    pieces, rest = [], file
    for _ in range(5):
        pickle = opcodes(rest)
        length = sum(map(len, pickle[:-1])) + 1  # genops ends with the opcode STOP, of one byte
        pieces += opcodes(rest[:length])
        rest = rest[length:]
    return b''.join(_edited(draw, pieces, lambda: draw(st.sampled_from(FRAGMENTS)))) + rest


FILES = st.one_of(changed_opcodes(), changed_opcodes(), changed_legacy(), changed_records(), changed_bytes())
