"""Batches depend on their position alone: the random numbers of their samples, too."""

import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader

from deformable_vit.engine.samples import SeededBatch, SeededBatchSampler


class Noise(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> list[float]:
        return [index, random.random(), random.gauss(), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def batches(workers: int, skip: int = 0, infinite: bool = False, other: dict | None = None) -> list[list]:
    """Return the batches of two passes, or 6 without end, after those that are left out."""
    dataset = Noise()
    sampler = (InfiniteSampler if infinite else DefaultSampler)(dataset, shuffle=True, seed=5)
    seeded = SeededBatchSampler(sampler, 4, batch_sampler=other)
    seeded.start(0, skip)
    loader = DataLoader(dataset, batch_sampler=seeded, num_workers=workers, collate_fn=list)
    if infinite:
        return [batch for batch, _ in zip(loader, range(6 - skip), strict=False)]
    found: list[list] = []
    while seeded.next_pass < 2:
        found += list(loader)
    return found


@pytest.mark.parametrize('infinite', [False, True])
def test_batches_depend_on_their_position_alone(infinite: bool) -> None:
    expected = batches(0, infinite=infinite)
    assert len(expected) == 6
    values = [value for batch in expected for sample in batch for value in sample[1:]]
    assert len(set(values)) == len(values)  # no sample has the random numbers of another
    random.random()
    for workers in (0, 2):
        for skip in (0, 1, 3, 4):
            assert batches(workers, skip=skip, infinite=infinite) == expected[skip:]


def test_another_batch_sampler_makes_the_batches() -> None:
    other = dict(type=torch.utils.data.BatchSampler, drop_last=True)
    assert [len(batch) for batch in batches(0, other=other)] == [4, 4, 4, 4]


def test_a_sampler_that_waits_consumes_nothing() -> None:
    """mmengine's loop by iteration starts workers, which load batches, before it resumes."""
    sampler = InfiniteSampler(Noise(), shuffle=True, seed=5)
    seeded = SeededBatchSampler(sampler, 4)
    seeded.wait()
    assert list(seeded) == []
    seeded.start(0, 1)
    loader = DataLoader(Noise(), batch_sampler=seeded, collate_fn=list)
    assert next(iter(loader)) == batches(0, skip=1, infinite=True)[0]


def test_a_batch_keeps_its_seed_in_another_process() -> None:
    copied = pickle.loads(pickle.dumps(SeededBatch([1, 2], (3, 4))))
    found = []
    for batch in (SeededBatch([1, 2], (3, 4)), copied):
        assert list(batch) == [1, 2]
        found.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert found[0] == found[1]
