"""tools/make_shapes.py: the command line of the synthetic images."""

import sys
from pathlib import Path

import make_shapes
import pytest
from running import exit_status

FEW = ('shapes', '--train', '2', '--val', '1', '--objects', '1', '--size', '64')


def test_make_shapes_writes_once_and_replaces_other_settings_on_request_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def run(*args: str) -> int:
        monkeypatch.setattr(sys, 'argv', ['make_shapes.py', *args])
        return exit_status(make_shapes.main)

    monkeypatch.chdir(tmp_path)
    assert run(*FEW) == 0
    assert capsys.readouterr().out == 'shapes: written\n'
    images = sorted((tmp_path / 'shapes').rglob('*.jpg'))
    assert len(images) == 3 + 3 + 10  # COCO, ADE20K, ImageNet
    before = images[0].read_bytes()
    assert run(*FEW) == 0
    assert capsys.readouterr().out == 'shapes: exists already, with these settings\n'
    assert run(*FEW, '--seed', '3') == 2
    assert '--overwrite replaces' in capsys.readouterr().err.splitlines()[-1]
    assert images[0].read_bytes() == before
    assert run(*FEW, '--seed', '3', '--overwrite') == 0
    assert images[0].read_bytes() != before
    capsys.readouterr()
    assert run('shapes', '--size', '10') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'size must be at least 48' in line
