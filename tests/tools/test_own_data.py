"""configs/own_data: templates that a user copies and fills in."""

import importlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from own_data import (
    CLASSES,
    NAMES,
    SEG_CLASSES,
    fill_in,
    fill_in_mask2former,
    write_cityscapes,
    write_coco,
    write_masks,
    write_voc,
)
from running import ROOT, read_metrics

from deformable_vit.apis.train import check_before_training
from deformable_vit.checks import check
from deformable_vit.errors import UserError

WITHOUT_WORKERS = [
    f'{loader}.{option}'
    for loader in ('train_dataloader', 'val_dataloader')
    for option in ('num_workers=0', 'persistent_workers=False')
]
FAST = ['train_cfg.max_epochs=1', 'model.backbone.init_cfg=None', *WITHOUT_WORKERS]


@pytest.fixture
def coco(tmp_path: Path, shapes: Path) -> Path:
    root = tmp_path / 'coco'
    write_coco(shapes, root)
    return root


@pytest.fixture
def masks(tmp_path: Path, shapes: Path) -> Path:
    root = tmp_path / 'masks'
    write_masks(shapes, root)
    return root


def build_train_dataset(config: Config) -> object:
    with DefaultScope.overwrite_default_scope(config.default_scope):
        registry = importlib.import_module(f'{config.default_scope}.registry').DATASETS
        return registry.build(config.train_dataloader.dataset)


def errors(config: Config) -> list[str]:
    return [str(p) for p in check(config, quick=True, loaders=('train_dataloader',)) if p.level == 'error']


def test_templates_are_valid_configs_and_warm_up_for_at_most_a_tenth() -> None:
    for file in (ROOT / 'configs' / 'own_data').glob('*.py'):
        config = Config.fromfile(file)
        total = config.train_cfg.get('max_epochs') or config.train_cfg.max_iters
        for scheduler in config.param_scheduler:
            if scheduler.type == 'LinearLR':
                assert scheduler.by_epoch == ('max_epochs' in config.train_cfg)
                assert 10 * (scheduler.end - scheduler.begin) <= total
        assert max(scheduler.end for scheduler in config.param_scheduler) == total
        assert config.auto_scale_lr.base_batch_size == config.train_dataloader.batch_size


DETECTORS = [
    ('detection', 'pvt/retinanet_pvt-t_fpn_1x_coco.py'),
    ('detection', 'dpt/detr_dpt-s_8xb2-50e_coco.py'),
    ('detection', 'dat/deformable-detr-refine-twostage_dat-t_16xb2-50e_coco.py'),
    ('detection', 'dat/dino-4scale_dat-t-pp_8xb2-12e_coco.py'),
    ('detection', 'demo/retinanet_dat_shapes.py'),
    ('instance_segmentation', 'dat/mask-rcnn_dat-t_fpn_ms-crop-1x_coco.py'),
    ('instance_segmentation', 'pvtv2/mask-rcnn_pvtv2-b2_fpn_ms-crop-3x_coco.py'),
]


def test_detectors_get_the_classes(tmp_path: Path, coco: Path) -> None:
    # A label is an index into CLASSES; boxes of other classes are left out.
    content = json.loads((coco / 'train.json').read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    wanted = [names[a['category_id']] for a in content['annotations'] if names[a['category_id']] in CLASSES]
    for template, base in DETECTORS:
        config = Config.fromfile(fill_in(tmp_path / 'mine.py', template, coco, _base_=base, classes=CLASSES))
        assert errors(config) == []
        dataset = build_train_dataset(config)
        assert dataset.metainfo['classes'] == CLASSES
        records = [dataset.get_data_info(i) for i in range(len(dataset))]
        assert sorted(CLASSES[i['bbox_label']] for record in records for i in record['instances']) == sorted(wanted)


def test_cascade_takes_the_number_of_classes_on_the_command_line(tmp_path: Path, coco: Path) -> None:
    """As the README says: without the entry bbox_head, whose list cannot be merged."""
    base = 'pvtv2/cascade-mask-rcnn_pvtv2-b2_fpn_ms-crop-3x_coco.py'
    path = fill_in(tmp_path / 'mine.py', 'instance_segmentation', coco, _base_=base, classes=CLASSES)
    text = path.read_text()
    assert text.count('bbox_head=dict(num_classes=len(classes)), ') == 1
    path.write_text(text.replace('bbox_head=dict(num_classes=len(classes)), ', ''))
    config = Config.fromfile(path)
    config.merge_from_dict({f'model.roi_head.bbox_head.{i}.num_classes': len(CLASSES) for i in range(3)})
    assert errors(config) == []
    assert [head.type for head in config.model.roi_head.bbox_head] == 3 * ['ConvFCBBoxHead']


def test_segmentors_get_the_classes(tmp_path: Path, masks: Path) -> None:
    for base in ('dat/fpn_dat-t-pp_8xb4-40k_ade20k-512x512.py', 'demo/fpn_pvtv2_shapes.py'):
        path = fill_in(tmp_path / 'mine.py', 'segmentation', masks, _base_=base, classes=SEG_CLASSES)
        config = Config.fromfile(path)
        assert errors(config) == []
        dataset = build_train_dataset(config)
        assert dataset.metainfo['classes'] == dataset.METAINFO['classes'] == SEG_CLASSES
        assert len(dataset.METAINFO['palette']) == len(SEG_CLASSES)
        result = Compose(dataset.pipeline.transforms[:2])(dataset.get_data_info(0))
        file = masks / 'annotations' / 'training' / Path(result['seg_map_path']).name
        assert np.array_equal(result['gt_seg_map'], cv2.imread(str(file), cv2.IMREAD_UNCHANGED))


INPUTS = [
    ('detection', ''),
    ('detection', 'dat/retinanet_dat-t_fpn_ms-crop-1x_coco.py'),
    ('detection', 'dat/dino-4scale_dat-t-pp_8xb2-12e_coco.py'),
    ('instance_segmentation', ''),
    ('instance_segmentation', 'dpt/mask-rcnn_dpt-s_fpn_ms-3x_coco.py'),
    ('instance_segmentation', 'pvtv2/mask2former_pvtv2-b1_8xb2-lsj-50e_coco.py'),
    ('voc', ''),
    ('segmentation', ''),
    ('segmentation', 'dat/upernet_dat-t_8xb2-160k_ade20k-512x512.py'),
    ('segmentation', 'dat/mask2former_dat-t_8xb2-160k_ade20k-512x512.py'),
    ('classification', ''),
    ('cityscapes', ''),
]


@pytest.mark.parametrize(('template', 'base'), INPUTS)
def test_image_size_is_the_size_of_the_input(tmp_path: Path, shapes: Path, template: str, base: str) -> None:
    """Whatever the scales and crops of the base are; nothing pads the images to more."""
    data = tmp_path / 'data' if template != 'classification' else shapes / 'imagenet'
    write = dict(voc=write_voc, cityscapes=write_cityscapes, segmentation=write_masks, classification=None)
    if write := write.get(template, write_coco):
        write(shapes, data)
    variables = dict(image_size=(64, 96) if template == 'cityscapes' else 96)
    if template not in ('segmentation', 'cityscapes'):
        variables['classes'] = tuple(sorted(NAMES)) if template == 'classification' else CLASSES
    if base:
        variables['_base_'] = base
    fill = fill_in_mask2former if 'mask2former' in base else fill_in
    root = data if template != 'cityscapes' else None
    config = Config.fromfile(fill(tmp_path / 'mine.py', template, root, **variables))
    if template == 'cityscapes':
        config.train_dataloader.dataset.data_root = str(data)
    assert input_size(config) == ((64, 96) if template == 'cityscapes' else 96)
    if template != 'cityscapes':
        config.train_dataloader.dataset.pipeline = config.val_dataloader.dataset.pipeline
        tested = build_train_dataset(config)[0]['inputs'].shape[-2:]
        assert min(tested) == 96 or max(tested) == 160


def input_size(config: Config) -> int | tuple[int, int]:
    """Return the shorter side of training images after padding, or their height and width, which are those of crops."""
    dataset, scope = build_train_dataset(config), config.default_scope
    with DefaultScope.overwrite_default_scope(scope):
        settings = config.model.get('data_preprocessor') or dict(type='ClsDataPreprocessor', **config.data_preprocessor)
        preprocessor = importlib.import_module(f'{scope}.registry').MODELS.build(settings)
        batches = []
        for i in [0, 1] * 3:  # random scales
            batch = pseudo_collate([dataset[i]])
            batches.append(tuple(preprocessor(batch, training=True)['inputs'].shape[-2:]))
    if scope == 'mmdet':  # scaled by 0.6 to 1, padded to multiples of 32
        assert all(57 <= max(size) <= 160 for size in batches)
        return 96 if all(min(size) <= 96 for size in batches) else max(map(min, batches))
    assert len(set(batches)) == 1
    height, width = batches[0]
    return height if height == width else (height, width)


def trained_classes(checkpoint: Path) -> tuple[str, ...]:
    return tuple(torch.load(checkpoint, map_location='cpu', weights_only=False)['meta']['dataset_meta']['classes'])


def validated(work_dir: Path, key: str) -> float:
    """Return a metric of the last validation during training."""
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    return json.loads(log.read_text().splitlines()[-1])[key]


def nightly(*values: str) -> object:
    return pytest.param(*values, marks=pytest.mark.nightly)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('template', 'base'),
    [
        ('detection', 'pvt/retinanet_pvt-t_fpn_1x_coco.py'),
        nightly('voc', ''),
        nightly('detection', 'dat/retinanet_dat-t-pp_fpn_32xb2-ms-crop-1x_coco.py'),
        nightly('instance_segmentation', 'pvt/mask-rcnn_pvt-t_fpn_1x_coco.py'),
        nightly('instance_segmentation', 'pvtv2/mask2former_pvtv2-b1_8xb2-lsj-50e_coco.py'),
    ],
)
def test_training_a_detector(tool, tmp_path: Path, shapes: Path, template: str, base: str) -> None:
    data, options = tmp_path / 'data', [*FAST, 'train_dataloader.batch_sampler=None']
    fill = fill_in_mask2former if 'mask2former' in base else fill_in
    if 'mask2former' in base:
        options.append('model.train_cfg.num_points=256')
    (write_voc if template == 'voc' else write_coco)(shapes, data)
    variables = dict(_base_=base) if base else {}
    path = fill(tmp_path / 'mine.py', template, data, classes=CLASSES, image_size=96, **variables)
    tool('train.py', path, '--work-dir', 'run', '--cfg-options', *options)
    assert trained_classes(tmp_path / 'run' / 'epoch_1.pth') == CLASSES
    if template == 'voc':
        tool('test.py', path, 'run/epoch_1.pth', '--work-dir', 'tested')
        assert 0 <= read_metrics(tmp_path / 'tested')['pascal_voc/mAP'] <= 1


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['fpn', nightly('mask2former'), nightly('cityscapes')])
def test_training_a_segmentor(tool, tmp_path: Path, shapes: Path, kind: str) -> None:
    options = [*FAST[1:], 'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    data, path = tmp_path / 'data', tmp_path / 'mine.py'
    if kind == 'cityscapes':
        write_cityscapes(shapes, data)
        fill_in(path, 'cityscapes', None, image_size=(64, 128))
        options += [f'{loader}_dataloader.dataset.data_root={data}' for loader in ('train', 'val')]
        options += ['val_dataloader.dataset.pipeline.1.scale=(256,64)']
    elif kind == 'mask2former':
        write_masks(shapes, data)
        base = 'dat/mask2former_dat-t_8xb2-160k_ade20k-512x512.py'
        fill_in_mask2former(path, 'segmentation', data, _base_=base, classes=SEG_CLASSES, image_size=64)
        options.append('model.decode_head.train_cfg.num_points=256')
    else:
        write_masks(shapes, data)
        base = 'dpt/fpn_dpt-t_8xb4-40k_ade20k-512x512.py'
        fill_in(path, 'segmentation', data, _base_=base, classes=SEG_CLASSES, image_size=64)
    tool('train.py', path, '--work-dir', 'run', '--cfg-options', *options)
    assert 0 <= validated(tmp_path / 'run', 'mIoU') <= 100


@pytest.mark.slow
def test_training_a_classifier(tool, tmp_path: Path, shapes: Path) -> None:
    classes = tuple(sorted(NAMES))
    path = fill_in(tmp_path / 'mine.py', 'classification', shapes / 'imagenet', classes=classes, image_size=64)
    tool('train.py', path, '--work-dir', 'run', '--cfg-options', *FAST, 'train_dataloader.batch_size=16')
    assert trained_classes(tmp_path / 'run' / 'epoch_1.pth') == classes
    assert 0 <= validated(tmp_path / 'run', 'accuracy/top1') <= 100


def test_classes_that_the_annotations_do_not_have(tmp_path: Path, coco: Path) -> None:
    path = fill_in(tmp_path / 'mine.py', 'detection', coco, classes=('roof', 'Tyre'))
    with pytest.raises(UserError) as raised:
        check_before_training(Config.fromfile(path), str(path))
    assert "classes 'Tyre' are not in the annotation file (the config has 'roof', 'Tyre', the file" in str(raised.value)
