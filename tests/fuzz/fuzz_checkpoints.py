"""Load changed checkpoint files for a while, in a process with limits, and report what should not happen.

    python tests/fuzz/fuzz_checkpoints.py --seconds 600

A file has to load, or be refused with a CheckpointError of one line, within 5 seconds of CPU time and 1 GB. It must not
end the process, raise anything else, touch a file outside its directory, open a connection or start a program; audit
events of Python show what it does, and a directory beside it what has changed. Files that fail are kept (``--keep``).
"""

import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PATIENCE, _START = 120, 600  # seconds without a sign of life, and until the first
_MEMORY = 2**30
_FORBIDDEN = (
    'socket.',
    'subprocess.',
    'os.system',
    'os.exec',
    'os.fork',
    'os.posix_spawn',
    'os.spawn',
    'ctypes.',
    'ftplib.',
)
_CHANGES = (
    'os.remove',
    'os.rename',
    'os.rmdir',
    'os.mkdir',
    'os.link',
    'os.symlink',
    'os.chmod',
    'os.chown',
    'os.truncate',
)
_CHANGES += ('shutil.', 'os.utime')


class Forbidden(BaseException):
    """Something that reading a file must not do."""


def work(directory: Path, seed: int, misbehave: bool) -> None:
    """Load files until the parent process stops this one; report each on standard output."""
    import resource

    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as start_from
    from mutations import FILES

    report = os.fdopen(os.dup(1), 'w', buffering=1)
    sys.stdout = sys.stderr = open(os.devnull, 'w')  # noqa: SIM115
    examine = _examiner(directory, misbehave)
    status = Path('/proc/self/status').read_text().split()
    limit = int(status[status.index('VmSize:') + 1]) * 1024 + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    report.write('ready\n')

    phases, checks = [Phase.generate], list(HealthCheck)
    while True:

        @start_from(seed)
        @settings(max_examples=200, deadline=None, database=None, phases=phases, suppress_health_check=checks)
        @given(FILES)
        def batch(file: bytes) -> None:
            (directory / 'current.pth').write_bytes(file)
            report.write(json.dumps(examine(directory / 'current.pth')) + '\n')

        batch()
        seed += 1_000_003


def _examiner(directory: Path, misbehave: bool):
    """Return the function that loads a file and returns what happened and why."""
    import copy
    import pickle

    from mmengine.logging import MessageHub
    from mmengine.runner import load_checkpoint
    from torch import nn

    from deformable_vit.checkpoints import CheckpointError, read_checkpoint, read_state_dict
    from deformable_vit.checkpoints.kept_files import forget_other_files

    watching = [False]

    def audit(event: str, arguments: tuple) -> None:
        if not watching[0]:
            return
        writes = event == 'open' and isinstance(arguments[2], int) and arguments[2] & (os.O_ACCMODE | os.O_CREAT)
        if event.startswith(_FORBIDDEN):
            raise Forbidden(event)
        inside = arguments and str(arguments[0]).startswith((str(directory), os.devnull))
        if (writes or event.startswith(_CHANGES)) and not inside:
            raise Forbidden(f'{event} {arguments!r}'[:200])

    sys.addaudithook(audit)
    count = 0

    def load(path: str) -> None:
        nonlocal count
        count += 1
        if misbehave:
            _misbehave(count, directory)
        checkpoint = read_checkpoint(path)
        pickle.dumps(copy.deepcopy(checkpoint))
        read_state_dict(path)
        load_checkpoint(nn.Linear(3, 2), path, map_location='cpu')
        if 'message_hub' in checkpoint:
            hub = MessageHub('fuzz')
            hub.load_state_dict(checkpoint['message_hub'])
            forget_other_files(hub.runtime_info, str(directory / 'none'), 'epoch_{}.pth')
            for history in hub.log_scalars.values():
                if len(history.data[0]):
                    history.mean(), history.current()

    def examine(path: Path) -> tuple[str, str]:
        start = time.process_time()
        watching[0] = True
        try:
            load(str(path))
            found = 'loaded', ''
        except CheckpointError as error:
            message = str(error)
            found = ('refused', message) if message.isprintable() and len(message) < 1000 else ('not one line', message)
            if 'MemoryError' in message:
                found = 'memory', message
        except Forbidden as error:
            found = 'forbidden', str(error)
        except BaseException as error:  # whatever a file can cause is a finding
            found = 'raised', f'{type(error).__name__}: {error}'
        finally:
            watching[0] = False
        return ('slow', found[1]) if time.process_time() - start > 5 else found

    return examine


def _misbehave(count: int, directory: Path) -> None:
    """Do what the audit has to find, to test it."""
    import ctypes
    import socket

    if count == 2:
        raise KeyError('raised')
    if count == 3:
        (directory.parent / 'outside' / 'new').touch()
    if count == 4:
        socket.create_connection(('127.0.0.1', 9), 0.1)
    if count == 5:
        os.remove(directory.parent / 'outside' / 'canary')
    if count == 6:
        ctypes.string_at(0)
    if count == 7:
        os.abort()


def fuzz(seconds: float, seed: int, keep: Path, misbehave: bool = False) -> Counter[str]:
    """Return how often which result was seen; files other than loaded and refused lie in ``keep``."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        directory, outside = Path(name, 'work'), Path(name, 'outside')
        directory.mkdir()
        outside.mkdir()
        (outside / 'canary').write_text('unchanged')
        left = seconds
        while left > 0:
            left -= _run_worker(directory, left, seed, misbehave, found, keep)
            seed += 1
            if misbehave:  # once is enough
                break
        if [path.name for path in outside.iterdir()] != ['canary'] or (outside / 'canary').read_text() != 'unchanged':
            found['files touched'] += 1
    return found


def _run_worker(directory: Path, seconds: float, seed: int, misbehave: bool, found: Counter[str], keep: Path) -> float:
    """Run one process until the time is over or it ends by itself; return the time that it took."""
    command = [sys.executable, __file__, '--worker', str(directory), '--seed', str(seed)]
    path = os.pathsep.join([str(ROOT / 'tests'), str(ROOT / 'tests' / 'fuzz'), os.environ.get('PYTHONPATH', '')])
    environment = os.environ | {'PYTHONPATH': path, 'CUDA_VISIBLE_DEVICES': ''}
    process = subprocess.Popen(
        [*command, *(['--misbehave'] if misbehave else [])],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        cwd=directory,
    )
    assert process.stdout is not None
    launched, started, result = time.monotonic(), None, None
    try:
        while started is None or time.monotonic() < started + seconds:
            if not select.select([process.stdout], [], [], _PATIENCE if started else _START)[0]:
                result = 'hung'
                break
            line = process.stdout.readline()
            if not line:
                result = f'ended with {process.wait()}'
                break
            if line == 'ready\n':
                started = time.monotonic()
                continue
            kind, message = json.loads(line)
            found[kind] += 1
            if kind not in ('loaded', 'refused'):
                _keep(directory / 'current.pth', keep, kind, message)
    finally:
        process.kill()
        process.wait()
    if started is None:
        raise RuntimeError(f'the process that loads files {result or "did not start"}')
    if result:
        found[result] += 1
        _keep(directory / 'current.pth', keep, result, '')
    return time.monotonic() - launched  # a process that ends at once costs its start


def _keep(file: Path, keep: Path, kind: str, message: str) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    target = keep / f'{kind.replace(" ", "_")}_{len(list(keep.iterdir()))}.pth'
    shutil.copy(file, target)
    print(f'{kind}: {message[:300]!a}: {target}', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=60, help='how long to load files')
    parser.add_argument('--seed', type=int, default=0, help='of the changes')
    parser.add_argument('--keep', type=Path, default=Path('work_dirs/fuzz'), help='where files that fail are kept')
    parser.add_argument('--worker', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--misbehave', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.seed, args.misbehave)
    found = fuzz(args.seconds, args.seed, args.keep.absolute(), args.misbehave)
    failed = sum(found.values()) - found['loaded'] - found['refused']
    print(f'{sum(found.values())} files: ' + ', '.join(f'{count} {kind}' for kind, count in found.most_common()))
    sys.exit(failed > 0)


if __name__ == '__main__':
    main()
