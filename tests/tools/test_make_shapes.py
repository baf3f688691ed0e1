"""tools/make_shapes.py: the command line of the synthetic images."""

import sys
from collections.abc import Callable
from pathlib import Path

import make_shapes
import pytest
from running import exit_status

FEW = ('--train', '2', '--val', '1', '--objects', '1', '--size', '64')

Main = Callable[..., int]


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """Run the tool's main function in an empty directory; return its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> int:
        monkeypatch.setattr(sys, 'argv', ['make_shapes.py', *args])
        return exit_status(make_shapes.main)

    return run


def test_make_shapes_writes_all_images_once(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main('shapes', *FEW) == 0
    printed = capsys.readouterr()
    assert printed.out == 'shapes: written\n'
    assert '13/13' in printed.err  # progress bar: 3 images, and 2 single-object images of each of 5 classes
    assert len(list((tmp_path / 'shapes').rglob('*.jpg'))) == 3 + 3 + 10  # COCO, ADE20K, ImageNet
    assert main('shapes', *FEW) == 0
    assert capsys.readouterr().out == 'shapes: exists already, with these settings\n'


def test_make_shapes_replaces_other_settings_on_request_only(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main('shapes', *FEW) == 0
    file = tmp_path / 'shapes' / 'coco' / 'train2017' / '000001.jpg'
    before = file.read_bytes()
    assert main('shapes', *FEW, '--seed', '3') == 2
    assert '--overwrite replaces' in capsys.readouterr().err.splitlines()[-1]
    assert file.read_bytes() == before
    assert main('shapes', *FEW, '--seed', '3', '--overwrite') == 0
    assert file.read_bytes() != before


def test_an_invalid_size_is_a_one_line_error(main: Main, capsys: pytest.CaptureFixture) -> None:
    assert main('shapes', '--size', '10') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'size must be at least 48' in line
