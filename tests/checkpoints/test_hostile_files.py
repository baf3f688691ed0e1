"""Every hostile or damaged file is one line that names it, in little time and memory, and nothing else happens."""

import copy
import io
import json
import os
import pickle
import pickletools
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import HOSTILE, legacy, saved, training_state, write_hostile
from mmengine.logging import HistoryBuffer, MessageHub
from running import ENVIRONMENT

from deformable_vit.checkpoints import CheckpointError, plain, read_checkpoint

Record = Callable[[str, object], None]


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_file_is_refused_on_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / 'hostile.pth'
    pattern = write_hostile(name, path)
    with pytest.raises(CheckpointError, match=rf'hostile\.pth (is|has|does|cannot).*({pattern})') as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 700
    assert 'hostile.pth' in message


@pytest.mark.slow
def test_hostile_files_need_little_time_and_memory(tmp_path: Path) -> None:
    """Each in a few seconds and within 1 GB, measured in a process that may not have more."""
    paths = {name: tmp_path / f'{index}.pth' for index, name in enumerate(HOSTILE)}
    for name, path in paths.items():
        write_hostile(name, path)
    code = """
import json, resource, sys, time
from deformable_vit.checkpoints import CheckpointError, read_checkpoint
def size(key):
    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith(key)) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size('VmSize') + 2**30,) * 2)
found = {}
for name, path in json.load(sys.stdin).items():
    start = time.process_time()
    try:
        read_checkpoint(path)
        found[name] = 'loaded'
    except CheckpointError as error:
        found[name] = time.process_time() - start if 'MemoryError' not in str(error) else 'out of memory'
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        input=json.dumps({name: str(path) for name, path in paths.items()}),
        env=ENVIRONMENT | {'PYTHONPATH': os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: seconds for name, seconds in found.items() if not isinstance(seconds, float) or seconds > 5} == {}


def same(found: Any, expected: Any) -> bool:
    """Compare what :func:`plain` makes of both, bit by bit."""
    return pickle.dumps(_lists(plain(found))) == pickle.dumps(_lists(plain(expected)))


def _lists(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return ['tensor', str(value.dtype), value.tolist()]
    if isinstance(value, dict):
        return [[str(key), _lists(item)] for key, item in value.items()]
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize('as_plain', [False, True], ids=['of mmengine', 'of this project'])
@pytest.mark.parametrize('write', [saved, legacy])
def test_training_states_load_whole_and_without_programs(tmp_path: Path, as_plain: bool, write: Any) -> None:
    state = training_state(as_plain=as_plain)
    loaded = read_checkpoint(written(tmp_path / 'x.pth', write(state)))
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert type(history) is HistoryBuffer
    assert history.mean(2) == 0.1875
    assert history.data[0].tolist() == [0.5, 0.25, 0.125]
    assert np.array_equal(loaded['meta']['dataset_meta']['palette'], np.eye(3))
    assert loaded['message_hub']['runtime_info'] == {'epoch': 1, 'iter': 2, 'best_score': 0.5, 'last_ckpt': 'x.pth'}
    assert 'cfg' not in loaded['meta']
    for info in (state['meta'], state['message_hub']['runtime_info'], state['message_hub']['resumed_keys']):
        del info['cfg']
    assert same(loaded, state)
    hub = MessageHub.get_instance('restored')
    hub.load_state_dict(loaded['message_hub'])
    assert hub.get_scalar('train/loss').current() == 0.125
    hub.update_scalar('train/loss', 3.0)
    again = pickle.loads(pickle.dumps(copy.deepcopy(loaded)))
    assert type(again['message_hub']['log_scalars']['train/loss']) is HistoryBuffer
    assert b'deformable_vit' not in pickle.dumps(loaded)


def test_files_of_this_project_need_torch_alone(tmp_path: Path) -> None:
    def names(state: dict) -> set[str]:
        with zipfile.ZipFile(written(tmp_path / 'x.pth', saved(state))) as archive:
            opcodes = pickletools.genops(archive.read('archive/data.pkl'))
            return {argument for opcode, argument, _ in opcodes if opcode.name == 'GLOBAL'}

    of_torch = {'collections OrderedDict', 'torch._utils _rebuild_tensor_v2'}
    of_torch |= {f'torch {kind}Storage' for kind in ('Float', 'Double', 'Long')}
    assert names(training_state(as_plain=True)) == of_torch
    assert {'numpy ndarray', 'mmengine.logging.history_buffer HistoryBuffer'} <= names(training_state())


def test_a_history_does_not_change_the_statistics_of_others(tmp_path: Path) -> None:
    before = copy.copy(HistoryBuffer._statistics_methods)
    try:
        HistoryBuffer._statistics_methods = dict(mean=3, evil='x')  # saved with each history
        file = saved({'x': HistoryBuffer([1.0], [1])})
    finally:
        HistoryBuffer._statistics_methods = before
    loaded = read_checkpoint(written(tmp_path / 'x.pth', file))['x']
    assert loaded.statistics('mean') == 1.0
    assert 'evil' not in HistoryBuffer._statistics_methods


@pytest.mark.campaign('flipped bits of a checkpoint', short=3, long=4)
def test_each_flipped_bit_is_found_or_changes_nothing(tmp_path: Path, attempt: int, record_property: Record) -> None:
    """In weights, in the optimizer's state, in the pickle and in the archive around them."""
    state = training_state()
    file = saved(state)
    for info in (state['meta'], state['message_hub']['runtime_info'], state['message_hub']['resumed_keys']):
        del info['cfg']
    random = np.random.default_rng(attempt)
    found, tried = 0, 60
    record_property('tried', tried)
    for position in random.integers(len(file) * 8, size=tried):
        flipped = bytearray(file)
        flipped[position // 8] ^= 1 << (position % 8)
        try:
            loaded = read_checkpoint(written(tmp_path / 'x.pth', bytes(flipped)))
        except CheckpointError:
            found += 1
        else:
            assert same(loaded, state)
    assert found > 20  # the rest is padding


def test_a_flipped_bit_in_a_weight_names_the_record(tmp_path: Path) -> None:
    file = saved({'x': torch.full((4,), 1.5)}).replace(b'\0\0\xc0\x3f' * 4, b'\0\0\xc0\x3f' * 3 + b'\1\0\xc0\x3f')
    path = written(tmp_path / 'x.pth', file)
    assert torch.load(path)['x'][3] != 1.5
    with pytest.raises(CheckpointError, match=r'x.pth is damaged: record archive/data/0 does not have its checksum'):
        read_checkpoint(path)


@pytest.mark.parametrize('kind', ['legacy', 'without checksums'])
def test_files_without_checksums_load_with_one_warning(tmp_path: Path, capfd: pytest.CaptureFixture, kind: str) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        file = legacy({'x': torch.ones(1)}) if kind == 'legacy' else saved({'x': torch.ones(1)})
    finally:
        torch.serialization.set_crc32_options(before)
    path = written(tmp_path / f'{kind}.pth', file)
    for _ in range(2):
        assert read_checkpoint(path)['x'] == 1
    said = capfd.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if 'damage cannot be noticed' in line]
    assert len(lines) == 1
    assert 'WARNING' in lines[0]
    assert ('before 1.6' in lines[0]) == (kind == 'legacy')


@pytest.mark.campaign('truncated checkpoints', short=1, long=2)
def test_truncated_files_are_refused(tmp_path: Path, attempt: int, record_property: Record) -> None:
    files, tried = (saved(training_state()), legacy(training_state())), 25
    record_property('tried', len(files) * tried)
    for file in files:
        for length in [0, *np.random.default_rng(attempt).integers(len(file), size=tried - 1)]:
            with pytest.raises(CheckpointError):
                read_checkpoint(written(tmp_path / 'x.pth', file[:length]))


def test_a_file_with_line_breaks_in_its_name_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / 'a\nb\x1b[2J.pth'
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r'a\\nb\\x1b\[2J\.pth') as caught:
            read_checkpoint(path)
        assert str(caught.value).isprintable()
        path.write_bytes(b'')


def test_masks_may_be_minus_infinity(tmp_path: Path) -> None:
    content = {'state_dict': {'a.attn_mask': torch.tensor([0.0, float('-inf')])}}
    loaded = read_checkpoint(written(tmp_path / 'x.pth', saved(content)))
    assert loaded['state_dict']['a.attn_mask'][1] == float('-inf')


def test_an_open_file_is_checked_too() -> None:
    from deformable_vit.checkpoints.safe_loading import load_weights_only

    assert load_weights_only(io.BytesIO(saved({'x': torch.ones(1)})))['x'] == 1
    with pytest.raises(CheckpointError, match=r'in memory is refused'):
        load_weights_only(io.BytesIO(saved({'x': torch.eye(2).to_sparse()})))
