"""Detectors as modules of tensors find what mmdet's ``predict`` finds."""

from typing import Any

import pytest
import torch
from mmengine.structures import InstanceData
from random_detectors import build_detector, data_samples, demo_config, random_detector, random_images
from torch import Tensor

from deformable_vit.errors import UserError
from deformable_vit.export.detectors import wrap_detector

DENSE = ('retinanet_pvtv2', 'atss_pvtv2', 'gfl_pvtv2')
TWO_STAGE = ('mask-rcnn_pvtv2', 'cascade-mask-rcnn_dat')
DETRS = (
    'detr_dat',
    'deformable-detr_pvtv2',
    'deformable-detr-refine_dat',
    'deformable-detr-refine-twostage_dat',
    'deformable-detr-single-scale-dc5_dat',
    'dino_dat',
)


@torch.no_grad()
def assert_same_as_predict(model: Any, *shape: int) -> list[int]:
    """Return the number of detections in each image."""
    images = random_images(*shape)
    expected = [sample.pred_instances for sample in model.predict(images, data_samples(images), rescale=False)]
    wrapper = wrap_detector(model)
    found = dict(zip(wrapper.output_names, wrapper(images), strict=True))
    for i, one in enumerate(expected):
        count = len(one.scores)
        outputs = {name: x[i, :count] for name, x in found.items()}
        torch.testing.assert_close(outputs['scores'], one.scores)
        torch.testing.assert_close(outputs['boxes'], one.bboxes, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(outputs['labels'], one.labels)
        assert (found['scores'][i, count:] == 0).all()
        assert (found['labels'][i, count:] == -1).all()
        assert (found['boxes'][i, count:] == 0).all()
        if 'masks' in found:
            assert (found['masks'][i, count:] == 0).all()
            assert (pasted(model, outputs, shape) != one.masks).sum() <= 1e-4 * one.masks.sum()
    return [len(one.scores) for one in expected]


def pasted(model: Any, outputs: dict[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """Return the masks (K, H, W) of an image, pasted by mmdet."""
    head = model.roi_head.mask_head
    head = head[-1] if isinstance(head, torch.nn.ModuleList) else head
    result = InstanceData(bboxes=outputs['boxes'], labels=outputs['labels'])
    masks = outputs['masks'][:, None].expand(-1, head.num_classes, -1, -1)
    meta = dict(ori_shape=shape[2:], scale_factor=(1.0, 1.0))
    head.predict_by_feat((masks,), [result], [meta], model.roi_head.test_cfg, activate_map=True)
    return result.masks


@pytest.mark.parametrize('name', [*DENSE, *TWO_STAGE, *DETRS])
def test_finds_what_predict_finds(name: str) -> None:
    counts = assert_same_as_predict(random_detector(demo_config(name)), 2, 3, 128, 160)
    assert min(counts) > 10


@pytest.mark.parametrize('name', DENSE)
def test_few_candidates_fill_the_first_places(name: str) -> None:
    """Also of an image of other proportions, with levels that have fewer priors than ``nms_pre``."""
    model = random_detector(demo_config(name))
    model.bbox_head.test_cfg.update(max_per_img=2000, nms_pre=500)
    counts = assert_same_as_predict(model, 3, 3, 75, 107)
    assert 0 < min(counts) < max(counts) < 2000


def test_fcos_finds_what_predict_finds() -> None:
    head = dict(_delete_=True, type='FCOSHead', num_classes=5, in_channels=64, feat_channels=64, strides=[4, 8, 16, 32])
    model = random_detector(demo_config('atss_pvtv2', type='FCOS', bbox_head=head, train_cfg=None))
    assert min(assert_same_as_predict(model, 2, 3, 128, 160)) > 10


def test_empty_images_have_no_detections() -> None:
    model = random_detector(demo_config('retinanet_pvtv2'))
    model.bbox_head.test_cfg.score_thr = 1.0
    assert assert_same_as_predict(model, 2, 3, 96, 128) == [0, 0]

    model = random_detector(demo_config('mask-rcnn_pvtv2'))
    model.roi_head.test_cfg.score_thr = 1.0
    assert assert_same_as_predict(model, 2, 3, 96, 128) == [0, 0]


def test_small_images_have_fewer_proposals_than_the_config() -> None:
    model = random_detector(demo_config('mask-rcnn_pvtv2'))
    model.rpn_head.test_cfg.update(max_per_img=2000, nms_pre=2000, min_bbox_size=12)
    model.roi_head.test_cfg.max_per_img = 2000
    counts = assert_same_as_predict(model, 2, 3, 64, 96)
    assert 0 < min(counts) <= max(counts) < 2000


def test_cascade_with_boxes_of_each_class() -> None:
    config = demo_config('cascade-mask-rcnn_dat')
    for head in config.model.roi_head.bbox_head:
        head.reg_class_agnostic = False
    assert min(assert_same_as_predict(random_detector(config), 2, 3, 96, 128)) > 10


def test_raw_outputs_are_those_of_the_head() -> None:
    model = random_detector(demo_config('atss_pvtv2'))
    images = random_images(2, 3, 64, 96)
    wrapper = wrap_detector(model, raw=True)
    names = [f'{kind}_{i}' for kind in ('cls_score', 'bbox_pred', 'centerness') for i in range(4)]
    assert list(wrapper.output_names) == names
    with torch.no_grad():
        outputs = dict(zip(names, wrapper(images), strict=True))
        expected = model.bbox_head(model.extract_feat(images))
    for kind, levels in zip(('cls_score', 'bbox_pred', 'centerness'), expected, strict=True):
        for i, level in enumerate(levels):
            torch.testing.assert_close(outputs[f'{kind}_{i}'], level)


@pytest.mark.parametrize('name', ['detr_dat', 'dino_dat'])
def test_raw_outputs_of_a_transformer_are_those_of_the_last_layer(name: str) -> None:
    model = random_detector(demo_config(name))
    images = random_images(2, 3, 64, 96)
    wrapper = wrap_detector(model, raw=True)
    assert wrapper.output_names == ('cls_score', 'bbox_pred')
    with torch.no_grad():
        scores, boxes = wrapper(images)
        expected_scores, expected_boxes = model(images, data_samples(images), mode='tensor')
    torch.testing.assert_close(scores, expected_scores[-1])
    torch.testing.assert_close(boxes, expected_boxes[-1])


def test_two_stage_detector_has_no_raw_outputs() -> None:
    with pytest.raises(UserError, match='two-stage'):
        wrap_detector(build_detector(demo_config('mask-rcnn_pvtv2')), raw=True)


@pytest.mark.parametrize('name', ['deformable-detr_pvtv2', 'dino_dat'])
def test_deformable_detr_has_a_fixed_size(name: str) -> None:
    with pytest.raises(UserError, match='--dynamic'):
        wrap_detector(build_detector(demo_config(name)), is_dynamic=True)


def test_model_stays_as_it_was() -> None:
    """A wrapper replaces layers in a copy."""
    model = random_detector(demo_config('deformable-detr_pvtv2'))
    before = [type(module) for module in model.modules()]
    wrap_detector(model)
    assert [type(module) for module in model.modules()] == before


def test_batches_do_not_mix() -> None:
    """NMS compares the boxes of an image alone."""
    model = random_detector(demo_config('gfl_pvtv2'))
    images = random_images(3, 3, 96, 96)
    wrapper = wrap_detector(model)
    with torch.no_grad():
        together = wrapper(images)
        alone = [torch.cat(x) for x in zip(*(wrapper(image[None]) for image in images), strict=True)]
    for x, y in zip(together, alone, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ('name', 'options', 'words'),
    [
        ('sparse-rcnn_pvtv2', {}, 'SparseRCNN'),
        ('mask2former_dat-pp', {}, 'Mask2Former'),
        ('retinanet_pvtv2', dict(test_cfg=dict(nms=dict(type='soft_nms'))), 'soft_nms'),
    ],
)
def test_error_names_what_cannot_be_exported(name: str, options: dict[str, Any], words: str) -> None:
    model = build_detector(demo_config(name, **options))
    with pytest.raises(UserError, match=words):
        wrap_detector(model)
