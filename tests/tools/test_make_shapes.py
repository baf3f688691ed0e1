"""tools/make_shapes.py: the command line of the synthetic images."""

from pathlib import Path

import pytest

FEW = ('--train', '2', '--val', '1', '--objects', '1', '--size', '64')


@pytest.mark.slow
def test_make_shapes_writes_once_and_overwrites_on_request(tool, tmp_path: Path) -> None:
    done = tool('make_shapes.py', 'shapes', *FEW)
    assert 'shapes: written' in done.stdout
    assert '13/13' in done.stderr  # progress bar: 3 images, and 2 single-object images of each of 5 classes
    assert len(list((tmp_path / 'shapes').rglob('*.jpg'))) == 3 + 3 + 10
    assert 'exists already, with these settings' in tool('make_shapes.py', 'shapes', *FEW).stdout

    for args, words in (
        (('shapes',), '--overwrite replaces them'),
        (('other', '--size', '10'), 'size must be at least 48'),
    ):
        done = tool('make_shapes.py', *args, ok=False)
        assert done.returncode == 2
        assert words in done.stderr.splitlines()[-1]
    assert 'written' in tool('make_shapes.py', 'shapes', *FEW, '--seed', '3', '--overwrite').stdout
