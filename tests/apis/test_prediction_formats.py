"""Predictions in the formats of other tools, read back."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from deformable_vit.apis.prediction_formats import check_format, write_format
from deformable_vit.errors import UserError

CLASSES = ['traffic light', '<a> & "b"', '猫']
BOXES = [[10.25, 5.0, 30.75, 20.0], [0.0, 0.0, 64.0, 48.0]]


def records(root: Path, **more: Any) -> list[dict[str, Any]]:
    """Return predictions for images of the same name in two directories, one of them without objects."""
    one = dict(width=64, height=48, bboxes=BOXES, labels=[1, 2], scores=[0.9, 0.5], **more)
    nothing = dict(width=32, height=32, bboxes=[], labels=[], scores=[])
    return [dict(one, image=str(root / 'a b' / '1.jpg')), dict(nothing, image=str(root / 'c' / '1.jpg'))]


def test_coco_is_read_by_pycocotools(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), np.uint8, order='F')
    mask[5:20, 10:31] = 1
    rle = coco_mask.encode(mask)
    rle['counts'] = rle['counts'].decode()
    assert str(tmp_path) in write_format('coco', tmp_path, CLASSES, records(tmp_path, masks=[rle, rle]))
    coco = COCO(str(tmp_path / 'coco.json'))
    assert {image['file_name'] for image in coco.loadImgs(coco.getImgIds())} == {'a b/1.jpg', 'c/1.jpg'}
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == CLASSES
    (image,) = (i for i in coco.loadImgs(coco.getImgIds()) if i['file_name'] == 'a b/1.jpg')
    found = coco.loadAnns(coco.getAnnIds(image['id']))
    assert [one['bbox'] for one in found] == [[10.25, 5.0, 20.5, 15.0], [0.0, 0.0, 64.0, 48.0]]
    assert [coco.loadCats(one['category_id'])[0]['name'] for one in found] == CLASSES[1:]
    assert [one['score'] for one in found] == [0.9, 0.5]
    assert min(one['id'] for one in found) > 0  # pycocotools counts 0 as "no match"
    np.testing.assert_array_equal(coco.annToMask(found[0]), mask)
    assert found[0]['area'] == mask.sum()
    assert len(coco.getAnnIds()) == 2


def test_yolo_is_the_inverse_of_its_boxes(tmp_path: Path) -> None:
    write_format('yolo', tmp_path, CLASSES, records(tmp_path))
    names = yaml.safe_load((tmp_path / 'yolo' / 'data.yaml').read_text())['names']
    assert names == dict(enumerate(CLASSES))
    rows = np.loadtxt(tmp_path / 'yolo' / 'labels' / 'a b' / '1.txt')
    assert rows[:, 0].tolist() == [1, 2]
    center, size = rows[:, 1:3] * [64, 48], rows[:, 3:] * [64, 48]
    np.testing.assert_allclose(np.hstack([center - size / 2, center + size / 2]), BOXES, atol=1e-3)
    assert (tmp_path / 'yolo' / 'labels' / 'c' / '1.txt').read_text() == ''


def test_voc_is_read_by_mmdet(tmp_path: Path) -> None:
    write_format('voc', tmp_path, CLASSES, records(tmp_path))
    (tmp_path / 'voc' / 'list.txt').write_text('a b/1\nc/1\n')
    init_default_scope('mmdet')
    dataset = DATASETS.build(
        dict(
            type='mmdet.XMLDataset',
            data_root=str(tmp_path / 'voc'),
            data_prefix=dict(sub_data_root=''),
            ann_file='list.txt',
            metainfo=dict(classes=CLASSES),
            pipeline=[],
        )
    )
    first, second = (dataset.get_data_info(i) for i in range(2))
    assert (first['width'], first['height']) == (64, 48)
    # mmdet subtracts 1 from all corners: pixels 10 to 30, the last one included.
    assert [one['bbox'] for one in first['instances']] == [[10, 5, 30, 19], [0, 0, 63, 47]]
    assert [one['bbox_label'] for one in first['instances']] == [1, 2]
    assert second['instances'] == []


def test_names_that_are_no_text_and_no_predictions(tmp_path: Path) -> None:
    record = records(tmp_path)[0] | dict(image=os.fsdecode(b'/data/x\xe9.jpg'))
    for kind in ('coco', 'yolo', 'voc'):
        write_format(kind, tmp_path, CLASSES, [record])
        write_format(kind, tmp_path / 'none', CLASSES, [])
    assert json.loads((tmp_path / 'none' / 'coco.json').read_text())['images'] == []
    assert (tmp_path / 'voc' / 'Annotations' / os.fsdecode(b'x\xe9.xml')).is_file()


def test_what_a_format_does_not_hold_is_an_error(tmp_path: Path) -> None:
    boxes = Config(dict(default_scope='mmdet', model=dict(type='RetinaNet')))
    masks = Config(dict(default_scope='mmdet', model=dict(type='MaskRCNN', roi_head=dict(mask_head=dict(type='M')))))
    segmentor = Config(dict(default_scope='mmseg', model=dict(type='EncoderDecoder')))
    images = [tmp_path / 'a' / '1.jpg', tmp_path / 'b' / '1.jpg']
    for kind in ('coco', 'yolo', 'voc'):
        check_format(kind, boxes, images, [])
        with pytest.raises(UserError, match='semantic segmentation'):
            check_format(kind, segmentor, images, [])
        with pytest.raises(UserError, match='film.mp4 is a video'):
            check_format(kind, boxes, images, [Path('film.mp4')])
    check_format('coco', masks, [*images, tmp_path / 'a' / '1.png'], [])
    for kind in ('yolo', 'voc'):
        with pytest.raises(UserError, match='predicts masks; choose --format coco'):
            check_format(kind, masks, images, [])
        with pytest.raises(UserError, match='2 images are .*1'):
            check_format(kind, boxes, [*images, tmp_path / 'a' / '1.png'], [])
