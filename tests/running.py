"""Helpers for tests that run the tools."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]


def metrics(work_dir: Path) -> dict[str, float]:
    """What the last test in a work dir measured: mmengine leaves it as a line of JSON."""
    newest = max(work_dir.glob('*/*.json'), key=lambda p: p.stat().st_mtime)
    return json.loads(newest.read_text().splitlines()[-1])
