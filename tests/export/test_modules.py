"""Modules of tensors compute what the models of mmseg and mmpretrain compute, and know how a config preprocesses."""

import copy
from typing import Any

import pytest
import torch
from mmengine.config import Config
from running import ROOT

from deformable_vit.apis.config import load_config
from deformable_vit.apis.inference import load_model
from deformable_vit.errors import UserError
from deformable_vit.export import wrap_backbone, wrap_classifier, wrap_segmentor
from deformable_vit.export.inputs import Input
from deformable_vit.export.preprocessing import Preprocessing, WithPreprocessing


def demo(name: str) -> Config:
    return load_config(str(ROOT / 'configs' / 'demo' / f'{name}.py'), {'model.backbone.init_cfg': None})


def outputs_of(module: Any, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return dict(zip(module.output_names, module(image), strict=True))


@pytest.mark.parametrize('name', ['fpn_pvtv2_shapes', 'upernet_dat_shapes'])
def test_logits_and_label_map_of_a_segmentor(name: str) -> None:
    model = load_model(demo(name))
    image = torch.randn(2, 3, 75, 107)
    with torch.no_grad():
        expected = copy.deepcopy(model).encode_decode(image, [dict(img_shape=(75, 107))])
    assert expected.shape == (2, 6, 75, 107)
    found = outputs_of(wrap_segmentor(model), image)
    assert list(found) == ['logits']
    torch.testing.assert_close(found['logits'], expected)
    labels = outputs_of(wrap_segmentor(model, argmax=True), image)['label_map']
    assert labels.dtype == torch.int64
    assert torch.equal(labels, found['logits'].argmax(dim=1))


def test_logits_of_a_classifier_and_feature_maps_of_its_backbone() -> None:
    model = load_model(demo('pvtv2_shapes'))
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = model.backbone(image)
        expected = model.head(model.neck(features))
    torch.testing.assert_close(outputs_of(wrap_classifier(model), image)['logits'], expected)
    found = outputs_of(wrap_backbone(model), image)
    assert list(found) == ['feature_map_0']
    torch.testing.assert_close(found['feature_map_0'], features[0])


def test_models_that_are_refused() -> None:
    classifier, segmentor = load_model(demo('pvtv2_shapes')), load_model(demo('fpn_pvtv2_shapes'))
    for wrap, model, words in (
        (wrap_classifier, segmentor, 'EncoderDecoder cannot be exported; ImageClassifier'),
        (wrap_segmentor, classifier, 'ImageClassifier cannot be exported; EncoderDecoder'),
        (wrap_backbone, torch.nn.Linear(1, 1), 'Linear has no backbone'),
    ):
        with pytest.raises(UserError, match=words):
            wrap(model)
    segmentor.out_channels = 1
    with pytest.raises(UserError, match='one channel'):
        wrap_segmentor(segmentor, argmax=True)


def test_preprocessing_is_that_of_each_library() -> None:
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    segmentation = demo('fpn_pvtv2_shapes')
    expected = Preprocessing(mean, std, swap=True, divisor=32)
    assert Preprocessing.of(segmentation) == expected
    assert Preprocessing.of(demo('retinanet_pvt_shapes')) == expected
    assert Preprocessing.of(demo('pvt_shapes')) == Preprocessing(mean, std, swap=True)
    segmentation.model.data_preprocessor = dict(type='SegDataPreProcessor', pad_val=7)
    assert Preprocessing.of(segmentation) == Preprocessing(pad_value=7)


@pytest.mark.parametrize('name', ['fpn_pvtv2_shapes', 'retinanet_pvt_shapes', 'pvt_shapes'])
def test_preprocessing_computes_what_the_data_preprocessor_computes(name: str) -> None:
    config = demo(name)
    model, settings = load_model(config), Preprocessing.of(config)
    image = torch.randint(256, (1, 75, 107, 3), dtype=torch.uint8)
    sample = model.data_preprocessor.cast_data(dict(inputs=[image[0].permute(2, 0, 1)], data_samples=[_sample(config)]))
    expected = model.data_preprocessor(sample)['inputs']

    class Same(torch.nn.Module):
        output_names = ('x',)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
            return (image,)

    torch.testing.assert_close(outputs_of(WithPreprocessing(Same(), settings), image)['x'], expected)


def _sample(config: Config) -> Any:
    from mmdet.structures import DetDataSample
    from mmpretrain.structures import DataSample
    from mmseg.structures import SegDataSample

    kind = dict(mmdet=DetDataSample, mmseg=SegDataSample, mmpretrain=DataSample)[config.default_scope]
    return kind(metainfo=dict(img_shape=(75, 107)))


def test_input_of_a_dynamic_and_of_a_fixed_size() -> None:
    settings = Preprocessing((10.0, 20.0, 30.0), (1.0, 2.0, 3.0), swap=True)
    dynamic = Input(64, 96, settings, is_dynamic=True)
    assert dynamic.shape == ('batch', 3, 'height', 'width')
    assert dynamic.dynamic_shapes()['image'].keys() == {0, 2, 3}
    fixed = Input(64, 96, settings, is_dynamic=False, is_bytes=True)
    assert fixed.shape == (1, 64, 96, 3)
    assert fixed.dynamic_shapes() is None
    images = list(fixed.check_images())
    assert [tuple(x.shape) for x in images] == [(1, 64, 96, 3)] * 5
    assert all(x.dtype == torch.uint8 and x.float().std() > 20 for x in images)
    assert not torch.equal(images[0], images[1])
    pixel = torch.tensor([30.0, 22.0, 13.0]).view(1, 1, 1, 3)  # blue, green, red
    assert dynamic.preprocessing.normalize(pixel).flatten().tolist() == [3.0, 1.0, 0.0]
