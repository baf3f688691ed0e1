"""Changed checkpoints load or are refused on one line, and touch nothing else: ten minutes each night.

PYTHONPATH=projects:tests python tests/fuzz/test_fuzz_checkpoints.py DIRECTORY SECONDS loads such files for longer. The
one that fails stays in the directory.
"""

import io
import json
import os
import pickletools
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hostile_files import HOSTILE, legacy, rebuilt, saved, training_state
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from running import ENVIRONMENT

_NAMES = """collections OrderedDict, numpy ndarray, numpy dtype, numpy._core.multiarray _reconstruct, _codecs encode,
numpy._core.multiarray scalar, mmengine.logging.history_buffer HistoryBuffer, torch FloatStorage, torch Size,
torch._utils _rebuild_tensor_v2, torch._utils _rebuild_parameter, __builtin__ getattr, posix system, builtins eval,
builtins open, socket create_connection"""
FRAGMENTS = [f'c{name.strip()}\n'.replace(' ', '\n').encode() for name in _NAMES.split(',')]
FRAGMENTS += [bytes([code]) for code in b'()]}NRQabesut.\x81\x85\x86\x87\x88\x89']
FRAGMENTS += [b'K\x00', b'J\xff\xff\xff\xff', b'\x8a\x08' + b'\xff' * 7 + b'\x7f', b'h\x00', b'q\x00', b'X\1\0\0\0\x1b']
FILES = [saved(training_state()), legacy(training_state())]
FILES += [file if isinstance(file, bytes) else saved(file) for file, _ in HOSTILE.values()]
FORBIDDEN = ('socket.', 'subprocess.', 'os.system', 'os.exec', 'os.fork', 'os.posix_spawn', 'ctypes.', 'shutil.')
FORBIDDEN += ('os.remove', 'os.rename', 'os.rmdir', 'os.mkdir', 'os.link', 'os.symlink', 'os.chmod', 'os.truncate')

TEMPORARY = os.path.join(tempfile.gettempdir(), 'tmp')


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A file with other bytes, or with other opcodes and valid checksums."""

    def edited(pieces: list[bytes]) -> bytes:
        for _ in range(draw(st.integers(1, 6))):
            at, other = (draw(st.integers(0, len(pieces))) for _ in range(2))
            new = draw(st.sampled_from(FRAGMENTS))
            replacement = draw(st.sampled_from([[new], [], pieces[other : other + 3], [new] * 20]))
            pieces[at : at + draw(st.integers(0, 2))] = replacement
        return b''.join(pieces)

    def other_opcodes(data: bytes) -> bytes:
        starts = [0]
        try:
            starts += [position for _, _, position in pickletools.genops(data) if position]
        except Exception:  # pickletools raises whatever it meets
            starts.append(len(data) // 2)
        return edited([data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)])

    file = draw(st.sampled_from(FILES[:2]) | st.sampled_from(FILES))
    if draw(st.booleans()):
        return edited([file[n : n + 1] for n in range(len(file))])
    return rebuilt(file, other_opcodes) if zipfile.is_zipfile(io.BytesIO(file)) else other_opcodes(file)


class Forbidden(BaseException):
    """Something that loading a file must not do."""


def main(path: Path, seconds: float) -> None:
    """Write and load changed files for some seconds; raise what one causes that is not a CheckpointError."""
    from deformable_vit.checkpoints import read_checkpoint
    from deformable_vit.errors import CheckpointError

    watching, found, end = False, Counter[str](), time.monotonic() + seconds

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == 'open' and isinstance(arguments[2], int) and arguments[2] & (os.O_ACCMODE | os.O_CREAT)
        # torch makes an empty directory before it refuses a tar file.
        temporary = event in ('os.mkdir', 'os.rmdir', 'shutil.rmtree') and str(arguments[0]).startswith(TEMPORARY)
        if watching and (event.startswith(FORBIDDEN) or writes) and not temporary:
            raise Forbidden(f'{event} {arguments!r}')

    def load(file: bytes) -> None:
        nonlocal watching
        path.write_bytes(file)
        signal.alarm(60)  # how long torch takes is its business
        watching = True
        try:
            read_checkpoint(path)
            found['loaded'] += 1
        except CheckpointError as error:
            found['refused' if str(error).isprintable() else 'refused on several lines'] += 1
        finally:
            watching = False

    sys.addaudithook(audit)
    limits = dict(max_examples=200, deadline=None, database=None, phases=[Phase.generate])
    while time.monotonic() < end:
        seed(sum(found.values()))(settings(**limits, suppress_health_check=list(HealthCheck))(given(changed())(load)))()
    print(json.dumps(found))


def _raise_timeout(*_: object) -> None:
    raise TimeoutError


@pytest.mark.nightly
@pytest.mark.slow
def test_changed_checkpoints_load_or_are_refused(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, __file__, str(tmp_path), '600']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]).keys() == {'loaded', 'refused'}
    assert [file.name for file in tmp_path.iterdir()] == ['current.pth']


if __name__ == '__main__':
    signal.signal(signal.SIGALRM, _raise_timeout)
    main(Path(sys.argv[1], 'current.pth'), float(sys.argv[2]))
