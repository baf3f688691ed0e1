"""End a training that is told to stop, by Ctrl-C or by the SIGTERM of Slurm and Kubernetes, without losing its work."""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from mmengine.dist import all_reduce, barrier, get_comm_device, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

from ...checkpoints import write_atomically
from ..workers import protect_workers, restart_workers

INTERRUPTED = 'interrupted_'  # begins the name of a checkpoint between two regular ones
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@HOOKS.register_module()
class StopHook(Hook):
    """Save a checkpoint at the end of the iteration in which SIGINT or SIGTERM arrives, and exit.

    The exit status is 128 more than the number of the signal, as in a shell; a line names the checkpoint and the
    command that continues. With several processes all of them stop at the same iteration, the one after the first
    signal. A second Ctrl-C ends the process at once.

    Args:
        grace: Seconds that the end of the iteration and the checkpoint may take.
    """

    priority = 'LOWEST'  # after the CheckpointHook, which may save the same iteration

    def __init__(self, grace: float = 30.0) -> None:
        self.grace = grace
        self.process = os.getpid()
        self.runner: Runner | None = None  # from the first iteration to the last
        self.before: dict[int, Any] = {}  # handlers
        self.received = 0  # number of the signal
        self.received_at = 0.0
        self.agreed = 0
        self.asked: torch.Tensor | None = None
        self.progress: dict[str, int] = {}  # of the checkpoint that `save` is saving
        self.regular = 0  # iterations of the last regular checkpoint of this process
        self.cleaned = 0  # the same, when checkpoints of earlier stops were removed

    def before_train(self, runner: Runner) -> None:
        self.runner, self.process = runner, os.getpid()
        for loop in filter(None, (runner.train_loop, runner.val_loop)):
            protect_workers(loop.dataloader)
            restart_workers(loop)
        if threading.current_thread() is threading.main_thread():  # only there Python handles signals
            self.before = {number: signal.signal(number, self._receive) for number in _SIGNALS}

    def after_train(self, runner: Runner) -> None:
        self.runner = None
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        self._remove_interrupted(runner)
        if self._agreed() and _weights_are_updated(runner.optim_wrapper):
            self._stop(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        self._remove_interrupted(runner)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        # Several processes stop at an iteration of training, which they begin together.
        if self.runner is None or get_world_size() > 1:
            return
        if self.received and _weights_are_updated(runner.optim_wrapper):
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # which evaluates its average in place of the weights
                    hook.after_val_epoch(runner)
            self._stop(runner, runner.iter)
        if self.before and batch_idx + 1 == len(runner.val_dataloader):
            # Metrics may fork processes and end them with SIGTERM, as mmdet's VOC evaluation does. Python discards a
            # signal that arrives before the new process runs if it has a handler: the training would wait forever.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self.runner is not None and self.before:
            signal.signal(signal.SIGTERM, self._receive)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if self.progress:  # FlexibleRunner replaces what `save` passes
            checkpoint['meta'].update(self.progress)
        elif 'optimizer' in checkpoint:  # a best checkpoint has weights only
            self.regular = checkpoint['meta']['iter']

    def save(self, runner: Runner, iteration: int) -> None:
        """Save a checkpoint between two regular ones, unless the last one has this iteration.

        Args:
            runner: In training.
            iteration: Iterations of training that are complete.
        """
        if self.regular == iteration:
            return
        self.progress = dict(epoch=runner.epoch, iter=iteration)
        regular = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop) and all(hook.by_epoch for hook in regular)
        epoch = f'epoch_{runner.epoch}_' if by_epoch else ''
        path = Path(runner.work_dir, f'{INTERRUPTED}{epoch}iter_{iteration}.pth')
        runner.save_checkpoint(runner.work_dir, path.name, meta=dict(self.progress), by_epoch=False)
        self.progress = {}
        if is_main_process():
            write_atomically(Path(runner.work_dir, 'last_checkpoint'), str(path).encode())

    def _remove_interrupted(self, runner: Runner) -> None:
        """Remove the checkpoints of earlier stops when a regular one was saved."""
        if self.regular > self.cleaned and is_main_process():
            self.cleaned = self.regular
            for file in Path(runner.work_dir).glob(f'{INTERRUPTED}*.pth'):
                file.unlink(missing_ok=True)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a forked process; the training decides when to end
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif self.runner is None:  # in another training, which has its own hook
            signal.signal(number, self.before[number])
            os.kill(self.process, number)
        elif self.received:
            # torchrun passes on a Ctrl-C that the terminal has sent to all processes at the same time.
            if number == signal.SIGINT and time.monotonic() - self.received_at > 1:
                self._exit_now('a second Ctrl-C')
        else:
            self.received, self.received_at = number, time.monotonic()
            if self.grace <= 0:
                self._exit_now('no grace period')
            reason = f'the end of the iteration took more than {self.grace:g} s'
            timer = threading.Timer(self.grace, self._exit_now, [reason])
            timer.daemon = True
            timer.start()
            if sys.stderr.isatty() and is_main_process():
                print('stopping after this iteration; Ctrl-C again stops at once', file=sys.stderr, flush=True)

    def _agreed(self) -> int:
        """Return the signal that one of the processes had received an iteration ago.

        All processes read the same answer, that of the last iteration, and stop at the same one.
        """
        if get_world_size() == 1:
            return self.received
        if self.asked is not None:
            self.agreed = self.agreed or int(self.asked.item())
        self.asked = torch.tensor(self.received, device=get_comm_device())
        all_reduce(self.asked, 'max')
        return self.agreed

    def _stop(self, runner: Runner, iteration: int) -> NoReturn:
        self.received = self.received or self.agreed
        self.save(runner, iteration)
        barrier()  # the others must not end, and be noticed, while the main process writes
        self._print(f'after iteration {iteration}')
        self.after_train(runner)  # another signal ends the process as usual
        if get_world_size() > 1:  # the interpreter's shutdown could wait for processes that have ended
            sys.stdout.flush()
            os._exit(128 + self.received)
        raise SystemExit(128 + self.received)

    def _exit_now(self, reason: str) -> NoReturn:
        """End the process at once; checkpoints are whole at any moment."""
        self._print(f'without a new checkpoint ({reason})')
        os._exit(128 + self.received)

    def _print(self, how: str) -> None:
        if not is_main_process():
            return
        assert self.runner is not None
        last = Path(self.runner.work_dir, 'last_checkpoint')
        saved = f'the last checkpoint is {last.read_text()}' if last.exists() else 'there is no checkpoint'
        name, command = signal.Signals(self.received).name, command_to_continue(sys.argv, os.environ)
        print(
            f'{Path(sys.argv[0]).name}: stopped by {name} {how}; {saved}; continue with: {command}',
            file=sys.stderr,
            flush=True,
        )


def _weights_are_updated(wrapper: Any) -> bool:
    """Return whether no gradients are accumulated, which a checkpoint does not hold."""
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(one.should_update() for one in wrappers if isinstance(one, OptimWrapper))


def command_to_continue(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the command that continues a training, as text for a shell.

    Args:
        argv: Of ``tools/train.py``, of this project or of mmdet, mmseg or mmpretrain: all have ``--resume``.
        environment: In which torchrun has set its variables.
    """
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
