"""What tests need to run the tools."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Always the CPU, so that results do not depend on the machine.
ENVIRONMENT = os.environ | {
    'PYTHON': sys.executable,
    'PYTHONPATH': str(ROOT / 'tests'),
    'CUDA_VISIBLE_DEVICES': '',
}
