"""Repaired copies of annotation files: what is certain is changed and named, and the original stays."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_coco_truth import config, each, errors, every, first, good, root, text  # noqa: F401  root is a fixture

from deformable_vit.checks import repair_file
from deformable_vit.checks.repair import repair
from deformable_vit.errors import UserError


def precision(file: Path) -> float:
    """Return the average precision of perfect predictions."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        found = [dict(score=0.9, **{k: a[k] for k in ('image_id', 'category_id', 'bbox')}) for a in truth.anns.values()]
        evaluation = COCOeval(truth, truth.loadRes(found), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.parametrize(
    'change',
    [
        each('iscrowd'),
        each('area'),
        first(area=None),
        every(lambda a: a.update(area=0)),
        first(iscrowd=None),
        every(text('iscrowd')),
        every(text('area')),
        every(text('image_id')),
        every(text('category_id')),
        every(lambda a: a.update(id=a['id'] - 1)),
        every(lambda a: a.update(id=f'annotation-{a["id"]}')),
        every(lambda a: a.update(image_id=float(a['image_id']))),
        every(lambda a: a.update(bbox=[str(value) for value in a['bbox']])),
        each('bbox'),
        first(id=2),
        each('width', 'images'),
        every(text('height'), 'images'),
        first(segmentation=[[], [10, 20, 40, 20, 40, 60, 10, 60]]),
        lambda content: content['annotations'].append(content['annotations'][0] | dict(id=9, bbox=[1, 1, 0, 5])),
        lambda content: content['annotations'].append(content['annotations'][0] | dict(id=9, image_id=77)),
        lambda content: content['annotations'].append(content['annotations'][0] | dict(id=9, category_id=77)),
        lambda content: content['images'].append(dict(content['images'][0])),
        lambda content: [
            content['images'][0].update(id='a'),
            [a.update(image_id='a') for a in content['annotations'] if a['image_id'] == 1],
        ],
    ],
)
def test_a_repaired_copy_evaluates(root: Path, change: Any) -> None:  # noqa: F811
    content = good()
    change(content)
    settings = config(root, content, 'val')
    original = (root / 'data.json').read_bytes()
    done, file = repair_file(settings, ['val_dataloader'], root / 'new.json')
    assert (file, done.left) == (str(root / 'data.json'), [])
    assert done.changes.total() >= 1
    assert (root / 'data.json').read_bytes() == original
    assert precision(root / 'new.json') == 1
    settings.val_dataloader.dataset.ann_file = settings.val_evaluator.ann_file = str(root / 'new.json')
    assert errors(settings) == []
    assert [image['id'] for image in json.loads((root / 'new.json').read_text())['images']] in ([1, 2, 3], [4, 2, 3])


def test_values_of_repairs(root: Path) -> None:  # noqa: F811
    content = good()
    a, b, c, *_ = content['annotations']
    a.update(segmentation=[[0, 0, 10, 0, 0, 10]], area=None, bbox=None)
    b.update(segmentation=[50, 10, 70, 10, 70, 40], area='600')
    c.update(segmentation=None, area=0)
    repair(content, root)
    assert a['bbox'] == [0, 0, 10, 10]
    assert 40 < a['area'] < 60
    assert (b['segmentation'], b['area']) == ([[50, 10, 70, 10, 70, 40]], 600)
    assert c['area'] == c['bbox'][2] * c['bbox'][3]
    same = good()
    assert repair(same, root).changes == {}
    assert same == good()


def test_what_only_a_person_can_repair(root: Path) -> None:  # noqa: F811
    content = good()
    content['annotations'][0].update(bbox=None, segmentation=None)
    content['annotations'][1].update(bbox=[50, 20, -30, 40], segmentation=None)
    content['images'][2].update(width=None, file_name='gone.png')
    done = repair(copy.deepcopy(content), root)
    assert [line.partition(':')[0] for line in done.left] == ['image 3', 'annotation 1', 'annotation 2']


def test_nothing_is_overwritten_and_one_file_is_chosen(root: Path) -> None:  # noqa: F811
    content = good()
    each('iscrowd')(content)
    settings = config(root, content, 'train')
    (root / 'link.json').symlink_to(root / 'data.json')
    (root / 'dangling.json').symlink_to(root / 'nothing.json')
    for name in ('data.json', 'link.json', 'dangling.json', f'../{root.name}/data.json'):
        with pytest.raises(UserError, match=f'--fix .*{Path(name).name}: the file exists'):
            repair_file(settings, ['train_dataloader'], root / name)
    with pytest.raises(UserError, match='the directory does not exist'):
        repair_file(settings, ['train_dataloader'], root / 'gone' / 'new.json')
    (root / 'second.json').write_text(json.dumps(good()))
    settings.val_dataloader = dict(dataset=settings.train_dataloader.dataset | dict(ann_file='second.json'))
    with pytest.raises(UserError, match=r'here are 2: .*data.json \(train.*second.json \(val.*; choose with --only'):
        repair_file(settings, ['train_dataloader', 'val_dataloader'], root / 'new.json')
    done, _ = repair_file(settings, ['val_dataloader'], root / 'new.json')
    assert not done.changes
    assert not (root / 'new.json').exists()
    settings.train_dataloader.dataset.type = 'XMLDataset'
    with pytest.raises(UserError, match='no local annotation file in COCO format in train_dataloader'):
        repair_file(settings, ['train_dataloader'], root / 'new.json')


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_another_encoding(root: Path, encoding: str) -> None:  # noqa: F811
    settings = config(root, good(), 'train')
    (root / 'data.json').write_text(json.dumps(good()), encoding=encoding)
    assert any('not JSON' in line for line in errors(settings))
    repair_file(settings, ['train_dataloader'], root / 'new.json')
    settings.train_dataloader.dataset.ann_file = 'new.json'
    assert errors(settings) == []
