"""End the processes of a distributed run."""

import logging
import os
import sys
from pathlib import Path

import torch
from mmengine.dist import barrier

ROOT = Path(__file__).resolve().parents[1]


def exit_distributed() -> None:
    """End a process that used gloo, without the interpreter's shutdown; return if it did not.

    A gloo thread may outlive its process group, even a destroyed one, when the machine is busy. The interpreter's
    shutdown then aborts in C++ ("terminate called without an active exception"), and torchrun reports a failure
    although all work is done. Call this last.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_backend() != 'gloo':
        return
    barrier()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
