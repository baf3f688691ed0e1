"""Heads of configs that OpenMMLab ships: none is said to have another number of classes than its data."""

import contextlib
import os
from pathlib import Path

import mmdet
import mmpretrain
import mmseg
import pytest
from mmengine.config import Config

from deformable_vit.checks import Report
from deformable_vit.checks.datasets import Data, check_heads, leaf_datasets

PACKAGES = dict(mmdet=mmdet, mmseg=mmseg, mmpretrain=mmpretrain)
# Region proposals by FCOS and by guided anchors, masks for all classes, stuff, point, grid and IoU heads, prototypes,
# queries, teachers and text; several heads, boundary heads, point refinement and queries; one and several stages.
CONFIGS = [
    'mmdet/rpn/rpn_r50_fpn_1x_coco.py',
    'mmdet/fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'mmdet/guided_anchoring/ga-faster-rcnn_r50-caffe_fpn_1x_coco.py',
    'mmdet/cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py',
    'mmdet/centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py',
    'mmdet/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mmdet/cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet/htc/htc_r50_fpn_1x_coco.py',
    'mmdet/scnet/scnet_r50_fpn_1x_coco.py',
    'mmdet/point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
    'mmdet/ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py',
    'mmdet/grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco.py',
    'mmdet/yolact/yolact_r50_1xb8-55e_coco.py',
    'mmdet/solov2/solov2_r50_fpn_1x_coco.py',
    'mmdet/detr/detr_r50_8xb2-150e_coco.py',
    'mmdet/mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'mmdet/soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
    'mmdet/ld/ld_r18-gflv1-r101_fpn_1x_coco.py',
    'mmdet/glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py',
    'mmseg/stdc/stdc1_4xb12-80k_cityscapes-512x1024.py',
    'mmseg/point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py',
    'mmseg/ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py',
    'mmseg/maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
    'mmseg/mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
    'mmseg/pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py',
    'mmseg/unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py',
    'mmpretrain/resnet/resnet50_8xb32_in1k.py',
    'mmpretrain/swin_transformer/swin-tiny_16xb64_in1k.py',
]


@pytest.mark.parametrize('name', CONFIGS)
def test_shipped_configs_have_the_classes_of_their_data(name: str) -> None:
    package, _, rest = name.partition('/')
    path = Path(PACKAGES[package].__file__).parent / '.mim' / 'configs' / rest
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        config = Config.fromfile(path, import_custom_modules=False)
    for loader in ('train_dataloader', 'val_dataloader'):
        report = Report()
        for settings in leaf_datasets((config.get(loader) or {}).get('dataset')):
            data = Data(settings, loader, config, report)
            assert data.classes
            check_heads(data, data.classes)
        assert report == []


@pytest.mark.parametrize(
    ('head', 'levels'),
    [
        (dict(type='RetinaHead', num_classes=3), []),
        (dict(type='RetinaHead', num_classes=2), ['error']),
        (dict(type='RetinaHead', num_classes=80), ['warning']),
        (dict(type=dict, num_classes=2), ['warning']),  # a class of another package may count in another way
        (dict(type='RetinaHead', num_classes=3, loss_cls=dict(type='SeesawLoss', num_classes=80)), ['warning']),
    ],
)
def test_heads_with_another_number(head: dict[str, object], levels: list[str]) -> None:
    model = dict(type='RetinaNet', backbone=dict(type='PVT', num_classes=1000), bbox_head=head)
    report = Report()
    dataset = dict(type='CocoDataset', metainfo=dict(classes=('a', 'b', 'c')))
    check_heads(Data(dataset, 'train_dataloader', Config(dict(default_scope='mmdet', model=model)), report), 'abc')
    assert [problem.level for problem in report] == levels
