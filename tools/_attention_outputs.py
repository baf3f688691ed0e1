"""The files that tools/visualize_attention.py writes: checked before the model is loaded, written at the end."""

import os
from collections.abc import Mapping
from pathlib import Path

from deformable_vit.engine import UserError


def printable(name: str) -> str:
    """Return a file name as text that every encoding and page can hold; names on Linux are bytes."""
    return os.fsencode(name).decode(errors='replace')


def check_outputs(outputs: Mapping[str, str], inputs: Mapping[str, str], overwrite: bool) -> None:
    """Check that all outputs can be written, and that no file of the user's is lost.

    Args:
        outputs: Files by the option that names them.
        inputs: Files that are read, by what they are; they are never replaced.
        overwrite: Whether existing files may be replaced.

    Raises:
        UserError: One cannot be written, exists, or is an input or another output.
    """
    seen = {f'the {what}': name for what, name in inputs.items() if '://' not in name}
    for option, file in outputs.items():
        where = f'{option} {printable(file)}'
        try:
            for what, name in seen.items():
                if _is_same(Path(file), Path(name)):
                    raise UserError(f'{where} is {what}; choose another file')
            if Path(file).is_dir():
                raise UserError(f'{where} is a directory; name a file')
            if Path(file).exists() and not overwrite:
                raise UserError(f'{where} exists already; choose another file, or pass --overwrite to replace it')
            _check_writable(Path(file))
        except (OSError, RuntimeError) as error:  # RuntimeError: a symbolic link that leads to itself
            raise UserError(f'{where} cannot be written: {getattr(error, "strerror", None) or error}') from error
        seen[f'the file of {option}'] = file


def _is_same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


def _check_writable(file: Path) -> None:
    """Raise an OSError if a file can be neither replaced nor created; directories may be missing."""
    if not file.name:
        raise OSError(None, 'it names no file')
    if file.exists():
        if not os.access(file, os.W_OK):
            raise PermissionError(None, 'Permission denied')
        return
    directory = file.parent
    while not directory.exists():
        directory = directory.parent
    if not directory.is_dir():
        raise NotADirectoryError(None, f'{directory} is not a directory')
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(None, f'Permission denied ({directory})')


def write(file: str, data: bytes) -> None:
    """Write a file, with its directories.

    Raises:
        UserError: It cannot be written.
    """
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_bytes(data)
    except OSError as error:
        raise UserError(f'{printable(file)} cannot be written: {error.strerror or error}') from error
