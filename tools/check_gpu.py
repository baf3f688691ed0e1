"""Check and measure this package on a GPU. The report, in Markdown, can be pasted into an issue.

    python tools/check_gpu.py                   all checks of tools/dev/gpu_checks.py; `make gpu` sets up and does this
    python tools/check_gpu.py --quick           compare the backends of deformable attention, in 8 minutes at most
    python tools/check_gpu.py --compile-only    print what the Triton kernels take of a GPU; needs none

The last two need PyTorch 2.11 or newer, Triton, tools and projects/deformable_vit/ops, but no other package.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import types
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
CHECKS = ROOT / 'tools' / 'dev' / 'gpu_checks.py'
# Minutes that each of its parts may take.
PARTS = dict(mmcv=30, tests=15, parity=15, amp=5, compile=20, distributed=5, times=60)
PACKAGES = ('triton', 'mmcv', 'onedl-mmcv', 'mmdet', 'onedl-mmdetection')


class Report:
    """Tables of a Markdown file, which is written again with each row, so that an interrupted check leaves one."""

    def __init__(self, file: Path, title: str) -> None:
        self.file, self.title = file, title
        self.tables: dict[str, list[dict[str, str]]] = {}

    def add(self, table: str, /, **cells: str) -> None:
        """Append a row to a table; print and write it."""
        self.tables.setdefault(table, []).append(cells)
        print(f'{table}: {", ".join(f"{name} {cell}" for name, cell in cells.items() if cell)}', flush=True)
        self.file.write_text(self.text())

    def text(self) -> str:
        """Return the report; a table has the columns of all of its rows."""
        parts = [f'# {self.title}']
        for title, rows in self.tables.items():
            columns = list(dict.fromkeys(name for row in rows for name in row))
            cells = [columns, ['---'] * len(columns), *([row.get(name, '') for name in columns] for row in rows)]
            parts.append(f'## {title}\n\n' + '\n'.join(f'| {" | ".join(row)} |' for row in cells))
        return '\n\n'.join(parts) + '\n'


def one_line(error: BaseException | str) -> str:
    """Return the last line of an error, without what a table cannot hold."""
    text = error if isinstance(error, str) else f'{type(error).__name__}: {error}'
    return ([line for line in text.splitlines() if line.strip()] or [''])[-1].replace('|', '/')[:300]


def short(dtype: torch.dtype) -> str:
    """Return the name of a dtype in tables."""
    return str(dtype).removeprefix('torch.')


def import_ops() -> Any:
    """Import ``deformable_vit.ops`` without the package around it, whose ``__init__`` needs mmengine."""
    package = types.ModuleType('deformable_vit')
    package.__path__ = [str(ROOT / 'projects' / 'deformable_vit')]
    sys.modules.setdefault('deformable_vit', package)
    return importlib.import_module('deformable_vit.ops')


def machine(report: Report, device: str) -> None:
    """Report the machine and the versions of what is installed."""
    row = partial(report.add, 'Machine')
    if device == 'cuda':
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            memory = f'{properties.total_memory / 2**30:.0f} GiB, compute capability'
            row(what=f'GPU {i}', value=f'{properties.name}, {memory} {properties.major}.{properties.minor}')
        query = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        row(what='driver', value=done.stdout.split('\n')[0])
    row(what='Python', value=platform.python_version())
    row(what='torch', value=f'{torch.__version__}, CUDA {torch.version.cuda}')
    for package in PACKAGES:
        try:
            row(what=package, value=metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    done = subprocess.run(
        ['git', 'describe', '--always', '--dirty'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    row(what='revision', value=done.stdout.strip() or 'unknown')


def check_all(report: Report, smoke: bool) -> bool:
    """Run every part of the checks in a process of its own; return whether all of them passed."""
    passed = True
    for part, minutes in PARTS.items():
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            rows = Path(directory) / 'rows.json'
            command = [sys.executable, str(CHECKS), part, str(rows), *(['--smoke'] if smoke else [])]
            path = os.pathsep.join([str(ROOT / 'projects'), str(ROOT / 'tools'), os.environ.get('PYTHONPATH', '')])
            log = (report.file.parent / f'{report.file.stem}-{part}.log').resolve()
            try:
                with log.open('w') as output:
                    done = subprocess.run(
                        command, cwd=ROOT, env=os.environ | {'PYTHONPATH': path}, stdout=output,
                        stderr=subprocess.STDOUT, timeout=60 * minutes, check=False,
                    )  # fmt: skip
                result = 'passed' if done.returncode == 0 else f'failed: {one_line(log.read_text(errors="replace"))}'
            except subprocess.TimeoutExpired:
                result = f'failed: it took more than {minutes} minutes'
            for table, found in json.loads(rows.read_text()).items() if rows.exists() else ():
                for cells in found:
                    report.add(table, **cells)
        passed = passed and result == 'passed'
        report.add('Parts', part=part, result=result, seconds=f'{time.monotonic() - start:.0f}', log=log.name)
    return passed


def compile_only(report: Report) -> None:
    """Report registers, spills and shared memory of the Triton kernels, compiled for GPUs that need not be there."""
    import_ops()
    for row in importlib.import_module('deformable_vit.ops.triton_compile').compile_report():
        tiles = ', '.join(f'{name} {value}' for name, value in row['tile'].items())
        report.add('Triton kernels', **{name: str(value) for name, value in (row | {'tile': tiles}).items()})


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument('--quick', action='store_true', help='compare the backends of deformable attention only')
    mode.add_argument('--compile-only', action='store_true', help='compile the Triton kernels only; needs no GPU')
    parser.add_argument('--out', type=Path, default=Path('gpu-report.md'), help='default: gpu-report.md')
    # For the tests: tiny sizes on the CPU, in Triton's interpreter.
    parser.add_argument('--smoke', action='store_true', help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.smoke:
        os.environ['TRITON_INTERPRET'] = '1'  # read when triton is imported
    elif args.compile_only and find_spec('triton') is None:
        sys.exit('check_gpu.py: error: --compile-only needs triton, which is not installed')
    elif not args.compile_only and not torch.cuda.is_available():
        sys.exit(f'check_gpu.py: error: torch {torch.__version__} can use no CUDA GPU here; --compile-only needs none')
    title = 'Triton kernels' if args.compile_only else 'GPU report (quick)' if args.quick else 'GPU report'
    report, passed = Report(args.out, title), True
    machine(report, 'cpu' if args.smoke or args.compile_only else 'cuda')
    if args.compile_only:
        compile_only(report)
    elif args.quick:
        sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'tools' / 'dev')]
        importlib.import_module('gpu_quick').Quick(report, import_ops(), args.smoke).run()
    else:
        passed = check_all(report, args.smoke)
    print(f'\nThe report is {args.out}.')
    sys.exit(0 if passed else 1)


if __name__ == '__main__':
    main()
