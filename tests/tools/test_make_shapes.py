"""tools/make_shapes.py: the command line of the built-in data."""

from pathlib import Path

FEW = ('--train', '2', '--val', '1', '--portraits', '1', '--size', '64')


def test_make_shapes(tool, tmp_path: Path) -> None:
    done = tool('make_shapes.py', 'shapes', *FEW)
    assert 'shapes: written' in done.stdout
    assert '13/13' in done.stderr  # the progress bar: 3 scenes, and 2 portraits of each of 5 classes
    assert len(list((tmp_path / 'shapes').rglob('*.jpg'))) == 3 + 3 + 10
    assert 'is there already, with these settings' in tool('make_shapes.py', 'shapes', *FEW).stdout

    for args, words in (
        (('shapes',), '--overwrite replaces them'),
        (('other', '--size', '10'), 'size must be at least 48'),
    ):
        done = tool('make_shapes.py', *args, ok=False)
        assert done.returncode == 2
        assert words in done.stderr.splitlines()[-1]
    assert 'written' in tool('make_shapes.py', 'shapes', *FEW, '--seed', '3', '--overwrite').stdout
