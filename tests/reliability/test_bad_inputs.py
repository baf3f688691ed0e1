"""Generated bad inputs: each is named in one line before a training would begin, or does no harm."""

import copy
import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from deformable_vit.engine.data_checks.check import check_datasets
from few_images import shapes  # noqa: F401  a fixture
from mmengine.config import Config
from own_data import CLASSES, SEG_CLASSES, fill_in, write_coco, write_masks
from PIL import Image
from toy_training import ITERATIONS, start, toy_config, train, wait

from deformable_vit._nested import walk
from deformable_vit.engine import load_config

pytestmark = pytest.mark.slow
# Values of every type that JSON has, but numbers to compute with.
VALUES = [None, True, float('nan'), float('inf'), '', 'x', [], [1, 2], {}, {'a': 1}, [[None]]]


def misspelled(name: str, draw: random.Random) -> str:
    """Return a name with a letter that is missing, doubled, or exchanged with the next one."""
    while True:
        at = draw.randrange(len(name) - 1)
        changed = draw.choice(
            [
                name[:at] + name[at + 1 :],
                name[:at] + name[at] + name[at:],
                name[:at] + name[at + 1] + name[at] + name[at + 2 :],
            ]
        )
        if changed != name:
            return changed


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


PARTS = ('model', 'optim_wrapper', 'param_scheduler', 'default_hooks', 'train_cfg', 'train_dataloader', 'val_evaluator')


@pytest.mark.campaign('bad configs', short=4, long=50)
def test_a_misspelled_key_or_type_is_named(start_with: Callable[[str], str], tmp_path: Path, attempt: int) -> None:
    draw = random.Random(attempt)
    config = Config.fromfile(tmp_path / 'few_retinanet_pvtv2_shapes.py')
    names = [key for part in PARTS for key, _ in walk(config[part], part) if not key.rpartition('.')[2].isdigit()]
    types = [key for key in names if key.endswith('.type')]
    if attempt % 2:
        key = draw.choice(types)
        value = next(v for part in PARTS for k, v in walk(config[part], part) if k == key)
        wrong = misspelled(value, draw)
        option = f'{key}={wrong}'
    else:
        path, _, last = draw.choice([key for key in names if '.' in key]).rpartition('.')
        wrong = misspelled(last, draw)
        option = f'{path}.{wrong}=1'
    line = start_with(option)
    assert wrong in line, f'{option}: {line}'


def damage_image(file: Path, draw: random.Random) -> str:
    """Do one of the things that happen to files of images; return its name."""
    content = bytearray(file.read_bytes())
    how = draw.choice(['gone', 'empty', 'cut', 'text', 'zeros', 'resized', 'rotated', 'directory', 'loop', 'format'])
    if how in ('gone', 'directory', 'loop'):
        file.unlink()
    if how == 'directory':
        file.mkdir()
    elif how == 'loop':
        file.symlink_to(file)
    elif how == 'empty':
        file.write_bytes(b'')
    elif how == 'cut':
        file.write_bytes(content[: draw.randint(1, len(content) * 9 // 10)])
    elif how == 'text':
        file.write_text('<html>404 not found</html>')
    elif how == 'zeros':
        begin = draw.randrange(len(content) // 2)
        content[begin:] = bytes(len(content) - begin)
        file.write_bytes(content)
    elif how == 'resized':
        Image.open(file).resize((draw.randint(1, 60), draw.randint(1, 60))).save(file)
    elif how == 'rotated':
        exif = Image.Exif()
        exif[0x0112] = draw.choice([5, 6, 7, 8])  # width and height are exchanged
        Image.open(file).crop((0, 0, 70, 50)).save(file, exif=exif)
    elif how == 'format':
        Image.open(file).save(file, format='BMP')
    return how


@pytest.mark.campaign('bad images and masks', short=4, long=50)
def test_a_bad_image_is_named(shapes: Path, tmp_path: Path, attempt: int) -> None:  # noqa: F811
    draw = random.Random(attempt)
    root = tmp_path / 'data'
    if attempt % 2:
        write_masks(shapes, root)
        path = fill_in(tmp_path / 'segmentation.py', 'segmentation', root, classes=SEG_CLASSES)
    else:
        write_coco(shapes, root)
        path = fill_in(tmp_path / 'detection.py', 'detection', root, classes=CLASSES)
    file = draw.choice(sorted(file for file in root.rglob('*') if file.suffix in ('.jpg', '.png')))
    how = damage_image(file, draw)
    problems = check_datasets(load_config(str(path), {})).problems
    named = [str(problem) for problem in problems if file.stem in str(problem)]
    assert named, f'{how}: {file}: {problems}'
    assert all(line.isprintable() for line in map(str, problems))


@pytest.mark.campaign('bad annotations', short=4, long=50)
def test_a_bad_annotation_is_named(shapes: Path, tmp_path: Path, attempt: int) -> None:  # noqa: F811
    draw = random.Random(attempt)
    root = tmp_path / 'data'
    write_coco(shapes, root)
    path = fill_in(tmp_path / 'own.py', 'instance_segmentation', root, classes=CLASSES)
    text = (root / 'train.json').read_text()
    if attempt % 5 == 0:  # a part of the file
        how = 'cut'
        (root / 'train.json').write_text(text[: draw.randint(0, len(text) - 10)])
    else:
        content = json.loads(text)
        keys = ['bbox', 'category_id', 'image_id', 'segmentation', 'area', 'id', 'name', 'width', 'height', 'file_name']
        keys += ['images', 'annotations', 'categories']
        how = change_one_value(content, keys, draw)
        (root / 'train.json').write_text(json.dumps(content))
    problems = list(map(str, check_datasets(load_config(str(path), {})).problems))
    assert problems, how
    assert any('train.json' in problem for problem in problems), f'{how}: {problems}'
    assert all(problem.isprintable() for problem in problems)


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
