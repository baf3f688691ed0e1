"""Shares the cores among the test processes; imported before torch, whose thread pool does not listen later."""

import os

CORES = os.cpu_count() or 1
if workers := os.environ.get('PYTEST_XDIST_WORKER_COUNT'):
    # Processes of many threads each on two cores spin more than they compute. Not setdefault: the process that starts
    # the workers has set it for itself.
    os.environ['OMP_NUM_THREADS'] = str(max(1, min(4, CORES // int(workers))))
else:
    os.environ.setdefault('OMP_NUM_THREADS', str(min(4, CORES)))
