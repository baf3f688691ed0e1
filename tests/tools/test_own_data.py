"""configs/own_data: a user's folder, three variables, any family."""

import importlib
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from learn import read_log
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image
from running import ROOT

from deformable_vit.engine import UserError
from deformable_vit.engine.data import check_data

NAMES = {'disc': 'wheel', 'triangle': 'roof', 'square': 'window', 'star': 'decoration', 'ring': 'tyre'}
CLASSES = ('wheel', 'roof', 'tyre')
FAST = ['train_cfg.max_epochs=1', 'model.backbone.init_cfg=None', 'train_dataloader.num_workers=0']
FAST += [f'{loader}.persistent_workers=False' for loader in ('train_dataloader', 'val_dataloader')]
FAST += ['val_dataloader.num_workers=0']


@pytest.fixture
def own(tmp_path: Path, shapes: Path) -> Path:
    """Pictures and annotations with class names of their own, laid out as configs/own_data says."""
    root = tmp_path / 'mine'
    for part in ('train', 'val'):
        shutil.copytree(shapes / 'coco' / f'{part}2017', root / part)
        content = json.loads((shapes / 'coco' / 'annotations' / f'instances_{part}2017.json').read_text())
        for category in content['categories']:
            category['name'] = NAMES[category['name']]
        (root / f'{part}.json').write_text(json.dumps(content))
    shutil.copytree(shapes / 'ade' / 'images', root / 'images')
    for file in (shapes / 'ade' / 'annotations').rglob('*.png'):
        out = root / 'annotations' / file.relative_to(shapes / 'ade' / 'annotations')
        out.parent.mkdir(parents=True, exist_ok=True)
        # From 0 unlabelled and classes from 1 to classes from 0 and 255 unlabelled: arithmetic of eight bits does it.
        cv2.imwrite(str(out), cv2.imread(str(file), cv2.IMREAD_UNCHANGED) - np.uint8(1))
    return root


def filled_in(tmp_path: Path, task: str, base: str, root: Path, classes: tuple[str, ...]) -> Path:
    """A copy of the config with its three variables set, as a user does it."""
    text = (ROOT / 'configs' / 'own_data' / f'{task}.py').read_text()
    values = {'_base_': str(ROOT / 'configs' / base), 'data_root': str(root), 'classes': classes}
    for name, value in values.items():
        text, n = re.subn(rf'^{name} = .*$', lambda _, line=f'{name} = {value!r}': line, text, flags=re.MULTILINE)
        assert n == 1
    path = tmp_path / f'mine_{task}.py'
    path.write_text(text)
    return path


DETECTORS = [
    'pvt/retinanet_pvt-t_fpn_1x_coco.py',
    'pvtv2/cascade-mask-rcnn_pvtv2-b2_fpn_ms-3x_coco.py',
    'dpt/detr_dpt-s_8xb2-50e_coco.py',
    'dat/deformable-detr-refine-twostage_dat-t_16xb2-50e_coco.py',
    'dat/dino-4scale_dat-t-pp_8xb2-12e_coco.py',
    'dat/mask-rcnn_dat-t_fpn_1x_coco.py',
]


@pytest.mark.parametrize('base', DETECTORS)
def test_any_detector(tmp_path: Path, own: Path, base: str) -> None:
    config = Config.fromfile(filled_in(tmp_path, 'detection', base, own, CLASSES))
    check_data(config, 'train')
    dataset = importlib.import_module('mmdet.registry').DATASETS.build(config.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == CLASSES
    assert len(dataset) > 0
    # A label is a place in CLASSES; what has another name is left out.
    content = json.loads((own / 'train.json').read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    wanted = [names[a['category_id']] for a in content['annotations'] if names[a['category_id']] in CLASSES]
    found = [
        CLASSES[instance['bbox_label']]
        for i in range(len(dataset))
        for instance in dataset.get_data_info(i)['instances']
    ]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize(
    'base', ['pvt/fpn_pvt-t_8xb4-40k_ade20k-512x512.py', 'dat/upernet_dat-t-pp_8xb2-160k_ade20k-512x512.py']
)
def test_any_segmentor(tmp_path: Path, own: Path, base: str) -> None:
    classes = ('ground', *NAMES)
    config = Config.fromfile(filled_in(tmp_path, 'segmentation', base, own, classes))
    init_default_scope('mmseg')
    check_data(config, 'train')
    config.train_dataloader.dataset.pipeline = config.train_dataloader.dataset.pipeline[:2]
    dataset = importlib.import_module('mmseg.registry').DATASETS.build(config.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == classes
    result = dataset[0]
    file = own / 'annotations' / 'training' / Path(result['seg_map_path']).name
    assert np.array_equal(result['gt_seg_map'], cv2.imread(str(file), cv2.IMREAD_UNCHANGED))

    # --tta: six scales, each also mirrored.
    info = dict(img_path=result['img_path'], seg_map_path=str(file), reduce_zero_label=False, seg_fields=[])
    pictures = Compose(config.tta_pipeline)(info)['inputs']
    assert len(pictures) == 12
    height, width = result['img'].shape[:2]
    for picture, ratio in zip(pictures[::2], (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), strict=True):
        scale = min(2048 * ratio / max(height, width), 512 * ratio / min(height, width))
        assert picture.shape[1:] == pytest.approx((height * scale, width * scale), abs=1)


@pytest.mark.parametrize(
    'base',
    [
        'pvt/retinanet_pvt-t_fpn_1x_coco.py',
        'pvtv2/retinanet_pvtv2-b0_fpn_1x_coco.py',
        'dpt/retinanet_dpt-t_fpn_1x_coco.py',
        'dat/mask-rcnn_dat-t_fpn_1x_coco.py',
        'dat/retinanet_dat-t-pp_fpn_1x_coco.py',
    ],
)
def test_training_a_detector(tool, tmp_path: Path, own: Path, base: str) -> None:
    cfg = filled_in(tmp_path, 'detection', base, own, CLASSES)
    # Small pictures, as they are: what is tested is that the data goes in and a model comes out.
    resize = dict(type='Resize', scale=(96, 96), keep_ratio=True)
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask='mask' in base)]
    meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    tail = f"""
train_dataloader['dataset']['pipeline'] = {[*load, resize, dict(type='PackDetInputs')]!r}
train_dataloader['batch_sampler'] = None
val_dataloader['dataset']['pipeline'] = {[*load, resize, dict(type='PackDetInputs', meta_keys=meta)]!r}
"""
    cfg.write_text(cfg.read_text() + tail)
    tool('train.py', cfg, '--work-dir', 'run', '--cfg-options', *FAST)
    meta = torch.load(tmp_path / 'run' / 'epoch_1.pth', map_location='cpu', weights_only=False)['meta']
    assert meta['dataset_meta']['classes'] == CLASSES


def test_training_a_segmentor(tool, tmp_path: Path, own: Path) -> None:
    cfg = filled_in(tmp_path, 'segmentation', 'dpt/fpn_dpt-t_8xb4-40k_ade20k-512x512.py', own, ('ground', *NAMES))
    short = [*FAST[1:], 'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    short += [
        'train_dataloader.dataset.pipeline.2.scale="(256,64)"',
        'val_dataloader.dataset.pipeline.1.scale="(256,64)"',
    ]
    tool('train.py', cfg, '--work-dir', 'run', '--cfg-options', *short)
    _, (validation,) = read_log(tmp_path / 'run')
    assert 0 <= validation['mIoU'] <= 100


@pytest.mark.parametrize(
    ('classes', 'words'),
    [
        (
            ('roof', 'Tyre'),
            ["classes 'Tyre' are not in the annotation file", "'roof', 'Tyre'", "'wheel', 'roof', 'window'"],
        ),
        (('dog',), ["'dog'", "'wheel', 'roof'"]),
    ],
)
def test_classes_that_the_annotations_do_not_have(tool, tmp_path: Path, own: Path, classes, words: list[str]) -> None:
    cfg = filled_in(tmp_path, 'detection', 'pvt/retinanet_pvt-t_fpn_1x_coco.py', own, classes)
    done = tool('train.py', cfg, ok=False)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith('train.py: error: ')
    assert all(word in line for word in words), line


def broken(own: Path, change) -> None:
    content = json.loads((own / 'train.json').read_text())
    change(content)
    (own / 'train.json').write_text(json.dumps(content))


def message(
    tmp_path: Path, own: Path, classes: tuple[str, ...] | str = CLASSES, task: str = 'detection', **edits
) -> str:
    base = 'pvt/retinanet_pvt-t_fpn_1x_coco.py' if task == 'detection' else 'pvt/fpn_pvt-t_8xb4-40k_ade20k-512x512.py'
    config = Config.fromfile(filled_in(tmp_path, task, base, own, classes))
    config.merge_from_dict(edits)
    with pytest.raises(UserError) as caught:
        check_data(config, 'train')
    return str(caught.value)


def test_annotations_without_boxes_of_the_classes(tmp_path: Path, own: Path) -> None:
    ids = {c['name']: c['id'] for c in json.loads((own / 'train.json').read_text())['categories']}
    others = {ids['window'], ids['decoration']}
    broken(own, lambda c: c.update(annotations=[a for a in c['annotations'] if a['category_id'] in others]))
    found = message(tmp_path, own)
    assert 'none of the' in found
    assert "the config has 'wheel', 'roof', 'tyre'" in found
    assert "train.json has 'wheel', 'roof'" in found


def test_annotation_files_that_are_none(tmp_path: Path, own: Path) -> None:
    broken(own, lambda c: c.pop('annotations'))
    assert "not in COCO format: KeyError: 'annotations'" in message(tmp_path, own)
    (own / 'train.json').unlink()
    assert 'train.json does not exist' in message(tmp_path, own)


def test_boxes_without_masks(tmp_path: Path, own: Path) -> None:
    broken(own, lambda c: [a.pop('segmentation') for a in c['annotations'][:3]])
    config = Config.fromfile(filled_in(tmp_path, 'detection', 'dat/mask-rcnn_dat-t_fpn_1x_coco.py', own, CLASSES))
    with pytest.raises(UserError, match=r'boxes in .*train.json have no "segmentation", .* such as RetinaNet'):
        check_data(config, 'train')


def test_one_class_without_its_comma(tmp_path: Path, own: Path) -> None:
    assert "metainfo.classes is the text 'roof'; write a tuple" in message(tmp_path, own, 'roof')


def test_what_is_not_on_this_disk_is_left_alone(tmp_path: Path, own: Path) -> None:
    config = Config.fromfile(filled_in(tmp_path, 'detection', DETECTORS[0], Path('gone'), CLASSES))
    config.merge_from_dict({f'{loader}_dataloader.dataset.data_root': 's3://bucket/own' for loader in ('train', 'val')})
    check_data(config, 'train')


def test_heads_for_another_number_of_classes(tmp_path: Path, own: Path) -> None:
    found = message(tmp_path, own, **{'model.bbox_head.num_classes': 80})
    assert "model.bbox_head.num_classes is 80, but train_dataloader names 3 classes: 'wheel', 'roof', 'tyre'" in found


def test_masks_of_other_classes(tmp_path: Path, own: Path) -> None:
    found = message(tmp_path, own, ('ground', 'disc'), 'segmentation')
    assert re.search(r'mask \S+\.png has the values \[.*\]; expected 0 to 1 for the classes .ground., .disc.', found)
    assert re.search(
        r'there is no \S+/images/training/\*\.gif',
        message(tmp_path, own, ('ground', *NAMES), 'segmentation', **{'train_dataloader.dataset.img_suffix': '.gif'}),
    )
    shutil.rmtree(own / 'annotations' / 'training')
    assert 'annotations/training/*.png' in message(tmp_path, own, ('ground', *NAMES), 'segmentation')


def test_masks_with_a_palette(tmp_path: Path, own: Path) -> None:
    """Saved as drawing programs do: an index a pixel and the colours beside it."""
    for file in (own / 'annotations').rglob('*.png'):
        mask = Image.fromarray(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), mode='P')
        mask.putpalette([i // 3 for i in range(768)])
        mask.save(file)
    classes = ('ground', *NAMES)
    base = 'pvt/fpn_pvt-t_8xb4-40k_ade20k-512x512.py'
    check_data(Config.fromfile(filled_in(tmp_path, 'segmentation', base, own, classes)), 'train')
    assert 'expected 0 to 1' in message(tmp_path, own, classes[:2], 'segmentation')
