"""Seeding and restoring of the generators of Python, numpy and torch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def restored_random_numbers() -> Iterator[None]:
    """Leave Python's, numpy's and torch's generators as they were; of CUDA's, that of the current device."""
    state, numpy_state = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def seed_all(entropy: tuple[int, ...], with_cuda: bool = False) -> None:
    """Seed Python's, numpy's and torch's generators with values that follow from non-negative integers.

    Args:
        entropy: Any number of integers; tuples that differ give unrelated random numbers.
        with_cuda: Also seed CUDA's generators. Worker processes of dataloaders must not: they have no CUDA.
    """
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    if with_cuda:
        torch.manual_seed(int(words[2]))
    else:
        torch.default_generator.manual_seed(int(words[2]))
