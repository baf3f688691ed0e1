"""Class names of a config against annotations, masks and heads: one line for what OpenMMLab would silently drop."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from own_data import CLASSES, SEG_CLASSES, fill_in, fill_in_mask2former, write_coco, write_masks, write_voc
from PIL import Image

from deformable_vit.datasets import ShapesSettings, write_shapes
from deformable_vit.engine import UserError
from deformable_vit.engine.data import check_data, is_coco_format
from deformable_vit.engine.data_checks.check import check_datasets

MASK_RCNN = 'dat/mask-rcnn_dat-t_fpn_1x_coco.py'


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'shapes'
    write_shapes(root, ShapesSettings(train=8, val=4, objects=1, size=64))
    return root


@pytest.fixture
def data(tmp_path: Path, shapes: Path) -> Path:
    root = tmp_path / 'data'
    root.mkdir()
    write_coco(shapes, root)
    write_masks(shapes, root)
    write_voc(shapes, root)
    return root


def config(data: Path, template: str, classes: object, **variables: object) -> Config:
    return Config.fromfile(fill_in(data.parent / 'mine.py', template, data, classes=classes, **variables))


def message(config: Config, **edits: Any) -> str:
    config.merge_from_dict(edits)
    with pytest.raises(UserError) as caught:
        check_data(config, 'train')
    assert '\n' not in str(caught.value)
    return str(caught.value)


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_correct_configs_pass(data: Path) -> None:
    for template, classes in (('detection', CLASSES), ('segmentation', SEG_CLASSES), ('voc', CLASSES)):
        check_data(config(data, template, classes), 'train')
        check_data(config(data, template, classes), 'test')


@pytest.mark.parametrize('classes', [('dog',), ('roof', 'Tyre')])
def test_unknown_classes_of_coco_files(data: Path, classes: tuple[str, ...]) -> None:
    found = message(config(data, 'detection', classes))
    assert f'classes {classes[-1]!r} are not in the annotation file' in found
    assert "train.json has 'wheel', 'roof', 'window'" in found


def test_classes_in_another_order_than_in_the_file(data: Path) -> None:
    found = message(config(data, 'detection', ('tire', 'wheel')))
    assert "classes must be in the order of the annotation file, ('wheel', 'tire')" in found


def test_annotations_without_boxes_of_the_classes(data: Path) -> None:
    def keep_others(content: dict[str, Any]) -> None:
        others = {c['id'] for c in content['categories'] if c['name'] in ('window', 'decoration')}
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] in others]

    edit(data / 'train.json', keep_others)
    found = message(config(data, 'detection', CLASSES))
    assert 'none of the' in found
    assert "the config has 'wheel', 'roof', 'tire'" in found
    assert "train.json has 'wheel', 'roof'" in found


def test_annotation_files_that_are_missing_or_in_another_format(data: Path) -> None:
    edit(data / 'train.json', lambda content: content.pop('annotations'))
    assert "not in COCO format: KeyError: 'annotations'" in message(config(data, 'detection', CLASSES))
    (data / 'train.json').unlink()
    assert 'train.json does not exist' in message(config(data, 'detection', CLASSES))


def test_files_that_mmdet_reads_are_accepted(data: Path) -> None:
    def remove_category(content: dict[str, Any]) -> None:
        content['categories'] = [c for c in content['categories'] if c['name'] in CLASSES]
        assert {a['category_id'] for a in content['annotations']} > {c['id'] for c in content['categories']}

    edit(data / 'train.json', remove_category)  # mmdet leaves out the annotations of others
    check_data(config(data, 'detection', CLASSES), 'train')
    # As test-dev. Other formats than COCO's of detection are not read.
    mine = config(data, 'detection', CLASSES)
    for key in ('train.json', 'val.json'):
        edit(data / key, lambda content: content.pop('annotations'))
    check_data(mine, 'test')
    mine.merge_from_dict({f'{loader}_dataloader.dataset.type': 'CocoPanopticDataset' for loader in ('train', 'val')})
    check_data(mine, 'train')
    assert [is_coco_format(DATASETS.get(f'{name}Dataset')) for name in ('Coco', 'CocoPanoptic', 'LVISV1')] == [
        *(True, False, False)
    ]


def test_several_voc_datasets_have_every_class_together(data: Path) -> None:
    mine = config(data, 'voc', CLASSES)
    whole = mine.train_dataloader.dataset
    half = whole.ann_file.replace('train', 'half')
    stems = [file.stem for file in (data / 'Annotations').glob('*.xml') if 'roof' not in file.read_text()][:1]
    (data / half).write_text('\n'.join(stems))
    mine.train_dataloader.dataset = whole | dict(ann_file=half)
    assert "classes 'roof'" in message(mine)
    mine.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[whole, whole | dict(ann_file=half)])
    check_data(mine, 'train')
    assert "classes 'tyre' are in no annotation file" in message(
        mine, **{f'train_dataloader.dataset.datasets.{i}.metainfo.classes': ('wheel', 'roof', 'tyre') for i in range(2)}
    )


def test_boxes_without_masks_under_a_mask_head(data: Path) -> None:
    edit(data / 'train.json', lambda content: [a.pop('segmentation') for a in content['annotations'][:3]])
    found = message(config(data, 'instance_segmentation', CLASSES, _base_=MASK_RCNN))
    assert re.search(r'boxes in .*train.json have no "segmentation", .* such as RetinaNet', found)
    check_data(config(data, 'detection', CLASSES), 'train')


def test_a_mask_head_that_a_config_removes_needs_no_masks(data: Path) -> None:
    edit(data / 'train.json', lambda content: [a.pop('segmentation') for a in content['annotations']])
    boxes_only = config(data, 'instance_segmentation', CLASSES, _base_=MASK_RCNN)
    assert 'have no "segmentation"' in message(boxes_only)
    boxes_only.model.roi_head.mask_head = None
    check_data(boxes_only, 'train')


def test_single_class_without_its_comma(data: Path) -> None:
    edits = {'train_dataloader.dataset.metainfo.classes': 'roof'}
    assert "metainfo.classes is the text 'roof'; write a tuple" in message(config(data, 'detection', CLASSES), **edits)


def test_data_that_is_not_on_this_disk_is_not_checked(data: Path) -> None:
    remote = config(data, 'detection', CLASSES)
    remote.merge_from_dict({f'{loader}_dataloader.dataset.data_root': 's3://bucket/own' for loader in ('train', 'val')})
    shutil.rmtree(data)
    check_data(remote, 'train')


def test_all_heads_with_another_number_of_classes_are_named(data: Path) -> None:
    edits = {f'model.roi_head.{head}.num_classes': 80 for head in ('bbox_head', 'mask_head')}
    assert message(config(data, 'instance_segmentation', CLASSES, _base_=MASK_RCNN), **edits) == (
        'model.roi_head.bbox_head.num_classes is 80, model.roi_head.mask_head.num_classes is 80, but train_dataloader '
        "has 3 classes ('wheel', 'roof', 'tire'); set model.roi_head.bbox_head.num_classes=3 "
        'model.roi_head.mask_head.num_classes=3'
    )


MASK2FORMER = {
    'instance_segmentation': 'dat/mask2former_dat-t_8xb2-lsj-50e_coco.py',
    'segmentation': 'dat/mask2former_dat-t_8xb2-160k_ade20k-512x512.py',
}


def mask2former(data: Path, template: str, classes: tuple[str, ...]) -> Config:
    path = data.parent / 'mine.py'
    return Config.fromfile(fill_in_mask2former(path, template, data, _base_=MASK2FORMER[template], classes=classes))


def test_mask2former_of_mmdet_with_another_number_of_classes(data: Path) -> None:
    config = mask2former(data, 'instance_segmentation', CLASSES)
    check_data(config, 'train')
    heads = ('panoptic_head', 'panoptic_fusion_head')
    edits = {f'model.{head}.num_things_classes': 2 for head in heads}
    found = message(config, **edits, **{'model.panoptic_head.loss_cls.class_weight': [1.0, 1.0, 0.1]})
    for head in heads:
        assert f'model.{head}.num_things_classes is 2' in found
        assert f'model.{head}.num_things_classes=3' in found
    assert 'model.panoptic_head.loss_cls.class_weight is a list of 3' in found
    assert 'model.panoptic_head.loss_cls.class_weight=[1.0,1.0,1.0,0.1]' in found
    empty = {'model.panoptic_head.loss_cls.class_weight': []}
    assert 'class_weight is a list of 0' in message(mask2former(data, 'instance_segmentation', CLASSES), **empty)


def test_mask2former_of_mmseg_with_another_number_of_class_weights(data: Path) -> None:
    config = mask2former(data, 'segmentation', SEG_CLASSES)
    check_data(config, 'train')
    assert message(config, **{'model.decode_head.loss_cls.class_weight': [1.0] * 150 + [0.1]}) == (
        'model.decode_head.loss_cls.class_weight is a list of 151, but train_dataloader has 6 classes '
        f'({", ".join(map(repr, SEG_CLASSES))}); set '
        'model.decode_head.loss_cls.class_weight=[1.0,1.0,1.0,1.0,1.0,1.0,0.1]'
    )


def test_mask2former_needs_masks(data: Path) -> None:
    config = mask2former(data, 'instance_segmentation', CLASSES)
    check_data(config, 'train')
    edit(data / 'train.json', lambda content: [a.pop('segmentation') for a in content['annotations'][:3]])
    assert 'have no "segmentation"' in message(config)
    kinds = [problem.kind for problem in check_datasets(config).problems]
    assert any('segmentation' in kind for kind in kinds)


def test_upernet_without_its_second_head(data: Path) -> None:
    base = 'dat/upernet_dat-t-pp_8xb2-160k_ade20k-512x512.py'
    found = message(config(data, 'segmentation', SEG_CLASSES, _base_=base))
    assert 'model.auxiliary_head.num_classes is 150' in found
    assert 'set model.auxiliary_head.num_classes=6' in found


def test_masks_with_the_values_of_other_classes(data: Path) -> None:
    found = message(config(data, 'segmentation', SEG_CLASSES[:2]))
    assert re.search(r'mask \S+\.png has the values \[.*\]; expected 0 to 1 for the classes .ground., .wheel.', found)
    edits = {'train_dataloader.dataset.img_suffix': '.gif'}
    found = message(config(data, 'segmentation', SEG_CLASSES), **edits)
    assert re.search(r'there is no \S+/images/training/\*\.gif; set data_root, data_prefix and img_suffix', found)
    shutil.rmtree(data / 'annotations' / 'training')
    assert 'annotations/training/*.png' in message(config(data, 'segmentation', SEG_CLASSES))


def test_masks_with_three_channels(data: Path) -> None:
    for file in (data / 'annotations').rglob('*.png'):
        cv2.imwrite(str(file), cv2.imread(str(file)))
    found = message(config(data, 'segmentation', SEG_CLASSES))
    assert 'does not have one channel; save the class of each pixel as a gray value' in found


def test_masks_with_a_palette_are_read_as_indices(data: Path) -> None:
    for file in (data / 'annotations').rglob('*.png'):
        mask = Image.fromarray(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), mode='P')
        mask.putpalette([i // 3 for i in range(768)])
        mask.save(file)
    check_data(config(data, 'segmentation', SEG_CLASSES), 'train')
    assert 'expected 0 to 1' in message(config(data, 'segmentation', SEG_CLASSES[:2]))


def test_classes_of_voc_files(data: Path) -> None:
    found = message(config(data, 'voc', ('roof', 'Tyre')))
    assert "classes 'Tyre' are in no annotation file: the config has 'roof', 'Tyre'" in found
    assert "'roof', 'tire', 'wheel'" in found
    # Validation images may lack a rare class.
    for name in (data / 'ImageSets' / 'Main' / 'val.txt').read_text().split():
        file = data / 'Annotations' / f'{name}.xml'
        file.write_text(file.read_text().replace('roof', 'window'))
    check_data(config(data, 'voc', CLASSES), 'train')

    file.unlink()
    assert re.search(rf'{file.name}, which \S+val.txt lists, cannot be read', message(config(data, 'voc', CLASSES)))
