"""Worker processes of the dataloaders of a training."""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader


class SignalProofWorker:
    """Start a worker that works on when a terminal or Slurm sends a signal to all processes; its training ends it.

    Args:
        then: The dataloader's own ``worker_init_fn``.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, 'sigwaitinfo'):  # Linux
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
        if self.then is not None:
            self.then(worker)


def _end_with_parent(parent: int) -> None:
    """Wait for a SIGTERM of the parent, which Python sends when it exits; those of others are for the training."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def protect_workers(loader: DataLoader) -> None:
    """Let the workers that a dataloader starts ignore the signals of a stop."""
    if not isinstance(loader.worker_init_fn, SignalProofWorker):
        loader.worker_init_fn = SignalProofWorker(loader.worker_init_fn)


def restart_workers(loop: Any) -> None:
    """Apply changes to the dataloader of mmengine's ``IterBasedTrainLoop``, which has started the workers already."""
    if type(loop) is IterBasedTrainLoop and loop.dataloader.num_workers:
        loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)
