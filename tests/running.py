"""What tests need to run the tools."""

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
