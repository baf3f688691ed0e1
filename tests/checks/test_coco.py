"""Problems of annotation files in COCO's format."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from deformable_vit.checks import check

GOOD: dict[str, Any] = dict(
    images=[dict(id=i, file_name=f'{i}.jpg', width=100, height=80) for i in range(3)],
    categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
    annotations=[
        dict(
            id=1 + i,
            image_id=i % 3,
            category_id=1 + i % 2,
            bbox=[10.0 + i, 20, 30, 40],
            area=1200,
            iscrowd=0,
            segmentation=[[10, 20, 40, 20, 40, 60]],
        )
        for i in range(6)
    ],
)
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]


def problems(
    content: Any, root: Path, loader: str = 'train', masks: bool = True, **dataset: Any
) -> list[tuple[str, str, str]]:
    """Return level, kind and record of the problems of a file, but not those of the images, which do not exist."""
    (root / 'train.json').write_text(json.dumps(content))
    pipeline = PIPELINE if masks else [PIPELINE[0], PIPELINE[1] | dict(with_mask=False)]
    settings = dict(type='CocoDataset', data_root=str(root), ann_file='train.json', pipeline=pipeline)
    settings |= dict(data_prefix=dict(img=''))
    settings |= dict(metainfo=dict(classes=('cat', 'dog'))) | dataset
    evaluator = dict(type='CocoMetric', ann_file=str(root / 'train.json'), metric=['bbox', 'segm'])
    config = Config({f'{loader}_dataloader': dict(dataset=settings), f'{loader}_evaluator': evaluator})
    config.merge_from_dict(dict(default_scope='mmdet', model=dict(bbox_head=dict(num_classes=2))))
    return [(p.level, p.kind, p.record) for p in check(config) if p.kind != 'the image does not exist']


def changed(index: int = 0, number: int = 6, **changes: Any) -> dict[str, Any]:
    """Return a good file with one annotation changed."""
    content = copy.deepcopy(GOOD)
    content['annotations'] = [dict(GOOD['annotations'][i % 6], id=1 + i) for i in range(number)]
    content['annotations'][index].update(changes)
    return content


def test_good_files_have_no_problems(tmp_path: Path) -> None:
    assert problems(GOOD, tmp_path) == []
    assert problems(GOOD, tmp_path, 'val') == []
    rle = changed(segmentation=dict(size=[80, 100], counts=[10, 20, 7970]), iscrowd=1)
    rle['annotations'][1] |= dict(segmentation=dict(size=[80, 100], counts='abc'))
    assert problems(rle, tmp_path) == []
    # Other programs write 1.0 for the id 1.
    floats = copy.deepcopy(GOOD)
    for entry in (*floats['images'], *floats['categories']):
        entry['id'] = float(entry['id'])
    assert problems(floats, tmp_path) == []
    assert problems(changed(ignore=True, bbox=None), tmp_path) == []  # mmdet does not read it
    unlabeled = {key: value for key, value in GOOD.items() if key != 'annotations'}
    assert problems(unlabeled, tmp_path, 'val') == []  # as test-dev


def test_a_wrong_annotation_is_named(tmp_path: Path) -> None:
    for change, kind in (
        (dict(bbox=[10, 20, math.inf, 40]), 'a box is not four finite numbers'),
        (dict(bbox=[10, 20, 30]), 'a box is not four finite numbers'),
        (dict(bbox=['10', 20, 30, 40]), 'a box is not four finite numbers'),
        (dict(id=2), 'duplicate id of annotation'),
        (dict(id=[1]), 'an id is neither a whole number nor text'),
        (dict(area=None), 'an annotation has no valid area'),
        (dict(segmentation=[]), 'no "segmentation", which with_mask=True needs'),
        (dict(segmentation=[[1, 2, 3, 4, 5, math.nan]]), 'a polygon is not a list of finite numbers'),
        (dict(segmentation=dict(size=[100, 80], counts='abc')), 'an RLE has another size than the image'),
        (dict(segmentation=dict(size=[80, 100], counts=[1, 8002])), 'the counts of an RLE do not add up'),
        (dict(segmentation='polygon'), 'a segmentation is neither polygons nor RLE'),
    ):
        found = [problem for problem in problems(changed(**change), tmp_path) if problem[0] == 'error']
        assert len(found) == 1, change
        assert found[0][1].startswith(kind)
        assert found[0][2] == f'annotation {change.get("id", 1)}'


def test_what_mmdet_works_around_is_a_warning(tmp_path: Path) -> None:
    dropped, small = 'a box is inverted or outside of its image', 'a box has no area or is below one pixel'
    for change, kind in (
        (dict(bbox=[10, 20, -30, 40]), dropped),
        (dict(bbox=[200, 20, 30, 40], area=None), dropped),
        (dict(bbox=[10, 20, 0, 40], area=0), dropped),
        (dict(bbox=[10, 20, math.nan, 40]), 'a box is not four finite numbers'),
        (dict(bbox=[10, 20, 0.5, 40]), small),
        (dict(area=0), small),
        (dict(segmentation=[[1, 2, 3, 4]]), 'no polygon has three points'),
        (dict(segmentation=dict(size=[80, 100], counts=[1, 2])), 'the counts of an RLE do not add up'),
        (dict(bbox=[90, 20, 30, 40]), 'a box leaves its image'),
        (dict(category_id=7), 'unknown category_id'),
        (dict(image_id=7), 'unknown image_id'),
    ):
        for number in (6, 20):
            ((level, found, record),) = problems(changed(number=number, **change), tmp_path)
            assert (level, record) == ('warning', 'annotation 1'), change
            assert found.startswith(kind)
    assert problems(changed(segmentation='x'), tmp_path, masks=False) == []


def test_what_evaluation_needs(tmp_path: Path) -> None:
    without = copy.deepcopy(GOOD)
    del without['annotations'][0]['iscrowd']
    assert problems(without, tmp_path) == []
    assert problems(without, tmp_path, 'val') == [('error', "no 'iscrowd', which pycocotools needs", 'annotation 1')]
    text = changed(id='first')
    assert problems(text, tmp_path) == []
    assert ('error', 'pycocotools cannot evaluate an id that is text', "annotation 'first'") in problems(
        text, tmp_path, 'val'
    )
    assert problems(changed(id=0), tmp_path) == []
    assert problems(changed(id=0), tmp_path, 'val') == [
        ('warning', 'pycocotools takes the id 0 for "no match"; number annotations from 1', 'annotation 0')
    ]


def test_boxes_in_another_format(tmp_path: Path) -> None:
    normalized, corners = copy.deepcopy(GOOD), copy.deepcopy(GOOD)
    for i in range(6):
        normalized['annotations'][i]['bbox'] = [0.1, 0.2, 0.3, 0.4]
        corners['annotations'][i]['bbox'] = [40, 30, 70 + i, 60]
    assert ('error', 'boxes are normalized (0 to 1); COCO has pixels', '') in problems(normalized, tmp_path)
    kind = 'boxes look like corners (x0, y0, x1, y1); COCO has (x, y, width, height)'
    assert ('error', kind, '') in problems(corners, tmp_path)
    # One or two boxes may leave their images by mistake; and one at a border says that the format is right.
    few = corners | dict(annotations=corners['annotations'][:3])
    assert {found for _, found, _ in problems(few, tmp_path)} == {'a box leaves its image'}
    corners['annotations'][0]['bbox'] = [40, 30, 10, 10]
    assert kind not in [found for _, found, _ in problems(corners, tmp_path)]


def test_a_wrong_list_is_an_error(tmp_path: Path) -> None:
    image = dict(id=3, file_name='x.jpg', width=5, height=5)
    for key, value, kind in (
        ('images', [], 'not in COCO format'),
        ('categories', None, 'not in COCO format: a list of dicts is missing or empty'),
        ('annotations', [1], 'not in COCO format'),
        ('images', [*GOOD['images'], image | dict(id=2)], 'duplicate id of image'),
        ('images', [*GOOD['images'], image | dict(file_name=None)], 'image without a file_name'),
        ('images', [*GOOD['images'], image | dict(width=0)], 'an image has no valid width'),
        ('categories', [*GOOD['categories'], dict(id=2, name='cow')], 'duplicate id of category'),
        ('categories', [*GOOD['categories'], dict(id=3, name='cat')], 'two categories have one name'),
        ('categories', [*GOOD['categories'], dict(id=3)], 'category without a name'),
    ):
        found = problems({**copy.deepcopy(GOOD), key: value}, tmp_path)
        assert any(level == 'error' and name.startswith(kind) for level, name, _ in found), (key, value, found)
    for content in (None, [], 3, {}, {'images': 1}):
        assert {kind for _, kind, _ in problems(content, tmp_path)} == {
            'not in COCO format: a list of dicts is missing or empty'
        }


@pytest.mark.parametrize(('min_size', 'level'), [(32, 'warning'), (90, 'error')])
def test_what_the_filters_drop(tmp_path: Path, min_size: int, level: str) -> None:
    content = copy.deepcopy(GOOD)
    content['images'].append(dict(id=9, file_name='9.jpg', width=100, height=20))
    filters = dict(filter_empty_gt=True, min_size=min_size)
    assert problems(content, tmp_path, filter_cfg=filters) == [(level, 'filter_cfg drops images', '')]
    assert problems(content, tmp_path, 'val', filter_cfg=filters, test_mode=True) == []  # which is not filtered
