"""Keep the work of a training when it is killed, stopped or run twice, and when its disk is full.

Checkpoints are whole at any moment without this (:mod:`..checkpoints.safe_saving`).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import FlexibleRunner, Runner

from ..checkpoints import remove_partial_files
from .cli import UserError
from .lock import WorkDirLock
from .resuming import Continuation
from .space import check_writable, failed_write
from .stopping import StopHook, protect_workers


class Protection:
    """What protects one training.

    Args:
        config: Complete; a checkpoint to resume from is in ``load_from``.
        grace: Seconds to end an iteration and save a checkpoint after Ctrl-C or SIGTERM.

    Raises:
        UserError: The work directory cannot be written.
        CheckpointError: The checkpoint to resume from cannot be read.
    """

    def __init__(self, config: Config, grace: float) -> None:
        self.work_dir: str = config.work_dir
        check_writable(self.work_dir)
        self.continuation = Continuation(config)
        self.stop = StopHook(grace)
        self.lock = WorkDirLock(self.work_dir)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Handle signals and errors within the block.

        Raises:
            UserError: The work directory cannot be written any more.
            Interrupted: A signal has ended the training.
        """
        # A full disk would make each line of the log a traceback on the console.
        shown, logging.raiseExceptions = logging.raiseExceptions, False
        try:
            with self.stop.listening():
                yield
        except Exception as error:
            if self.stop.received:
                raise self.stop.after_error(error) from error
            if line := failed_write(error, self.work_dir):
                raise line from error
            raise
        finally:
            logging.raiseExceptions = shown
            self.lock.release()

    def prepare(self, runner: Runner | FlexibleRunner) -> None:
        """Lock the work directory, and add to a runner what saves, restores and stops.

        Raises:
            UserError: Another training runs in the work directory.
        """
        problem: list[str | None] = [None]
        if is_main_process():
            try:
                self.lock.acquire()
            except UserError as error:
                problem = [str(error)]
            else:
                remove_partial_files(Path(self.work_dir))
        broadcast_object_list(problem)  # without it, the other processes would wait for the first one
        if problem[0]:
            raise UserError(problem[0])
        self.continuation.prepare(runner)
        # The attributes: the properties of these names build the dataloaders.
        protect_workers(runner._train_dataloader)
        protect_workers(runner._val_dataloader)
        runner.register_hook(self.stop)
