"""Problems of annotation files in COCO's format."""

import copy
import math
from typing import Any

import pytest

from deformable_vit.engine.data_checks.coco import check_coco

GOOD: dict[str, Any] = dict(
    images=[dict(id=i, file_name=f'{i}.jpg', width=100, height=80) for i in range(3)],
    categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
    annotations=[
        dict(
            id=i,
            image_id=i % 3,
            category_id=1 + i % 2,
            bbox=[10.0 + i, 20, 30, 40],
            area=1200,
            segmentation=[[10, 20, 40, 20, 40, 60]],
        )
        for i in range(6)
    ],
)


def problems(content: Any, masks: bool = True) -> list[tuple[str, str, str]]:
    return [(p.level, p.kind, p.record) for p in check_coco(content, 'train.json', masks)]


def test_a_good_file_has_no_problems() -> None:
    assert problems(GOOD) == []
    rle = copy.deepcopy(GOOD)
    rle['annotations'][0] |= dict(segmentation=dict(size=[80, 100], counts=[10, 20, 7970]), iscrowd=1)
    rle['annotations'][1] |= dict(segmentation=dict(size=[80, 100], counts='abc'))
    assert problems(rle) == []


@pytest.mark.parametrize(
    ('change', 'kind'),
    [
        (dict(bbox=[10, 20, math.nan, 40]), 'a box is not four finite numbers'),
        (dict(bbox=[10, 20, 30]), 'a box is not four finite numbers'),
        (dict(bbox=['10', 20, 30, 40]), 'a box is not four finite numbers'),
        (dict(id=1), 'duplicate id of annotation'),
        (dict(area=None), 'an annotation has no valid area'),
        (dict(segmentation=[[1, 2, 3, 4, 5, math.nan]]), 'a polygon has a value that is not a finite number'),
        (dict(segmentation=dict(size=[100, 80], counts='abc')), 'an RLE has another size than the image'),
        (dict(segmentation=dict(size=[80, 100], counts=[1, 2])), 'the counts of an RLE do not add up'),
        (dict(segmentation=dict(size=[80, 100])), 'an RLE has no counts'),
        (dict(segmentation='polygon'), 'a segmentation is neither polygons nor RLE'),
    ],
)
def test_a_wrong_annotation_is_an_error(change: dict[str, Any], kind: str) -> None:
    content = copy.deepcopy(GOOD)
    content['annotations'][0].update(change)
    ((level, found, record),) = [p for p in problems(content) if p[0] == 'error']
    assert level == 'error'
    assert found.startswith(kind)
    assert record == ('annotation 1' if 'duplicate' in kind else 'annotation 0')


@pytest.mark.parametrize(
    ('change', 'kind'),
    [
        (dict(bbox=[10, 20, -30, 40]), 'an inverted box'),
        (dict(bbox=[200, 20, 30, 40]), 'a box is outside of its image'),
        (dict(category_id=7), 'unknown category_id'),
        (dict(image_id=7), 'unknown image_id'),
        (dict(segmentation=[[1, 2, 3, 4]]), 'a polygon has fewer than 3 points'),
    ],
)
def test_what_mmdet_drops_is_an_error_if_it_is_much(change: dict[str, Any], kind: str) -> None:
    few = copy.deepcopy(GOOD)
    few['annotations'] = [dict(GOOD['annotations'][i % 6], id=i) for i in range(20)]
    few['annotations'][0].update(change)
    assert [(level, record) for level, found, record in problems(few) if found.startswith(kind)] == [
        ('warning', 'annotation 0')
    ]
    assert not [p for p in problems(few) if p[0] == 'error']
    if 'polygon' not in kind:  # the annotation stays
        much = copy.deepcopy(GOOD)
        much['annotations'][0].update(change)
        assert [p[1] for p in problems(much) if p[0] == 'error'] == ['too many annotations are dropped by mmdet']


@pytest.mark.parametrize(
    ('change', 'kind'),
    [
        (dict(bbox=[10, 20, 0, 40], area=0), 'zero area'),
        (dict(bbox=[10, 20, 0.5, 40]), 'a box below one pixel'),
        (dict(bbox=[90, 20, 30, 40]), 'a box leaves its image'),
    ],
)
def test_what_mmdet_works_around_is_a_warning(change: dict[str, Any], kind: str) -> None:
    content = copy.deepcopy(GOOD)
    content['annotations'][0].update(change)
    found = problems(content)
    assert {level for level, _, _ in found} == {'warning'}
    assert any(name.startswith(kind) for _, name, _ in found)


def test_segmentations_matter_to_a_mask_head_alone() -> None:
    content = copy.deepcopy(GOOD)
    content['annotations'][0]['segmentation'] = [[1, 2]]
    assert [level for level, _, _ in problems(content, masks=False)] == ['warning']


def test_boxes_in_another_format() -> None:
    normalized, corners = copy.deepcopy(GOOD), copy.deepcopy(GOOD)
    for annotation in normalized['annotations']:
        annotation['bbox'] = [0.1, 0.2, 0.3, 0.4]
    assert ('error', 'boxes are normalized (0 to 1); COCO has pixels', '') in problems(normalized)
    for i, annotation in enumerate(corners['annotations']):
        annotation['bbox'] = [40, 30, 70 + i, 60]
    assert any(kind.startswith('boxes look like corners') for _, kind, _ in problems(corners))
    # One box at a border is no other format.
    corners['annotations'][0]['bbox'] = [40, 30, 10, 10]
    assert not any(kind.startswith('boxes look like corners') for _, kind, _ in problems(corners))


@pytest.mark.parametrize(
    ('key', 'value', 'kind'),
    [
        ('images', [], 'a list is empty'),
        ('annotations', [], 'a list is empty'),
        ('categories', None, 'not in COCO format: a list is missing'),
        ('annotations', [1], 'not in COCO format: an entry is no dict'),
        ('images', GOOD['images'] + [dict(id=2, file_name='x.jpg', width=5, height=5)], 'duplicate id of image'),
        ('images', GOOD['images'] + [dict(id=3, width=5, height=5)], 'an image has no file_name'),
        ('images', GOOD['images'] + [dict(id=3, file_name='x.jpg', width=0, height=5)], 'an image has no valid width'),
        ('categories', GOOD['categories'] + [dict(id=2, name='cow')], 'duplicate id of category'),
        ('categories', GOOD['categories'] + [dict(id=3, name='cat')], 'two categories have one name'),
    ],
)
def test_a_wrong_list_is_an_error(key: str, value: Any, kind: str) -> None:
    found = problems({**copy.deepcopy(GOOD), key: value})
    assert any(level == 'error' and name.startswith(kind) for level, name, _ in found), found


@pytest.mark.parametrize('content', [None, [], 3, {}, {'images': 1}])
def test_other_json_is_no_coco_file(content: Any) -> None:
    assert {kind for _, kind, _ in problems(content)} == {'not in COCO format: a list is missing'}


def test_what_other_programs_write_is_accepted() -> None:
    content = copy.deepcopy(GOOD)
    for entry in (*content['images'], *content['categories']):
        entry['id'] = float(entry['id'])
    assert problems(content) == []  # 1.0 and 1 are the same id
    for annotation in content['annotations']:
        annotation |= dict(image_id=float(annotation['image_id']), category_id=float(annotation['category_id']))
    assert problems(content) == []
    content['categories'].append(dict(id=9, name=None))
    for classes, level in ((('cat', 'dog'), 'warning'), (('cat', 'dog', 'cow'), 'error'), ((), 'error')):
        (problem,) = check_coco(content, 'train.json', True, classes=classes)  # of no class, or perhaps of a class
        assert (problem.level, problem.kind) == (level, 'the name of a category is not text')
    content['images'][0]['id'] = 0.5
    assert ('error', 'an id is neither a whole number nor text', 'image 0.5') in problems(content)


def test_a_file_of_images_to_detect_on_has_no_annotations() -> None:
    content = {key: value for key, value in GOOD.items() if key != 'annotations'}
    assert [kind for _, kind, _ in problems(content)] == ['not in COCO format: a list is missing']
    assert list(check_coco(content, 'test-dev.json', False, needs_annotations=False)) == []
