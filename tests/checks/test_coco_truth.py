"""The checks of annotation files against mmdet itself: an error is what mmdet fails at, and nothing else."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from pycocotools import mask as coco_masks

from deformable_vit.checks import check

CLASSES = ('cat', 'dog')
Content = dict[str, Any]
Change = Callable[[Content], object]


def good() -> Content:
    boxes = [[10, 20, 30, 40], [50, 10, 20, 30], [0, 0, 100, 80], [5.5, 5.5, 40, 20], [60, 40, 40, 40], [20, 30, 8, 9]]
    return dict(
        images=[dict(id=i + 1, file_name=f'{i}.png', width=100, height=80) for i in range(3)],
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
        annotations=[
            dict(id=i + 1, image_id=i % 3 + 1, category_id=i // 3 + 1, bbox=[x, y, w, h], area=w * h, iscrowd=0)
            | dict(segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])
            for i, (x, y, w, h) in enumerate(boxes)
        ],
    )


def first(**values: Any) -> Change:
    """Change the first annotation."""
    return lambda content: content['annotations'][0].update(values)


def each(key: str, entries: str = 'annotations', **values: Any) -> Change:
    """Change, or without a value delete, a key of all entries."""

    def change(content: Content) -> None:
        for entry in content[entries]:
            entry.pop(key)
            entry.update(values)

    return change


def every(change: Callable[[Content], object], entries: str = 'annotations') -> Change:
    return lambda content: [change(entry) for entry in content[entries]]


def text(key: str) -> Callable[[Content], object]:
    return lambda entry: entry.update({key: str(entry[key])})


def without_first(key: str) -> Change:
    return lambda content: content['annotations'][0].pop(key)


def rle(compressed: bool, **values: Any) -> Change:
    mask = np.zeros((80, 100), np.uint8, order='F')
    mask[20:60, 10:40] = 1
    encoded = coco_masks.encode(mask)
    runs = [10 * 80 + 20, *[40, 40] * 29, 40]
    counts = encoded['counts'].decode() if compressed else [*runs, 8000 - sum(runs)]
    return first(segmentation=dict(size=[80, 100], counts=counts), **values)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(3):
        Image.fromarray(np.full((80, 100, 3), 40 * i, np.uint8)).save(tmp_path / f'{i}.png')
    return tmp_path


def config(root: Path, content: Any, loader: str, with_mask: bool = False, **dataset: Any) -> Config:
    (root / 'data.json').write_text(json.dumps(content))
    metric = dict(type='CocoMetric', ann_file=str(root / 'data.json'), metric=['bbox', 'segm'] if with_mask else 'bbox')
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask)]
    settings = dict(type='CocoDataset', data_root=str(root), ann_file='data.json', data_prefix=dict(img=''))
    settings |= dict(serialize_data=False, metainfo=dict(classes=CLASSES), pipeline=[*load, dict(type='PackDetInputs')])
    settings |= dict(test_mode=loader == 'val')
    settings |= dict(filter_cfg=dict(filter_empty_gt=True, min_size=32)) | dataset
    return Config(
        {
            f'{loader}_dataloader': dict(dataset=settings),
            f'{loader}_evaluator': metric,
            'default_scope': 'mmdet',
            'model': dict(bbox_head=dict(num_classes=2)),
        }
    )


def outcome(settings: Config, loader: str, content: Content) -> str:
    """Return what mmdet says of the data: the error, ``empty``, or nothing if it reads and evaluates all of it."""
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        try:
            kwargs = {key: value for key, value in settings[f'{loader}_dataloader'].dataset.items() if key != 'type'}
            dataset = CocoDataset(**kwargs)
            samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
            if loader == 'train':
                labels = [label for sample in samples for label in sample.gt_instances.labels.tolist()]
                return f'labels {labels}' if not labels or max(labels) >= len(CLASSES) else ''
            options = {key: value for key, value in settings.val_evaluator.items() if key != 'type'}
            metric = CocoMetric(**options)
            metric.dataset_meta = dataset.metainfo
            truth = good()
            for i, sample in enumerate(samples):
                found = [a for a in truth['annotations'] if a['image_id'] == i + 1]
                boxes = torch.tensor([a['bbox'] for a in found], dtype=torch.float64).reshape(-1, 4)
                boxes[:, 2:] += boxes[:, :2]
                result = dict(bboxes=boxes, scores=torch.ones(len(found)))
                result['labels'] = torch.tensor([a['category_id'] - 1 for a in found], dtype=torch.long)
                if 'segm' in metric.metrics:
                    masks = [coco_masks.merge(coco_masks.frPyObjects(a['segmentation'], 80, 100)) for a in found]
                    result['masks'] = masks
                entry = dict(pred_instances=result, img_id=sample.img_id, ori_shape=sample.ori_shape)
                metric.process({}, [entry | ({'instances': sample.instances} if 'instances' in sample else {})])
            metric.evaluate(len(samples))
        except Exception as error:
            return f'{type(error).__name__}: {error}'
    return ''


def errors(settings: Config) -> list[str]:
    return [str(problem) for problem in check(settings) if problem.level == 'error']


DATA: dict[str, Change] = {
    'good': lambda content: None,
    'no iscrowd': each('iscrowd'),
    'iscrowd null': first(iscrowd=None),
    'iscrowd bool': first(iscrowd=False),
    'no area': each('area'),
    'area text': first(area='1200'),
    'area null': first(area=None),
    'area NaN': first(area=math.nan),
    'ignore without area': lambda content: content['annotations'][0].update(ignore=1, area=None),
    'no bbox': without_first('bbox'),
    'no category': without_first('category_id'),
    'no image_id': without_first('image_id'),
    'no id': without_first('id'),
    'ids numeric text': every(text('id')),
    'id text': first(id='first'),
    'id null': first(id=None),
    'id twice': first(id=2),
    'id twice, the second in an unknown image': lambda content: content['annotations'][-1].update(id=1, image_id=77),
    'id twice in an unknown image': first(id=2, image_id=77),
    'ids float': every(lambda entry: entry.update(id=float(entry['id']))),
    'categories from 0': lambda content: [
        every(lambda a: a.update(category_id=a['category_id'] - 1))(content),
        every(lambda c: c.update(id=c['id'] - 1), 'categories')(content),
    ],
    'category ids text': lambda content: [
        every(text('category_id'))(content),
        every(text('id'), 'categories')(content),
    ],
    'image ids text': lambda content: [every(text('image_id'))(content), every(text('id'), 'images')(content)],
    'image ids mixed': lambda content: [
        content['images'][0].update(id='a'),
        [a.update(image_id='a') for a in content['annotations'] if a['image_id'] == 1],
    ],
    'image ids float': lambda content: every(lambda a: a.update(image_id=float(a['image_id'])))(content),
    'image_id text, ids numbers': every(text('image_id')),
    'category_id text, ids numbers': every(text('category_id')),
    'one category_id text': lambda content: content['annotations'][0].update(category_id='1'),
    'no width': each('width', 'images'),
    'width text': every(text('width'), 'images'),
    'width float': every(lambda image: image.update(width=100.0), 'images'),
    'no file_name': each('file_name', 'images'),
    'image twice': lambda content: content['images'].append(dict(content['images'][0])),
    'crowds only in an image': lambda content: [a.update(iscrowd=1) for a in content['annotations'][::3]],
    'crowds only': every(lambda a: a.update(iscrowd=1)),
    'iscrowd text': every(text('iscrowd')),
    'box 3 numbers': first(bbox=[1, 2, 3]),
    'box 5 numbers': first(bbox=[1, 2, 30, 30, 5]),
    'box text': first(bbox=['10', '20', '30', '40']),
    'box touches borders': first(bbox=[0, 0, 100, 80]),
    'box beyond the border': first(bbox=[-5, -5, 120, 90]),
    'box outside': first(bbox=[200, 20, 30, 40]),
    'box outside without area': first(bbox=[200, 20, 30, 40], area=None),
    'box inverted': first(bbox=[50, 20, -30, 40]),
    'box empty': first(bbox=[10, 20, 0, 40]),
    'box below a pixel': first(bbox=[10, 20, 0.5, 40]),
    'box below a pixel without area': lambda content: [
        content['annotations'][0].update(bbox=[10, 20, 0.5, 40]), content['annotations'][0].pop('area')
    ],
    'normalized': every(lambda a: a.update(bbox=[v / 100 for v in a['bbox']])),
    'area 0': first(area=0),
    'area 0 everywhere': every(lambda a: a.update(area=0)),
    'unknown image': first(image_id=77),
    'unknown category': first(category_id=77),
    'no annotations': lambda content: content.update(annotations=[]),
    'no key annotations': lambda content: content.pop('annotations'),
    'no key categories': lambda content: content.pop('categories'),
    'no info': lambda content: content.pop('info', None),
    'one category': lambda content: [
        content['categories'].pop(), content['annotations'].__delitem__(slice(3, None))
    ],
    'first category missing': lambda content: [
        content['categories'].pop(0), content['annotations'].__delitem__(slice(0, 3))
    ],
    'a further category': lambda content: content['categories'].insert(1, dict(id=9, name='bird')),
    'category twice': lambda content: content['categories'].append(dict(id=2, name='dog')),
    'name twice': lambda content: content['categories'].append(dict(id=3, name='dog')),
    'one image without boxes': lambda content: content.update(
        annotations=[a for a in content['annotations'] if a['image_id'] != 1]
    ),
    'images below min_size': lambda content: content['images'][0].update(height=20),
}  # fmt: skip
MASKS: dict[str, Change] = {
    'good': lambda content: None,
    'no segmentation': each('segmentation'),
    'one empty': first(segmentation=[]),
    'one null': first(segmentation=None),
    'one [[]]': first(segmentation=[[]]),
    'flat polygon': lambda c: c['annotations'][0].update(segmentation=c['annotations'][0]['segmentation'][0]),
    'polygon 4 numbers': first(segmentation=[[10, 20, 40, 60]]),
    'polygon 4 numbers and another': first(segmentation=[[10, 20, 40, 20, 40, 60, 10, 60], [1, 1, 2, 2]]),
    'odd polygon': first(segmentation=[[10, 20, 40, 20, 40, 60, 10]]),
    'text': first(segmentation='x'),
    'many parts': first(segmentation=[[10, 20, 40, 20, 40, 60, 10, 60]] * 400),
    'compressed RLE': rle(True),
    'RLE': rle(False),
    'crowd with RLE': rle(False, iscrowd=1),
    'crowd with polygon': first(iscrowd=1),
    'RLE of another size': first(segmentation=dict(size=[100, 80], counts=[8000])),
    'RLE too long': first(segmentation=dict(size=[80, 100], counts=[8000, 2])),
    'RLE too short': first(segmentation=dict(size=[80, 100], counts=[1, 2])),
    'empty in a dropped image': lambda content: [
        content['images'][0].update(height=20),
        [a.update(segmentation=[]) for a in content['annotations'] if a['image_id'] == 1],
    ],
    'no file of an image without annotations': lambda content: content['images'].append(
        dict(id=4, file_name='gone.png', width=100, height=80)
    ),
    'empty of another category': lambda content: [
        content['categories'].append(dict(id=3, name='bird')),
        content['annotations'].append(content['annotations'][0] | dict(id=99, category_id=3, segmentation=[])),
    ],
}  # fmt: skip


# What spoils results without an error of mmdet.
SILENT = {'id twice, the second in an unknown image', 'iscrowd text', 'first category missing', 'name twice'}
SILENT_IN_EVALUATION = {'category twice', 'image ids mixed', 'normalized', 'one category'}


@pytest.mark.parametrize('loader', ['train', 'val'])
@pytest.mark.parametrize('with_mask', [False, True])
def test_an_error_is_what_mmdet_fails_at(root: Path, loader: str, with_mask: bool) -> None:
    wrong = {}
    for name, change in (MASKS if with_mask else DATA).items():
        content = copy.deepcopy(good())
        change(content)
        settings = config(root, content, loader, with_mask)
        found = [line for line in errors(settings) if ' in the image' not in line]
        said = outcome(settings, loader, content)
        if not with_mask and (name in SILENT or (loader == 'val' and name in SILENT_IN_EVALUATION)):
            said = 'silent'
        if bool(found) != bool(said):
            wrong[name] = f'mmdet: {said!r}, check: {found}'
    assert not wrong, '\n'.join(f'{name}: {line}' for name, line in wrong.items())


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    'no metainfo': (dict(metainfo=None), "metainfo=dict(classes=('cat', 'dog'))"),
    'upper case': (dict(metainfo=dict(CLASSES=CLASSES)), "metainfo has 'CLASSES', but 'classes' is what is read"),
    'no comma': (dict(metainfo=dict(classes='cat')), "the text 'cat'; a comma makes it a tuple, ('cat',)"),
    'another order': (
        dict(metainfo=dict(classes=('dog', 'cat'))),
        "in the order of the annotation file, ('cat', 'dog')",
    ),
    'a class that the file lacks': (dict(metainfo=dict(classes=('bird', *CLASSES))), "classes 'bird' are not in"),
    'data_prefix of another name': (dict(data_prefix=dict(img_path='')), "data_prefix has no 'img'"),
    'all below min_size': (dict(filter_cfg=dict(min_size=90)), '3 of 3: 3 below min_size=90'),
}


@pytest.mark.parametrize('name', CONFIGS)
def test_settings_that_mmdet_reads_in_another_way(root: Path, name: str) -> None:
    dataset, text = CONFIGS[name]
    settings = config(root, good(), 'train', **dataset)
    # The key in capitals is an error by itself.
    (line,) = (line for line in errors(settings) if 'nothing reads' not in line)
    assert text in line
    # The labels are others, or have other names.
    spoils = name in ('no metainfo', 'upper case', 'another order', 'a class that the file lacks', 'no comma')
    assert spoils or outcome(settings, 'train', good())


@pytest.mark.parametrize(
    'dataset',
    [
        dict(metainfo=dict(classes=['cat'])),
        dict(metainfo=dict(classes=('dog',))),
        dict(data_prefix=dict(img='./')),
        dict(filter_cfg=None),
        dict(indices=2),
    ],
)
def test_settings_that_mmdet_trains(root: Path, dataset: dict[str, Any]) -> None:
    settings = config(root, good(), 'train', **dataset)
    assert errors(settings) == []
    assert not outcome(settings, 'train', good())
    (root / 'link.json').symlink_to(root / 'data.json')
    settings.train_dataloader.dataset.ann_file = str(root / 'link.json')
    assert errors(settings) == []


def test_what_is_dropped_is_counted(root: Path) -> None:
    content = good()
    content['images'] += [dict(id=4, file_name='0.png', width=100, height=80)]
    content['annotations'][0]['iscrowd'] = 1
    for annotation in content['annotations'][3:]:
        annotation['area'] = 0
    report = check(config(root, content, 'train'))
    assert report.counts['train_dataloader']['cat'].numbers() == dict(
        images=2, boxes=2, smallest=[20, 30], largest=[100, 80]
    )
    details = {problem.kind: problem.detail for problem in report}
    assert details['filter_cfg drops images'].startswith('1 of 4: 1 without an annotation of the classes')
    assert "'dog': 3 annotations, 3 without area or below one pixel" in details['classes that never occur']
    assert report.errors == []


def test_wrappers_of_datasets(root: Path) -> None:
    settings = config(root, good(), 'train')
    dog = good()
    dog['categories'].pop(0)
    dog['annotations'] = dog['annotations'][3:]
    (root / 'dog.json').write_text(json.dumps(dog))
    one = settings.train_dataloader.dataset
    for wrapped in (
        dict(type='RepeatDataset', times=2, dataset=one),
        dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=one),
        dict(type='MultiImageMixDataset', dataset=one, pipeline=[]),
        dict(type='ConcatDataset', datasets=[one, one | dict(indices=1)]),
    ):
        settings.train_dataloader.dataset = wrapped
        assert errors(settings) == [], wrapped['type']
    settings.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, one | dict(ann_file='dog.json')])
    (line,) = errors(settings)
    assert "classes 'cat' are not in the annotation file" in line  # dogs would be cats


def test_files_of_evaluators(root: Path) -> None:
    settings = config(root, good(), 'val')
    other = good()
    other['images'][0]['file_name'] = 'other.png'
    each('iscrowd')(other)
    (root / 'other.json').write_text(json.dumps(other))
    settings.val_evaluator.ann_file = str(root / 'other.json')
    assert 'the annotation file of the evaluator has other names of images' in [p.kind for p in check(settings)]
    other['images'][0].update(id=7, file_name='0.png')
    (root / 'other.json').write_text(json.dumps(other))
    (line,) = errors(settings)
    assert 'the annotation file of the evaluator lacks images (1 of 3' in line
    assert 'do not correspond' in outcome(settings, 'val', other)
    other['images'][0]['id'] = 1
    (root / 'other.json').write_text(json.dumps(other))
    assert ["no 'iscrowd'" in line for line in errors(settings)] == [True] * 6
    assert 'KeyError' in outcome(settings, 'val', other)
    settings.val_evaluator = settings.val_evaluator | dict(format_only=True, outfile_prefix='x')
    assert errors(settings) == []
    settings.val_evaluator = dict(type='CocoMetric')
    (line,) = errors(settings)
    assert 'CocoMetric has no ann_file' in line
    assert 'ground truth is required' in outcome(settings, 'val', good())
    settings.val_dataloader.dataset.pipeline[-1].meta_keys = ('img_id', 'ori_shape', 'instances')
    assert errors(settings) == []
    assert not outcome(settings, 'val', good())
