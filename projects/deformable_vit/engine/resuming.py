"""Find the checkpoint to resume from, and continue with the random numbers and batches of an unbroken training."""

import logging
import re
import zipfile
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..checkpoints import CheckpointError, read_checkpoint, shown
from .cli import UserError, first_line
from .random_state import capture, check, restore
from .seeded_batches import SeededBatchSampler, seed_batches

STATE = 'random_state'  # key in the checkpoint
# epoch_12, iter_4000, interrupted_epoch_3_iter_450 and other templates; not the hash of a published checkpoint.
_REGULAR = re.compile(r'(interrupted_)?(epoch|iter)_\d')
_NUMBERED = re.compile(r'(?!best_)(?:.*?\D)?(\d+)(?:_iter_(\d+))?')


def latest_checkpoint(work_dir: str) -> str | None:
    """Return the newest checkpoint that ``--resume auto`` can continue from, or ``None`` if there is none.

    Newer ones that are damaged or incomplete are left out with a line each.

    Raises:
        UserError: There are checkpoints, or a ``last_checkpoint``, and no whole one.
    """
    directory = Path(work_dir)
    named = _named_by_last_checkpoint(directory)
    directories = {directory, named.parent if named else directory}
    candidates = {file for one in directories for file in one.glob('*.pth')}
    if named is not None and not named.exists():
        print_log(f'--resume: {named}, which {directory}/last_checkpoint names, does not exist')
    found = {file: match for file in candidates if (match := _NUMBERED.fullmatch(file.stem)) or file == named}
    refused: list[str] = []
    for file in sorted(found, key=lambda file: _order(file, found[file]), reverse=True):
        if not (problem := _problem(file)):
            for line in refused:
                print_log(f'--resume: {line}')
            return str(file)
        if file == named or _REGULAR.match(file.stem):  # others may be weights to start from
            refused.append(problem)
    if refused or named is not None or (directory / 'last_checkpoint').exists():
        what = '; '.join(refused) or f'{directory}/last_checkpoint is empty or names a missing file'
        raise UserError(
            f'--resume: no whole checkpoint in {directory}: {what}; pass --resume FILE, or train without --resume'
        )
    if best := sorted(file.name for file in directory.glob('best_*.pth')):
        print_log(f'--resume: {", ".join(best)} in {directory} has weights only, and no state of the optimizer')
    return None


def _named_by_last_checkpoint(directory: Path) -> Path | None:
    """Return the file that ``last_checkpoint`` names, ``None`` if there is no such text."""
    try:
        name = (directory / 'last_checkpoint').read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not name or '\0' in name:
        return None
    # It holds an absolute path; the directory may have been moved since.
    return Path(name) if Path(name).exists() else directory / Path(name).name


def _order(file: Path, match: re.Match[str] | None) -> tuple[int, int]:
    """Return complete epochs and iterations by the name of a file; one without numbers comes first."""
    return (-1, 0) if match is None else (int(match[1]), int(match[2] or 0))


def _problem(file: Path) -> str | None:
    """Return why a training cannot continue from a file, or ``None``."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if (damaged := archive.testzip()) is not None:
                    return f'checkpoint {file} is damaged ({damaged} has another checksum)'
        checkpoint = read_checkpoint(str(file))
    except CheckpointError as error:
        return str(error)
    except (OSError, zipfile.BadZipFile) as error:  # it may also be deleted meanwhile
        return f'checkpoint {file} cannot be read: {error}'
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if not isinstance(meta, dict) or type(meta.get('epoch')) is not int or type(meta.get('iter')) is not int:
        return f'checkpoint {file} does not say at which epoch and iteration it was saved'
    return None if 'optimizer' in checkpoint else f'checkpoint {file} has no state of the optimizer'


class Continuation:
    """What a training takes over from the checkpoint that it resumes from, beyond what mmengine does.

    Attributes:
        state: What :class:`RandomStateHook` saved, if it fits this training.
    """

    def __init__(self, config: Config) -> None:
        self.state: dict[str, Any] | None = None
        self.iterations = 0
        self.notes: list[str] = []  # for the log, which does not exist yet
        if not config.get('resume') or not config.get('load_from'):
            return
        checkpoint = read_checkpoint(config.load_from)
        meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
        if not isinstance(meta, dict):
            return  # mmengine's error says more
        self.iterations = meta['iter'] if type(meta.get('iter')) is int else 0
        if type(seed := meta.get('seed')) is int:
            given = (config.get('randomness') or {}).get('seed')
            if given not in (None, seed):
                self.notes.append(f'randomness.seed={given} is not used: {config.load_from} was trained with {seed}')
            # mmengine takes the seed over when the sampler is built already.
            config.randomness = dict(config.get('randomness') or {}, seed=seed)
        state = checkpoint.get(STATE)
        processes = state.get('processes') if isinstance(state, dict) else None
        if not isinstance(state, dict) or type(state.get('batch')) is not int or state['batch'] < 0:
            self.notes.append(_other_numbers(f'{config.load_from} holds no random state'))
        elif not isinstance(processes, list):
            self.notes.append(_other_numbers(f'one of several processes saved {config.load_from} without the others'))
            self.state = dict(processes=None, batch=state['batch'])
        else:
            for process in processes:
                try:
                    check(process)
                except ValueError as error:
                    raise CheckpointError(
                        f'checkpoint {shown(config.load_from)} cannot be resumed: its random_state is not one that a '
                        f'training has saved ({first_line(error)}); resume from another checkpoint'
                    ) from error
            self.state = state

    def prepare(self, runner: Runner) -> None:
        """Let the training dataloader, which is not built yet, begin where the earlier training stopped."""
        processes = (self.state or {}).get('processes')
        if self.state is not None and processes is not None and (saved := len(processes)) != get_world_size():
            self.notes.append(_other_numbers(f'it ran in {saved} processes, and now there are {get_world_size()}'))
            self.state = dict(processes=None, batch=self.state['batch'] * saved // get_world_size())
        # The attribute: the property of this name builds the dataloader.
        by_epoch = runner.cfg.train_cfg.get('by_epoch', runner.cfg.train_cfg.get('type') != 'IterBasedTrainLoop')
        if not seed_batches(runner._train_dataloader, 0 if by_epoch else self.iterations):
            self.notes.append('the training dataloader has no sampler: a resumed training sees other batches')
        for note in self.notes:
            print_log(note, 'current', logging.WARNING)
        runner.register_hook(RandomStateHook(self.state), priority='LOW')
        # A hook has one priority; nothing may draw random numbers before the state is restored.
        runner.register_hook(_RestoreHook(), priority='VERY_HIGH')


def _other_numbers(reason: str) -> str:
    return f'resumed training is not the same as an unbroken one: {reason}; random numbers differ from now on'


class RandomStateHook(Hook):
    """Save the random state of all processes in each checkpoint, and the position in the epoch.

    A training step sees the random state that the step before it left: data loading, evaluation and saving, which a
    resumed training repeats or leaves out, do not change it.
    """

    def __init__(self, resumed: dict[str, Any] | None) -> None:
        processes = (resumed or {}).get('processes')
        self.state: dict[str, Any] | None = processes[get_rank()] if processes else None
        self.batch: int = (resumed or {}).get('batch', 0)  # batches of this epoch that are trained
        self.gathered: dict[str, Any] | None = None

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        if hasattr(loop, 'dataloader_iterator') and loop.iter:
            loop.dataloader_iterator = _Advanced(loop.dataloader_iterator, loop.iter)

    def before_train_epoch(self, runner: Runner) -> None:
        loader = runner.train_loop.dataloader
        if not hasattr(runner.train_loop, 'dataloader_iterator') and isinstance(
            loader.batch_sampler, SeededBatchSampler
        ):
            loader.batch_sampler.next_pass = runner.epoch
            loader.batch_sampler.skip = self.batch = min(self.batch, len(loader))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        self.batch += 1
        self.state = capture()

    def after_train_epoch(self, runner: Runner) -> None:
        self.batch = 0

    def gather_for_checkpoint(self, runner: Runner) -> None:
        """Collect the states of all processes; :class:`AtomicCheckpointHook` calls it in each of them."""
        self.gathered = dict(processes=all_gather_object(self.state or capture()), batch=self.batch)

    def capture_here(self) -> None:
        """Take the state of this process alone, where the other processes cannot be asked."""
        self.gathered = dict(processes=[self.state or capture()] if get_world_size() == 1 else None, batch=self.batch)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if self.gathered is not None and 'optimizer' in checkpoint:  # not in the best checkpoint, which is for testing
            checkpoint[STATE] = self.gathered


class _RestoreHook(Hook):
    """Set the state that the last training step left."""

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        state = next(hook.state for hook in runner.hooks if isinstance(hook, RandomStateHook))
        if state is not None:
            restore(state)


class _Advanced:
    """An iterator over batches whose first ones were left out already; mmengine loads them to skip them."""

    def __init__(self, iterator: Any, count: int) -> None:
        self.iterator = iterator
        self.count = count

    def __next__(self) -> Any:
        if self.count:
            self.count -= 1
            return None
        return next(self.iterator)
