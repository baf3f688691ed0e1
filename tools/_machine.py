"""The name of the CPU or GPU, the load of other processes, and the memory of this process."""

import contextlib
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

    Others are all processes but this one and its descendants, on the cores that this process may use.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.busy, self.own = busy_seconds(), own_seconds()
        self.each = seconds_of_others()

    def busy_cores(self) -> float:
        """Return the mean number of cores that other processes kept busy."""
        others = busy_seconds() - self.busy - (own_seconds() - self.own)
        return max(0.0, others / (time.perf_counter() - self.start))

    def warning(self, threads: int) -> str | None:
        """Return a warning if ``threads`` threads of this process find less than ``threads`` cores idle, else ``None``.

        The kernel counts the load only on Linux.
        """
        cores, busy = len(usable_cores()), self.busy_cores()
        if not sys.platform.startswith('linux') or busy < 0.5 or busy + threads < cores + 0.25:
            return None
        spent = {key: seconds - self.each.get(key, 0.0) for key, seconds in seconds_of_others().items()}
        (pid, name), seconds = max(spent.items(), key=lambda item: item[1], default=((0, ''), 0.0))
        most = f' (most of all {name}, pid {pid})' if seconds > 0 else ''  # unknown from within a container
        fewer = max(1, int(cores - busy))
        fix = 'stop them' + (f', or set OMP_NUM_THREADS={fewer}' if fewer < threads else '')
        return (
            f'warning: other processes keep {busy:.1f} of {cores} cores busy{most}; this one may run many times '
            f'slower, because its threads wait for each other: {fix}'
        )


def busy_seconds() -> float:
    """Return the CPU time of all processes, on the cores that this process may use, since the system started."""
    cores = usable_cores()
    times = [core for i, core in enumerate(psutil.cpu_times(percpu=True)) if i in cores]
    return sum(getattr(core, name, 0.0) for core in times for name in _BUSY)


def own_seconds() -> float:
    """Return the CPU time of this process and its descendants, running or finished."""
    running = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            running += sum(process.cpu_times()[:4])
    return sum(os.times()[:4]) + running


def seconds_of_others() -> dict[tuple[int, str], float]:
    """Return the CPU time of each running process but this one and its descendants, by process id and name."""
    this = psutil.Process()
    own = {this.pid, *(process.pid for process in this.children(recursive=True))}
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in own and process.ppid() != 2:  # the kernel's threads are children of 2
                found[process.pid, process.name()] = sum(process.cpu_times()[:2])
    return found


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
