"""Divide the cores among the test processes. Import it before torch, which sizes its thread pool when it is loaded."""

import os

CORES = os.cpu_count() or 1
if workers := os.environ.get('PYTEST_XDIST_WORKER_COUNT'):
    # Several processes with a thread per core each spin more than they compute. Not setdefault: the process that starts
    # the workers has set the variable for itself.
    os.environ['OMP_NUM_THREADS'] = str(max(1, min(4, CORES // int(workers))))
else:
    os.environ.setdefault('OMP_NUM_THREADS', str(min(4, CORES)))
