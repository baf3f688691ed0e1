import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from few_images import config, shapes  # noqa: F401  fixtures
from running import ENVIRONMENT, ROOT

Run = Callable[..., subprocess.CompletedProcess]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tool(tmp_path: Path) -> Run:
    """Run one of the tools as a user does, in its own process and an empty directory."""

    def run(name: str, *args: object, ok: bool = True, **env: str) -> subprocess.CompletedProcess:
        command = [str(ROOT / 'tools' / name), *map(str, args)]
        if name.endswith('.py'):
            command.insert(0, sys.executable)
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=ENVIRONMENT | env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if ok:
            assert done.returncode == 0, done.stderr[-3000:]
        return done

    return run


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run one of the tools in this process, for speed; return its exit status and what it prints."""

    def run(name: str, *args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        try:
            runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
        except SystemExit as exit_:
            return int(exit_.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run
