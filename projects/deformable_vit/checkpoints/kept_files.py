"""Which files a resumed training may delete.

mmengine's ``CheckpointHook`` writes the paths of its files into each checkpoint: the best one so far, the last one, and
the numbers of those that ``max_keep_ckpts`` keeps. When training resumes, the hook takes them from the file and later
deletes what they name, directories too. A file from elsewhere would delete anything, and a checkpoint of work directory
A, resumed in work directory B, would delete the best one of A.
"""

import functools
import math
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from .errors import shown


def protect_other_files() -> None:
    """Make ``CheckpointHook`` forget files outside its directory before training. Calling it again has no effect.

    ``CheckpointHook.before_train`` reads what a resumed checkpoint names.
    """
    original = CheckpointHook.before_train
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def before_train(hook: CheckpointHook, runner: Runner) -> None:
        directory = str(runner.work_dir)
        if hook.out_dir is not None and str(hook.out_dir) != directory:  # as the hook itself combines them
            directory = os.path.join(str(hook.out_dir), os.path.basename(directory.rstrip(os.sep)))
        source = getattr(runner, '_load_from', None)
        forgotten = forget_other_files(runner.message_hub.runtime_info, directory, hook.filename_tmpl, source)
        if forgotten:
            print_log(
                f'the resumed checkpoint is not from {shown(directory)}: files that it names outside stay as they are '
                f'({", ".join(forgotten)})',
                'current',
            )
        original(hook, runner)

    CheckpointHook.before_train = before_train


def forget_other_files(
    info: MutableMapping[str, Any], directory: str, template: str, source: str | None = None
) -> list[str]:
    """Remove from ``runtime_info`` every file that is not a checkpoint in a directory, and the best score with it.

    Args:
        info: ``MessageHub.runtime_info`` after resuming; it changes in place.
        directory: Where this training writes its checkpoints; a local path or a URL.
        template: The hook's names of numbered files, such as ``epoch_{}.pth``.
        source: The checkpoint that training resumes from, if known. The numbers of kept files mean those beside it.

    Returns:
        What was removed, for the log.
    """
    forgotten = []
    own = source is None or _is_checkpoint_in(source, directory)
    for key in [key for key in info if key in ('last_ckpt', 'best_ckpt') or key.startswith('best_ckpt_')]:
        if not _is_checkpoint_in(info[key], directory):
            forgotten.append(f'{shown(key)} {shown(info.pop(key))}')
            own = own and key != 'last_ckpt'
    for key in [key for key in info if key == 'best_score' or key.startswith('best_score_')]:
        score = info[key]
        # Without its file, a score would keep training from saving a best one of its own.
        valid = isinstance(score, (int, float)) and not isinstance(score, bool) and not math.isnan(score)
        if not valid or key.replace('best_score', 'best_ckpt', 1) not in info:
            del info[key]
    numbers = info.pop('keep_ckpt_ids', [])
    if own and 'last_ckpt' in info and isinstance(numbers, list):
        kept = [number for number in numbers if type(number) is int and number >= 0]
        kept = [n for n in kept if _is_checkpoint_in(os.path.join(directory, template.format(n)), directory)]
        if kept:
            info['keep_ckpt_ids'] = kept
    elif numbers:
        forgotten.append(f'keep_ckpt_ids {shown(numbers)}')
    return forgotten


def _is_checkpoint_in(path: object, directory: str) -> bool:
    """Return whether a path is that of a ``.pth`` file in a directory itself, not below, after following links."""
    if not isinstance(path, str) or not path.endswith('.pth') or '\0' in path:
        return False
    if '://' in directory or '://' in path:  # object storage
        parent, _, name = path.rpartition('/')
        return parent == directory.rstrip('/') and '\\' not in name
    file = Path(path).resolve()
    return file.parent == Path(directory).resolve() and file.suffix == '.pth' and not file.is_dir()
