"""Generated bad training states: each is named in one line before a training would begin, or does no harm."""

import copy
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from few_images import shapes  # noqa: F401  a fixture
from toy_training import ITERATIONS, start, toy_config, train, wait

from deformable_vit._nested import walk

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
# Values of every type that JSON has, but numbers to compute with.
VALUES = [None, True, float('nan'), float('inf'), '', 'x', [], [1, 2], {}, {'a': 1}, [[None]]]


def change_one_value(content: Any, keys: list[str] | None, draw: random.Random) -> str:
    """Give a random entry of one of the names, or of a list of that name, a value of another type; return its key."""
    candidates = [
        (key, value)
        for key, value in walk(content, '')
        if key and (keys is None or key.rstrip('.0123456789').rpartition('.')[2] in keys)
    ]
    key, value = draw.choice(candidates)
    *path, last = [int(part) if part.isdigit() else part for part in key.split('.') if part]
    node = content
    for part in path:
        node = node[part]
    node[last] = draw.choice([new for new in VALUES if type(new) is not type(value) or new != new])
    return f'{key} = {node[last]!r}, which was {str(value)[:50]}'


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp('trained')
    assert wait(start(partial(train, toy_config(work_dir, keep=-1)), work_dir / 'log')) == 0
    return work_dir


@pytest.mark.campaign('bad training states', short=4, long=50)
def test_a_bad_training_state_is_refused_or_does_no_harm(trained: Path, tmp_path: Path, attempt: int) -> None:
    """One value of another type, anywhere but in the weights: refused, or the training ends as it should."""
    draw = random.Random(attempt)
    state = torch.load(trained / 'epoch_2.pth', weights_only=True)
    state = dict(copy.deepcopy(state))
    parts = {part: state[part] for part in ('meta', 'optimizer', 'param_schedulers', 'message_hub', 'random_state')}
    how = change_one_value(parts, None, draw)
    torch.save(state | parts, tmp_path / 'epoch_2.pth')
    shutil.copy(tmp_path / 'epoch_2.pth', tmp_path / 'before.pth')
    config = toy_config(tmp_path)
    config.load_from, config.resume = str(tmp_path / 'before.pth'), True
    status = wait(start(partial(train, config, resume=False), tmp_path / 'log'))
    log = (tmp_path / 'log').read_text()
    assert 'Traceback' not in log, f'{how}: {log[-2000:]}'
    if status:
        assert status == 2, how
        assert 'before.pth' in log.splitlines()[-1], f'{how}: {log[-500:]}'
    else:
        done = torch.load(Path((tmp_path / 'last_checkpoint').read_text()), weights_only=True)
        assert done['meta']['iter'] == ITERATIONS, how
        assert all(torch.isfinite(value).all() for value in done['state_dict'].values()), how
