"""The checkpoints of a work directory from which a training can continue."""

import re
import zipfile
from pathlib import Path

from mmengine.logging import print_log

# epoch_12, iter_4000, interrupted_epoch_3_iter_450 and those of other templates; not the best ones, which have weights
# only. The numbers are complete epochs and iterations.
_NUMBERED = re.compile(r'(?!best_)(?:.*?\D)?(\d+)(?:_iter_(\d+))?')


def resumable_checkpoints(work_dir: str | Path) -> list[Path]:
    """Return the checkpoints of a training, the newest first.

    Truncated files are left out with a line in the log; the files are not read.

    Args:
        work_dir: Where ``last_checkpoint`` names a file without a number in its name, or in another directory.
    """
    named = _last_checkpoint(Path(work_dir))
    directories = {Path(work_dir), *([named.parent] if named else [])}
    found = {file: _NUMBERED.fullmatch(file.stem) for directory in directories for file in directory.glob('*.pth')}
    numbers = {
        file: (int(match[1]), int(match[2] or 0)) if match else (-1, 0)
        for file, match in found.items()
        if match or file == named
    }
    whole = []
    for file in sorted(numbers, key=lambda file: numbers[file], reverse=True):
        if file.is_dir() or zipfile.is_zipfile(file):  # DeepSpeed writes directories
            whole.append(file)
        else:
            print_log(f'--resume: checkpoint {file} is truncated or not a checkpoint', 'current')
    return whole


def _last_checkpoint(directory: Path) -> Path | None:
    """Return the file that ``last_checkpoint`` names; None if there is none, as after a crash of the machine."""
    try:
        name = (directory / 'last_checkpoint').read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not name or '\0' in name:
        return None
    # It holds an absolute path; the directory may have been moved since.
    file = Path(name) if Path(name).exists() else directory / Path(name).name
    return file if file.exists() else None
