"""Generated bad annotations: each is named, or does no harm."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from few_images import shapes  # noqa: F401  a fixture
from own_data import CLASSES, fill_in, write_coco

from deformable_vit._nested import walk
from deformable_vit.apis.config import load_config
from deformable_vit.checks import check

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
TIMES = 20
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
        # Anything but a list is an id, and mmdet reads True as 1.
        does_no_harm = how.startswith('.annotations.') and ('.id = ' in how or '.area = True' in how)
        assert does_no_harm or any('train.json' in problem for problem in problems), f'{how}: {problems}'
        assert all(problem.isprintable() for problem in problems)
