"""What tests need to run the tools."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Always the CPU, so that results do not depend on the machine.
ENVIRONMENT = os.environ | {
    'PYTHON': sys.executable,
    'PYTHONPATH': f'{ROOT / "tests"}{os.pathsep}{ROOT / "projects"}',
    'CUDA_VISIBLE_DEVICES': '',
}


def exit_status(main: Callable[[], None]) -> int:
    """Call the main function of a tool in this process and return the exit status that the tool would have."""
    try:
        main()
    except SystemExit as ended:
        return ended.code
    return 0


def read_metrics(work_dir: Path) -> dict[str, float]:
    """Return the metrics of the last test in a work directory, which mmengine writes as a line of JSON."""
    newest = max(work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    # All processes of a test write it, also at the same time: the longer text has an end of its own.
    return json.JSONDecoder().raw_decode(newest.read_text().splitlines()[-1])[0]
