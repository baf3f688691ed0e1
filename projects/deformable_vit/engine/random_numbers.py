"""Seeding of the generators of Python, numpy and torch."""

import random

import numpy as np
import torch


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
