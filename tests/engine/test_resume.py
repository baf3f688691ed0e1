"""The checkpoint that ``--resume`` without a path continues from, and the random numbers with which it continues."""

import io
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader

from deformable_vit.engine import latest_checkpoint
from deformable_vit.engine.random_state import capture, check, restore
from deformable_vit.engine.seeded_batches import SeededBatch, SeededBatchSampler
from deformable_vit.engine.stopping import command_to_continue


def test_latest_checkpoint_is_found_also_in_a_moved_directory(tmp_path: Path) -> None:
    assert latest_checkpoint(str(tmp_path)) is None
    checkpoint = tmp_path / 'last.pth'  # a template without numbers: last_checkpoint alone names it
    torch.save(dict(meta=dict(epoch=2, iter=8), state_dict={}, optimizer={}), checkpoint)
    for named in (checkpoint, '/elsewhere/last.pth'):
        (tmp_path / 'last_checkpoint').write_text(str(named))
        assert latest_checkpoint(str(tmp_path)) == str(checkpoint)


def draw() -> list[float]:
    return [random.random(), random.gauss(), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_a_state_is_checked_and_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    state, before = capture() | dict(cuda=torch.zeros(16, dtype=torch.uint8)), torch.get_rng_state()
    state['torch'] = torch.Generator().manual_seed(5).get_state()
    calls: list[torch.Tensor] = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'set_rng_state', calls.append)
    check(state)
    assert torch.equal(torch.get_rng_state(), before)
    assert calls == []  # CUDA's generator could not be set back before CUDA is initialized
    with pytest.raises(ValueError, match='CUDA state of torch.float32'):
        check(state | dict(cuda=torch.zeros(16)))
    restore(state)
    assert len(calls) == 1


def test_random_state_survives_a_file_that_loads_safely() -> None:
    draw()
    file = io.BytesIO()
    torch.save(capture(), file)
    expected = draw()
    file.seek(0)
    assert len(file.getvalue()) < 32_000
    assert draw() != expected
    # Without the classes that other checkpoints may need: tensors and plain values only.
    with torch.serialization.safe_globals([]):
        globals_ = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    assert globals_ == []
    file.seek(0)
    restore(torch.load(file, weights_only=True))
    assert draw() == expected


class Noise(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> list[float]:
        return [index, *draw()]


def batches(workers: int, passes: int = 2, skip: int = 0, infinite: bool = False) -> list[list]:
    dataset = Noise()
    sampler = (InfiniteSampler if infinite else DefaultSampler)(dataset, shuffle=True, seed=5)
    seeded = SeededBatchSampler(sampler, BatchSampler(sampler, 4, False), skip)
    loader = DataLoader(dataset, batch_sampler=seeded, num_workers=workers, collate_fn=list)
    if infinite:
        return [batch for batch, _ in zip(loader, range(6 - skip), strict=False)]
    found = []
    while seeded.next_pass < passes:
        found += list(loader)
    return found


@pytest.mark.parametrize('infinite', [False, True])
def test_batches_depend_on_their_position_alone(infinite: bool) -> None:
    expected = batches(0, infinite=infinite)
    assert len(expected) == 6
    values = [value for batch in expected for sample in batch for value in sample[1:]]
    assert len(set(values)) == len(values)  # no batch has the random numbers of another
    draw()
    for workers in (0, 2):
        for skip in (0, 1, 3, 4):
            assert batches(workers, skip=skip, infinite=infinite) == expected[skip:]


def test_loading_of_data_does_not_change_the_random_numbers_of_the_model() -> None:
    before = capture()
    expected = draw()
    restore(before)
    assert list(SeededBatch([1, 2], (3, 4))) == [1, 2]
    assert draw() == expected
    copied = pickle.loads(pickle.dumps(SeededBatch([1, 2], (3, 4))))
    assert (list(copied), copied.entropy) == ([1, 2], (3, 4))


@pytest.mark.parametrize(
    ('argv', 'command'),
    [
        ('t/train.py c.py', 'python t/train.py c.py --resume'),
        ('t/train.py c.py --resume a.pth --work-dir w', 'python t/train.py c.py --work-dir w --resume'),
        ('t/train.py c.py --resume --amp', 'python t/train.py c.py --amp --resume'),
        ('t/train.py c.py --resume=a.pth', 'python t/train.py c.py --resume'),
    ],
)
def test_command_to_continue(argv: str, command: str) -> None:
    assert command_to_continue(argv.split(), {}) == command


def test_command_to_continue_several_processes() -> None:
    argv = ['t/train.py', 'c.py', '--launcher', 'pytorch', '--work-dir', 'w']
    environment = dict(TORCHELASTIC_RUN_ID='x', LOCAL_WORLD_SIZE='2')
    assert command_to_continue(argv, environment) == 'bash t/dist_train.sh c.py 2 --work-dir w --resume'
