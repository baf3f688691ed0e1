"""What the official recipes say beyond the table of test_official_recipes.py."""

import math
from pathlib import Path

import mmengine.optim
import pytest
import torch
from config_files import CONFIGS, build, family, head, load, slow_but_smallest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

COCO = [p for p in CONFIGS if p.stem.endswith('_coco') and p.parent.name in ('pvt', 'pvtv2', 'dpt', 'dat')]
RCNN = [p for p in COCO if head(p).split('-640')[0] in ('retinanet', 'mask-rcnn', 'cascade-mask-rcnn')]
# PVT v2 trains over 36 epochs as Swin Transformer does.
SWIN_RECIPE = [p for p in RCNN if p.parent.name == 'dat' or (p.parent.name == 'pvtv2' and '_ms-3x_' in p.stem)]


def weight_decays(config: Config) -> dict[str, float]:
    """Return the weight decay of each parameter in the built optimizer."""
    model = build(config)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    return {name: decay[id(p)] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize('path', slow_but_smallest([p for p in RCNN if p not in SWIN_RECIPE]))
def test_pvt_and_dpt_have_the_neck_of_their_detectors(path: Path) -> None:
    config = load(path)
    neck = config.model.neck
    if head(path).startswith('retinanet'):
        assert (neck.start_level, neck.add_extra_convs, neck.num_outs) == (1, 'on_input', 5)
    else:
        assert (neck.get('start_level', 0), neck.get('add_extra_convs', False), neck.num_outs) == (0, False, 5)
        annotations = config.train_dataloader.dataset.pipeline[1]
        assert annotations.get('poly2mask', True) == ('_ms-3x_' not in path.stem)  # mstrain-poly


@pytest.mark.parametrize('path', slow_but_smallest(SWIN_RECIPE))
def test_norms_and_position_tables_have_no_weight_decay(path: Path) -> None:
    config = load(path)
    annotations = config.train_dataloader.dataset.pipeline[1]
    assert annotations.get('with_mask', False) == (head(path) != 'retinanet')
    tables = ('norm', 'rpe_table', 'relative_position_bias_table')
    every_norm = ('.bn.weight', '.bn.bias') if family(path) == 'dat++' else ()
    for name, decay in weight_decays(config).items():
        exempt = any(part in name for part in (*tables, *every_norm))
        assert decay == (0.0 if exempt else 0.05), name


@pytest.mark.parametrize('path', slow_but_smallest([p for p in COCO if 'detr' in head(p) or 'dino' in head(p)]))
def test_detr_and_its_variants_follow_their_papers_on_coco(path: Path) -> None:
    config = load(path)
    kind = head(path)
    settings = config.optim_wrapper.optimizer
    lr = 2e-4 if kind.startswith('deformable') else 1e-4
    assert (settings.type, settings.lr, settings.weight_decay) == ('AdamW', lr, 1e-4)
    assert config.optim_wrapper.clip_grad.max_norm == 0.1
    epochs, milestone = {'detr': (50, 33), 'dino-4scale': (12, 11)}.get(kind, (50, 40))
    assert (config.train_cfg.max_epochs, config.param_scheduler[-1].milestones) == (epochs, [milestone])
    slow = ['backbone', *(['sampling_offsets', 'reference_points'] if kind.startswith('deformable') else [])]
    assert {k: v.lr_mult for k, v in config.optim_wrapper.paramwise_cfg.custom_keys.items()} == dict.fromkeys(slow, 0.1)
    single = kind == 'detr' or 'single-scale' in kind
    assert config.model.backbone.out_indices == ((3,) if single else (1, 2, 3))
    assert config.model.neck.num_outs == (1 if single else 4)
    forms = config.model.get('with_box_refine', False), config.model.get('as_two_stage', False)
    assert forms == ('-refine' in kind or 'dino' in kind, 'twostage' in kind or 'dino' in kind)


@pytest.mark.parametrize(
    ('name', 'box_format'), [('pvt/detr_pvt-s_8xb2-50e_coco', 'xywh'), ('dpt/detr_dpt-s_8xb2-50e_coco', 'xyxy')]
)
def test_detr_matches_boxes_as_the_official_config(name: str, box_format: str) -> None:
    """PVT's config sets the format, DPT's has the default of mmdet 2.8, on which it ran."""
    (path,) = [p for p in COCO if f'{p.parent.name}/{p.stem}' == name]
    costs = {cost.type: cost for cost in load(path).model.train_cfg.assigner.match_costs}
    assert {k: v.weight for k, v in costs.items()} == {'ClassificationCost': 1.0, 'BBoxL1Cost': 5.0, 'IoUCost': 2.0}
    assert costs['BBoxL1Cost'].box_format == box_format


@pytest.mark.parametrize(
    'path',
    slow_but_smallest([p for p in CONFIGS if p.stem.startswith(('fpn_', 'upernet_')) and '_ade20k-' in p.stem]),
)
def test_segmentors_follow_pvt_and_swin_on_ade20k(path: Path) -> None:
    config = load(path)
    pipeline = {t.type: t for t in config.train_dataloader.dataset.pipeline}
    assert pipeline['LoadAnnotations'].reduce_zero_label
    assert 'PhotoMetricDistortion' in pipeline
    assert config.model.decode_head.num_classes == 150
    if path.stem.startswith('fpn_') and path.parent.name != 'dat':  # the official DAT code neither resizes nor pads
        assert config.model.data_preprocessor.test_cfg.size_divisor == 32
    # --tta: six multiples of the single-scale test size, each also flipped.
    scales, flips = config.tta_pipeline[1].transforms[:2]
    assert [s.scale for s in scales if s.type == 'Resize'] == [
        (int(2048 * ratio), int(512 * ratio)) for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    ]
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    if path.parent.name == 'dat':
        decays = weight_decays(config)
        assert {v for k, v in decays.items() if 'rpe_table' in k or 'norms.' in k} == {0.0}
        weight_decay = config.optim_wrapper.optimizer.weight_decay
        assert {v for k, v in decays.items() if k.endswith('proj.weight')} == {weight_decay}


@pytest.mark.parametrize('path', slow_but_smallest([p for p in CONFIGS if '_in1k' in p.stem]))
def test_classifiers_follow_deit_on_imagenet(path: Path) -> None:
    """The augmentation, which all families share, and the weight decays in the built optimizer."""
    config = load(path)
    sampler = 'DefaultSampler' if path.parent.name == 'dat' else 'RepeatAugSampler'
    assert config.train_dataloader.sampler.type == sampler
    if path.stem.endswith('-384px'):
        assert config.load_from == f'checkpoints/{path.stem.split("_")[0]}_in1k.pth'
    transforms = {t.type: t for t in config.train_dataloader.dataset.pipeline}
    assert (transforms['RandAugment'].magnitude_level, transforms['RandAugment'].magnitude_std) == (9, 0.5)
    assert transforms['RandomErasing'].erase_prob == 0.25
    assert [(a.type, a.alpha) for a in config.model.train_cfg.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]
    assert config.model.head.loss.label_smooth_val == 0.1

    # Weight decay applies to matrices, kernels and position embeddings; not to norms, biases, class token and tables.
    dims = {name: p.ndim for name, p in build(config).named_parameters()}
    for name, decay in weight_decays(config).items():
        exempt = any(part in name for part in ('cls_token', 'rpe_table', 'relative_position_bias_table'))
        expected = 0.0 if dims[name] == 1 or exempt else config.optim_wrapper.optimizer.weight_decay
        assert decay == expected, name


@pytest.mark.parametrize('name', ['pvt-tiny_8xb128_in1k', 'dat-tiny_8xb128_in1k', 'dat-base_8xb128_in1k'])
def test_learning_rate_after_warm_up_is_that_of_timm(name: str) -> None:
    """The cosine of timm covers all 300 epochs, also those of the warm-up."""
    (path,) = [p for p in CONFIGS if p.stem == name]
    config = load(path)
    highest, epoch = config.optim_wrapper.optimizer.lr, 4  # iterations
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=highest)
    schedulers = []
    for settings in config.param_scheduler:
        scheduler = getattr(mmengine.optim, settings.pop('type'))
        settings.pop('convert_to_iter_based', None)
        schedulers.append(scheduler.build_iter_from_epoch(optimizer, **{'end': 300, **settings}, epoch_length=epoch))
    for i in range(300 * epoch):
        if i > schedulers[0].end:
            official = 1e-5 + (highest - 1e-5) * (1 + math.cos(math.pi * i / (300 * epoch))) / 2
            assert optimizer.param_groups[0]['lr'] == pytest.approx(official, abs=1e-3 * highest)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
