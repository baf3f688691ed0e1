"""Generated bad images and annotations: each is named, or does no harm."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from few_images import shapes  # noqa: F401  a fixture
from own_data import CLASSES, SEG_CLASSES, fill_in, write_coco, write_masks
from PIL import Image

from deformable_vit._nested import walk
from deformable_vit.apis.config import load_config
from deformable_vit.checks import check

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
TIMES = 50
# Values of every type that JSON has, but numbers to compute with.
VALUES = [None, True, float('nan'), float('inf'), '', 'x', [], [1, 2], {}, {'a': 1}, [[None]]]


def change_one_value(content: Any, keys: list[str], draw: random.Random) -> str:
    """Give a random entry of one of the names, or of a list of that name, a value of another type; return its key."""
    candidates = [
        (key, value) for key, value in walk(content, '') if key and key.rstrip('.0123456789').rpartition('.')[2] in keys
    ]
    key, value = draw.choice(candidates)
    *path, last = [int(part) if part.isdigit() else part for part in key.split('.') if part]
    node = content
    for part in path:
        node = node[part]
    node[last] = draw.choice([new for new in VALUES if type(new) is not type(value) or new != new])
    return f'{key} = {node[last]!r}, which was {str(value)[:50]}'


def damage_image(file: Path, draw: random.Random) -> str:
    """Do one of the things that happen to files of images; return its name."""
    content = bytearray(file.read_bytes())
    how = draw.choice(['gone', 'empty', 'cut', 'text', 'zeros', 'resized', 'rotated', 'directory', 'loop'])
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
    return how


def test_a_bad_image_is_named(shapes: Path, tmp_path: Path) -> None:  # noqa: F811
    for attempt in range(TIMES):
        draw, root = random.Random(attempt), tmp_path / str(attempt)
        if attempt % 2:
            write_masks(shapes, root)
            path = fill_in(tmp_path / 'segmentation.py', 'segmentation', root, classes=SEG_CLASSES)
        else:
            write_coco(shapes, root)
            path = fill_in(tmp_path / 'detection.py', 'detection', root, classes=CLASSES)
        file = draw.choice(sorted(file for file in root.rglob('*') if file.suffix in ('.jpg', '.png')))
        how = damage_image(file, draw)
        problems = list(map(str, check(load_config(str(path), {}))))
        assert any(file.stem in problem for problem in problems), f'{how}: {file}: {problems}'
        assert all(problem.isprintable() for problem in problems)


def test_a_bad_annotation_is_named(shapes: Path, tmp_path: Path) -> None:  # noqa: F811
    keys = ['bbox', 'category_id', 'image_id', 'segmentation', 'area', 'id', 'name', 'width', 'height', 'file_name']
    keys += ['images', 'annotations', 'categories']
    for attempt in range(TIMES):
        draw, root = random.Random(attempt), tmp_path / str(attempt)
        write_coco(shapes, root)
        path = fill_in(tmp_path / 'own.py', 'instance_segmentation', root, classes=CLASSES)
        text = (root / 'train.json').read_text()
        if attempt % 5 == 0:  # a part of the file
            how, text = 'cut', text[: draw.randint(0, len(text) - 10)]
        else:
            content = json.loads(text)
            how, text = change_one_value(content, keys, draw), json.dumps(content)
        (root / 'train.json').write_text(text)
        problems = list(map(str, check(load_config(str(path), {}))))
        # Text is an id as well, and mmdet ignores the box of an RLE without counts.
        does_no_harm = how.startswith('.annotations.') and (".id = '" in how or '.segmentation = {' in how)
        assert does_no_harm or any('train.json' in problem for problem in problems), f'{how}: {problems}'
        assert all(problem.isprintable() for problem in problems)
