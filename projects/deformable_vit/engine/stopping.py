"""End a training that is told to stop, by Ctrl-C or by the SIGTERM of Slurm and Kubernetes, without losing its work."""

import atexit
import multiprocessing.util  # registers the function that waits for all processes at the exit
import os
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, get_comm_device, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner

from ..checkpoints import INTERRUPTED, AtomicCheckpointHook
from .cli import Interrupted, first_line
from .optimizers import single_wrappers


class StopHook(Hook):
    """Save a checkpoint at the end of the iteration in which a signal arrives, and raise :class:`Interrupted`.

    With several processes all of them stop at the same iteration, the one after the first signal. The end is enforced
    when the grace period is over, and by a second Ctrl-C.

    Args:
        grace: Seconds that the end of the iteration and the checkpoint may take.
    """

    priority = 'LOWEST'  # after the CheckpointHook, which may save the same iteration

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.received = 0  # number of the signal
        self.received_at = 0.0
        self.agreed = 0
        self.asked: torch.Tensor | None = None
        self.runner: Runner | None = None  # from the first iteration to the last

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals within the block."""
        if threading.current_thread() is not threading.main_thread():  # only there Python handles signals
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        _handled.update(before)
        try:
            yield
        finally:
            _handled.clear()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.runner is None:
            raise Interrupted(number, f'stopped by {signal.Signals(number).name} outside of training; nothing to save')
        if self.received:
            # torchrun passes on a Ctrl-C that the terminal has sent to all processes at the same time.
            if number == signal.SIGINT and time.monotonic() - self.received_at > 1:
                self._exit('a second Ctrl-C')
            return
        self.received, self.received_at = number, time.monotonic()
        if self.grace <= 0:
            self._exit('--grace 0')
        timer = threading.Timer(self.grace, self._exit, [f'the end of the iteration took more than {self.grace:g} s'])
        timer.daemon = True
        timer.start()
        if sys.stderr.isatty() and is_main_process():
            print('stopping after this iteration; Ctrl-C again stops at once', file=sys.stderr, flush=True)

    def _exit(self, reason: str) -> None:
        """End the process at once; checkpoints are whole at any moment."""
        if is_main_process():
            line = self._line(f'without a new checkpoint ({reason})', self.runner)
            print(f'{Path(sys.argv[0]).name}: {line}', file=sys.stderr)
        sys.stderr.flush()
        os._exit(128 + self.received)

    def before_train(self, runner: Runner) -> None:
        self.runner = runner

    def after_train(self, runner: Runner) -> None:
        self.runner = None
        self._agreed()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        if self._agreed() and _gradients_are_applied(runner):
            self._stop(runner, runner.epoch, runner.iter + 1)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        # Several processes stop at an iteration of training, which they begin together.
        if self.received and self.runner is not None and get_world_size() == 1:
            self._stop(runner, runner.epoch, runner.iter)

    def _agreed(self) -> int:
        """Return the signal that one of the processes had received an iteration ago.

        The answer of the last iteration has arrived by now, so that no process waits for it.
        """
        if get_world_size() == 1:
            return self.received
        if self.asked is not None:
            self.agreed = self.agreed or int(self.asked.item())
        self.asked = torch.tensor(self.received, device=get_comm_device())
        all_reduce(self.asked, 'max')
        return self.agreed

    def _stop(self, runner: Runner, epoch: int, iteration: int) -> None:
        number = self.received = self.received or self.agreed
        hook = next((hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)
        if hook is not None and hook.saved_iter != iteration:
            hook.save(runner, interrupted_name(runner, epoch, iteration), dict(epoch=epoch, iter=iteration))
        barrier()  # the others must not end, and be noticed, while the main process writes
        self.runner = None  # another signal ends the process as usual
        raise Interrupted(number, self._line(f'after iteration {iteration}', runner))

    def after_error(self, error: Exception) -> Interrupted:
        """Return what to raise for an error after a signal: of a process whose peers have ended, for example."""
        return Interrupted(self.received, self._line(f'without a new checkpoint ({first_line(error)})', self.runner))

    def _line(self, how: str, runner: Runner | None) -> str:
        last = Path(runner.work_dir, 'last_checkpoint') if runner is not None else None
        saved = f'the last checkpoint is {last.read_text()}' if last and last.exists() else 'there is no checkpoint'
        name = signal.Signals(self.received).name
        return f'stopped by {name} {how}; {saved}; continue with: {command_to_continue(sys.argv, os.environ)}'


# Forked processes, such as the workers of mmdet's evaluation, inherit the handlers. One that does not end on SIGTERM
# makes its ``multiprocessing.Pool`` wait forever, and Python discards a signal that arrives before the new process
# runs. Signals are blocked until it has handlers of its own.
_handled: set[signal.Signals] = set()
_masks = threading.local()


def _before_fork() -> None:
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _handled)


def _after_fork_in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _after_fork_in_child() -> None:
    if _handled:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the training decides when to end
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


if hasattr(os, 'register_at_fork'):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def interrupted_name(runner: Runner, epoch: int, iteration: int) -> str:
    """Return the file name of a checkpoint between two regular ones; epochs and iterations are complete ones."""
    by_epoch = not hasattr(runner.train_loop, 'dataloader_iterator')
    return f'{INTERRUPTED}epoch_{epoch}_iter_{iteration}.pth' if by_epoch else f'{INTERRUPTED}iter_{iteration}.pth'


def _gradients_are_applied(runner: Runner) -> bool:
    """Return whether no gradients are accumulated, which a checkpoint does not hold."""
    return all(w._inner_count % w._accumulative_counts == 0 for w in single_wrappers(runner.optim_wrapper))


def command_to_continue(argv: Sequence[str], environment: Any) -> str:
    """Return the command that goes on with a training of ``tools/train.py``, as text for a shell."""
    rest, arguments = list(argv[1:]), []
    while rest:
        argument = rest.pop(0)
        if argument == '--resume' and rest and not rest[0].startswith('-'):
            rest.pop(0)  # the path of an older checkpoint
        elif not argument.startswith('--resume'):
            arguments.append(argument)
    if environment.get('TORCHELASTIC_RUN_ID') and '--launcher' in arguments:
        at = arguments.index('--launcher')
        arguments[at : at + 2] = []
        script = Path(argv[0]).with_name('dist_train.sh')
        return shlex.join(
            ['bash', str(script), arguments[0], environment['LOCAL_WORLD_SIZE'], *arguments[1:], '--resume']
        )
    return shlex.join(['python', argv[0], *arguments, '--resume'])


@FUNCTIONS.register_module()
def start_worker(worker_id: int, then: Callable[[int], None] | None = None, quiet: bool = False) -> None:
    """Let a worker process of a dataloader ignore the signals that a terminal or Slurm sends to all processes.

    The training goes on to the end of its iteration and ends its workers itself.

    Args:
        worker_id: Number of the worker.
        then: The config's own function.
        quiet: Hide the warnings of all workers but the first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if quiet and worker_id:
        warnings.simplefilter('ignore')
    if then is not None:
        then(worker_id)


def end_workers() -> None:
    """End the worker processes of persistent dataloaders when the main process exits.

    Python would send them SIGTERM, which they ignore, and wait for them forever.
    """
    children = multiprocessing.active_children()
    if children and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler reports workers that are killed
    for child in children:
        if child.daemon:
            child.kill()


def protect_workers(loader: Any) -> None:
    """Change the config of a dataloader so that its workers begin with :func:`start_worker`."""
    if not isinstance(loader, dict) or not loader.get('num_workers'):
        return
    atexit.unregister(end_workers)
    atexit.register(end_workers)  # registered last, it runs before the function of multiprocessing
    then = None
    if isinstance(own := loader.get('worker_init_fn'), dict):
        function = FUNCTIONS.get(own['type']) if isinstance(own['type'], str) else own['type']
        then = partial(function, **{key: value for key, value in own.items() if key != 'type'})
    # The key is an argument of mmengine's own function for workers, which this one replaces.
    quiet = loader.pop('disable_subprocess_warning', False)
    loader['worker_init_fn'] = dict(type='start_worker', then=then, quiet=quiet)
