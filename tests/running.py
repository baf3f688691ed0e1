"""Helpers for tests that run the tools."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# The CPU, also where there is a GPU: the same figures everywhere.
ENVIRONMENT = os.environ | {
    'PYTHON': sys.executable,
    'PYTHONPATH': str(ROOT / 'tests'),
    'CUDA_VISIBLE_DEVICES': '',
}
