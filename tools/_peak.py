"""Print the peak memory of one benchmark case in MiB; benchmark.py runs this in a new process for each case."""

import json
import os
import sys


def fork() -> None:
    """Continue in a child process, and let the parent exit with the child's status.

    On Linux a program begins with the peak memory of the process that started it, here a benchmark that may have run
    large models. A child process begins with its own, which is small as long as nothing is imported.
    """
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.exit(status if status >= 0 else 128 - status)  # as in a shell, 137 is SIGKILL


def main() -> None:
    fork()

    import torch
    from _measure import Case, measure_peak

    case, threads = Case(**json.loads(sys.argv[1])), int(sys.argv[2])
    torch.set_num_threads(threads)
    print(measure_peak(case))


if __name__ == '__main__':
    main()
