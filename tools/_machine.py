"""The name of the CPU or GPU, the load of other processes, and the memory of this process."""

import os
import platform
import re
import resource
import sys
import time

import psutil
import torch
from _processes import usable_cores
from torch.utils import collect_env

# Times of psutil that a core spends at work; `guest` and `guest_nice` are part of `user` and `nice`.
_BUSY = ('user', 'nice', 'system', 'irq', 'softirq', 'steal')


def device_name(device: str) -> str:
    """Return the model of the GPU, or that of the CPU with the number of threads that torch uses."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    # platform.processor() is empty on many Linux systems and just the architecture on others.
    model = re.search(r'^Model name:\s*(.+)$', collect_env.get_cpu_info(collect_env.run), re.MULTILINE)
    return f'{model[1] if model else platform.machine()}, {torch.get_num_threads()} threads'


class OtherProcesses:
    """Measure the load of other processes since construction.

    Others are all processes but this one and its finished children, on the cores that this process may use.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.busy, self.own = busy_seconds(), own_seconds()

    def busy_cores(self) -> float:
        """Return the mean number of cores that other processes kept busy."""
        others = busy_seconds() - self.busy - (own_seconds() - self.own)
        return max(0.0, others / (time.perf_counter() - self.start))


def busy_seconds() -> float:
    """Return the CPU time of all processes, on the cores that this process may use, since the system started."""
    cores = usable_cores()
    times = [core for i, core in enumerate(psutil.cpu_times(percpu=True)) if i in cores]
    return sum(getattr(core, name, 0.0) for core in times for name in _BUSY)


def own_seconds() -> float:
    """Return the CPU time of this process and its finished children."""
    return sum(os.times()[:4])


def resident_mib() -> float:
    """Return the resident memory of this process."""
    return psutil.Process().memory_info().rss / 2**20


def peak_resident_mib() -> float:
    """Return the highest resident memory of this process so far.

    The kernel tracks it exactly, whereas a sampling thread misses what one C++ call allocates and frees. On Linux a
    program inherits the peak of the process that started it: see ``_peak.py``.
    """
    unit = 1 if sys.platform == 'darwin' else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
