"""One training iteration and one prediction of every combination of family and head, on small images."""

import pytest
import torch
from config_files import CONFIGS, MODELS, build, load, of_family, smallest
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

pytestmark = pytest.mark.slow
SIZE = (64, 96)


def inputs(scope: str, num_classes: int) -> dict:
    """Return two images with labels, in the format of the dataloaders of mmdet, mmseg or mmpretrain."""
    if scope == 'mmdet':
        return demo_mm_inputs(
            2, [(3, *SIZE)] * 2, num_items=[2, 1], num_classes=num_classes, with_mask=True, with_semantic=False
        )
    images = [torch.randint(0, 255, (3, *SIZE), dtype=torch.uint8) for _ in range(2)]
    if scope == 'mmpretrain':
        return dict(inputs=torch.stack(images), data_samples=[DataSample().set_gt_label(i) for i in range(2)])
    samples = []
    for _ in images:
        sample = SegDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE, scale_factor=(1.0, 1.0)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, num_classes, (1, *SIZE)))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


@pytest.mark.nightly
@pytest.mark.parametrize('name', MODELS)
def test_every_head_trains_and_predicts(name: str) -> None:
    for path in smallest(of_family(name)).values():
        config = load(path)
        backbone, depth = config.model.backbone, 2 if name.startswith('dat') else 1
        backbone.update(arch=dict(like=backbone.arch, depths=(depth,) * 4), drop_path_rate=0.0, init_cfg=None)
        check_training_and_prediction(config)


@pytest.mark.parametrize('name', ['pvt', 'pvtv2', 'dpt', 'dat', 'dat-pp'])
def test_demo_trains_and_predicts(name: str) -> None:
    paths = [p for p in CONFIGS if p.parent.name == 'demo' and p.stem.split('_')[-2] == name]
    assert len(paths) >= 5
    for path in paths:
        check_training_and_prediction(load(path))


def check_training_and_prediction(config: Config) -> None:
    """Check that losses are finite, every parameter has a gradient, and predictions have their format."""
    if 'size' in config.model.get('data_preprocessor', {}):
        config.model.data_preprocessor.size = SIZE
    if 'batch_augments' in config.model.get('data_preprocessor', {}):
        config.model.data_preprocessor.batch_augments = None  # Mask2Former's padding to 1024 x 1024 pixels
    if config.model.get('as_two_stage'):
        config.model.num_queries = 30  # an image this small has fewer than 300 locations to choose from
    rcnn = (config.model.get('train_cfg') or {}).get('rcnn', [])
    for stage in rcnn if isinstance(rcnn, list) else [rcnn]:
        stage.sampler.num = 16
    model = revert_sync_batchnorm(build(config, 'cpu'))
    model.init_weights()
    model.train()
    for module in model.backbone.modules():
        if hasattr(module, 'offset_predictor'):  # initialized with zeros, which block the gradient
            torch.nn.init.normal_(module.offset_predictor.weight, std=0.02)

    data = inputs(config.default_scope, 5)
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    loss, log = model.parse_losses(losses)
    assert all(torch.isfinite(value).all() for value in log.values()), log
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f'{name} has no gradient'
            assert parameter.grad.isfinite().all(), name
    blocked = [n for n, p in model.backbone.named_parameters() if p.requires_grad and not p.grad.any()]
    assert not blocked, f'no gradient reaches {blocked}'

    model.eval()
    data = inputs(config.default_scope, 5)
    with torch.no_grad():
        predictions = model(**model.data_preprocessor(data, False), mode='predict')
    assert len(predictions) == 2
    for prediction in predictions:
        if config.default_scope == 'mmdet':
            found = prediction.pred_instances
            assert found.bboxes.shape == (len(found), 4)
            assert found.scores.isfinite().all()
        elif config.default_scope == 'mmseg':
            assert prediction.pred_sem_seg.data.shape == (1, *SIZE)
        else:
            assert prediction.pred_score.sum() == pytest.approx(1, abs=1e-4)
