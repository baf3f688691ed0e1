"""Class names of a config against annotations, label maps and heads: what OpenMMLab would silently drop is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from few_images import shapes  # noqa: F401  a fixture
from mmengine.config import Config
from own_data import CLASSES, SEG_CLASSES, fill_in, fill_in_mask2former, write_coco, write_masks, write_voc

from deformable_vit.checks import check

MASK_RCNN = 'dat/mask-rcnn_dat-t_fpn_ms-crop-1x_coco.py'


@pytest.fixture
def data(tmp_path: Path, shapes: Path) -> Path:  # noqa: F811
    root = tmp_path / 'data'
    root.mkdir()
    write_coco(shapes, root)
    write_masks(shapes, root)
    write_voc(shapes, root)
    return root


def config(data: Path, template: str, classes: object, **variables: object) -> Config:
    return Config.fromfile(fill_in(data.parent / 'mine.py', template, data, classes=classes, **variables))


def problems(config: Config, level: str = 'error', **edits: Any) -> list[str]:
    config.merge_from_dict(edits)
    return [str(problem) for problem in check(config) if problem.level == level]


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_correct_configs_have_no_problems(data: Path) -> None:
    for template, classes in (
        ('detection', CLASSES),
        ('instance_segmentation', CLASSES),
        ('segmentation', SEG_CLASSES),
        ('voc', CLASSES),
    ):
        mine = config(data, template, classes)
        assert list(check(mine)) == list(check(mine, quick=True)) == [], template
        assert check(mine).checked['images'] == 12


def test_classes_that_a_coco_file_does_not_list(data: Path) -> None:
    for classes in (('dog',), ('roof', 'Tyre'), ('dog', 'wheel', 'roof')):
        found = problems(config(data, 'detection', classes))
        wrong = next(name for name in classes if name in ('dog', 'Tyre'))
        assert any(f'classes {wrong!r} are not in the annotation file' in line for line in found)
        assert all("the file has 'wheel', 'roof', 'window'" in line for line in found)
    found = problems(config(data, 'detection', ('tire', 'wheel')))
    assert "classes must be in the order of the annotation file, ('wheel', 'tire')" in found[0]


def test_forgotten_class_names_of_one_or_both_datasets(data: Path) -> None:
    """Without ``metainfo``, mmdet takes the names of COCO's 80 classes."""
    mine = config(data, 'detection', CLASSES)
    mine.val_dataloader.dataset.metainfo = None
    mine.test_dataloader.dataset.metainfo = None
    (line,) = problems(mine)
    assert "set metainfo=dict(classes=('wheel', 'roof', 'window'" in line


def test_several_files_have_every_class_together(data: Path) -> None:
    mine = config(data, 'detection', (*CLASSES, 'extra'))
    edit(
        data / 'train.json',
        lambda content: content.update(categories=content['categories'][:2] + content['categories'][4:]),
    )
    whole = json.loads((data / 'train.json').read_text())
    whole['categories'].append(dict(id=99, name='extra'))
    (data / 'second.json').write_text(json.dumps(whole))
    single = mine.train_dataloader.dataset
    loaders = ('train_dataloader',)
    for loader, level in ('train', 'warning'), ('val', 'error'):  # an evaluation would need the last class
        (data / f'{loader}.json').write_bytes((data / 'train.json').read_bytes())
        report = check(mine, loaders=[f'{loader}_dataloader'])
        assert [p.level for p in report if "classes 'extra' are not" in str(p)] == [level]
    both = [single, single | dict(ann_file='second.json')]
    mine.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    report = check(mine, loaders=loaders)
    assert report.errors == []
    assert report.checked['annotation files'] == 2
    assert ["classes that never occur ('extra'" in str(p) for p in report if 'never' in p.kind] == [True]


def test_annotations_that_mmdet_cannot_use(data: Path) -> None:
    def keep_others(content: dict[str, Any]) -> None:
        others = {c['id'] for c in content['categories'] if c['name'] in ('window', 'decoration')}
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] in others]

    edit(data / 'train.json', keep_others)
    mine = config(data, 'detection', CLASSES)
    assert 'filter_cfg drops images (8 of 8: 8 without an annotation of the classes' in problems(mine)[0]
    mine.train_dataloader.dataset.filter_cfg = None
    (line,) = problems(mine)
    assert "no annotation is of one of the classes ('wheel', 'roof', 'tire'; found {'window': " in line
    (data / 'train.json').write_text('{')
    assert 'train.json: the annotation file is not JSON' in problems(config(data, 'detection', CLASSES))[0]
    (data / 'train.json').unlink()
    assert 'train.json: the annotation file does not exist' in problems(config(data, 'detection', CLASSES))[0]


def test_other_formats_are_not_checked(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = config(data, 'detection', CLASSES)
    for kind in ('CocoPanopticDataset', 'LVISV1Dataset'):
        mine.merge_from_dict({f'{name}_dataloader.dataset.type': kind for name in ('train', 'val', 'test')})
        assert list(check(mine)) == []
        assert f'train_dataloader: there are no checks for {kind} in ' in capsys.readouterr().out
    mine.train_dataloader.dataset = dict(type='CocoDataset', data_root='s3://bucket', ann_file='train.json')
    assert list(check(mine)) == []
    assert 'there are no checks for CocoDataset in s3://bucket' in capsys.readouterr().out


def test_heads_with_another_number_of_classes(data: Path) -> None:
    mine = config(data, 'instance_segmentation', CLASSES, _base_=MASK_RCNN)
    for key in ('bbox_head', 'mask_head'):
        number = f'model.roi_head.{key}.num_classes'
        found = problems(mine, **{number: 2})
        assert f'{number} is 2 (train_dataloader has 3 classes' in found[0]
        assert f"'wheel', 'roof', 'tire'; set {number}=3)" in found[0]
        # A spare output does no harm, nor one mask for all classes, nor the head of region proposals.
        assert problems(mine, **{number: 80}) == []
        assert f'{number} is 80' in problems(mine, 'warning')[0]
        mine.merge_from_dict({number: 3})
    same = {'model.roi_head.mask_head.num_classes': 1, 'model.roi_head.mask_head.class_agnostic': True}
    assert problems(mine, **same, **{'model.rpn_head.num_classes': 1}) == problems(mine, 'warning') == []
    mine = config(data, 'segmentation', SEG_CLASSES, _base_='dat/upernet_dat-t-pp_8xb2-160k_ade20k-512x512.py')
    assert 'model.auxiliary_head.num_classes is 150' in problems(mine, 'warning')[0]
    boundary = dict(mine.model.auxiliary_head) | dict(type='STDCHead', num_classes=2)
    mine.model.auxiliary_head = [dict(mine.model.auxiliary_head) | dict(num_classes=6), boundary]
    assert list(check(mine)) == []


@pytest.mark.parametrize(
    ('template', 'base', 'classes', 'head'),
    [
        ('instance_segmentation', 'dat/mask2former_dat-t_8xb2-lsj-50e_coco.py', CLASSES, 'panoptic_head.num_things'),
        ('segmentation', 'dat/mask2former_dat-t_8xb2-160k_ade20k-512x512.py', SEG_CLASSES, 'decode_head.num'),
    ],
)
def test_mask2former(data: Path, template: str, base: str, classes: tuple[str, ...], head: str) -> None:
    path = data.parent / 'mine.py'
    mine = Config.fromfile(fill_in_mask2former(path, template, data, _base_=base, classes=classes))
    assert list(check(mine)) == []
    found = problems(mine, 'error' if template.startswith('instance') else 'warning', **{f'model.{head}_classes': 2})
    assert f'model.{head}_classes is 2' in found[0]
    if template.startswith('instance'):
        edit(data / 'train.json', lambda content: [a.pop('segmentation') for a in content['annotations'][:3]])
        assert 'annotation 1: no "segmentation", which with_mask=True needs' in ' '.join(problems(mine))


def test_classes_of_voc_files(data: Path) -> None:
    found = problems(config(data, 'voc', ('roof', 'Tyre')), 'warning')
    assert "classes that never occur ('Tyre'; found {" in found[0]
    assert "'roof': " in found[0]
    found = problems(config(data, 'voc', ('dog',)))
    assert 'no annotation is of one of the classes' in found[0]
