"""The configs train with the official recipes."""

from pathlib import Path

import pytest
from config_files import CONFIGS, build, family, head, load, slow_but_smallest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

COCO = [p for p in CONFIGS if p.stem.endswith('_coco') and p.parent.name in ('pvt', 'pvtv2', 'dpt', 'dat')]
FPN = [p for p in COCO if '_fpn_' in p.stem]
# PVT v2 trains over 36 epochs as Swin Transformer does.
SWIN_RECIPE = [p for p in FPN if p.parent.name == 'dat' or (p.parent.name == 'pvtv2' and '_ms-3x_' in p.stem)]
PVT_RECIPE = [p for p in FPN if p not in SWIN_RECIPE]
# The drop path rates of DAT++ by head, schedule and size.
DROP_PATH = {
    ('retinanet', '1x'): {'t': 0.0, 's': 0.1},
    ('retinanet', 'ms-3x'): {'t': 0.2, 's': 0.5},
    ('mask-rcnn', '1x'): {'t': 0.0, 's': 0.1},
    ('mask-rcnn', 'ms-3x'): {'t': 0.3, 's': 0.5},
    ('cascade-mask-rcnn', '1x'): {'t': 0.0},
    ('cascade-mask-rcnn', 'ms-3x'): {'t': 0.1, 's': 0.5, 'b': 0.8},
}


def optimizer(config: Config) -> tuple[str, float, float]:
    settings = config.optim_wrapper.optimizer
    return settings.type, settings.lr, settings.weight_decay


def weight_decays(config: Config) -> dict[str, float]:
    """Return the weight decay of each parameter in the built optimizer."""
    model = build(config)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    return {name: decay[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def check_schedule(config: Config, warm_up: int, epochs: int, milestones: list[int]) -> None:
    linear, decay = config.param_scheduler
    assert (linear.type, linear.start_factor, linear.end, linear.by_epoch) == ('LinearLR', 0.001, warm_up, False)
    assert (decay.type, decay.end, decay.milestones, decay.gamma) == ('MultiStepLR', epochs, milestones, 0.1)
    assert (config.train_cfg.type, config.train_cfg.max_epochs) == ('EpochBasedTrainLoop', epochs)


@pytest.mark.parametrize('path', slow_but_smallest(PVT_RECIPE))
def test_pvt_and_dpt_follow_their_coco_recipe(path: Path) -> None:
    config = load(path)
    long = '_ms-3x_' in path.stem
    assert config.optim_wrapper.type == 'OptimWrapper'
    assert config.optim_wrapper.get('clip_grad') is None
    assert optimizer(config) == ('AdamW', 2e-4 if head(path) == 'mask-rcnn' else 1e-4, 1e-4)
    assert config.model.backbone.drop_path_rate == 0.1
    check_schedule(config, 500, 36 if long else 12, [28, 34] if long else [8, 11])
    if head(path).startswith('retinanet'):
        neck = config.model.neck
        assert (neck.start_level, neck.add_extra_convs, neck.num_outs) == (1, 'on_input', 5)
    resize, flip = config.train_dataloader.dataset.pipeline[2:4]
    scale = (1066, 640) if '-640_' in path.stem else (1333, 800)
    assert flip.type == 'RandomFlip'
    if long:
        assert resize.scales == [(1333, short) for short in (640, 672, 704, 736, 768, 800)]
    else:
        assert (resize.type, resize.scale) == ('Resize', scale)
    assert config.test_dataloader.dataset.pipeline[1].scale == scale


@pytest.mark.parametrize('path', slow_but_smallest(SWIN_RECIPE))
def test_dat_and_cascades_follow_the_swin_recipe_on_coco(path: Path) -> None:
    config = load(path)
    long, newer = '_ms-3x_' in path.stem, family(path) == 'dat++'
    lr = 1e-4 * (1 if not newer else 2 if head(path) == 'retinanet' else 4)
    assert optimizer(config) == ('AdamW', lr, 0.05)
    check_schedule(config, 500 if newer else 1000, 36 if long else 12, [27, 33] if long else [8, 11])
    pipeline = {t.type: t for t in config.train_dataloader.dataset.pipeline}
    if long or newer:
        assert pipeline['RandomChoice'].transforms[1][1].crop_size == (384, 600)
    else:
        assert pipeline['Resize'].scale == (1333, 800)
    assert pipeline['LoadAnnotations'].get('with_mask', False) == (head(path) != 'retinanet')
    if newer:
        size = path.stem.split('_')[1].split('-')[1]
        schedule = 'ms-3x' if long else '1x'
        assert config.model.backbone.drop_path_rate == DROP_PATH[head(path), schedule][size]
        assert config.train_dataloader.batch_size == (1 if size == 'b' else 2)

    tables = ('norm', 'rpe_table', 'relative_position_bias_table')
    for name, decay in weight_decays(config).items():
        exempt = any(part in name for part in (*tables, *(('.bn.weight', '.bn.bias') if newer else ())))
        assert decay == (0.0 if exempt else 0.05), name


@pytest.mark.parametrize('path', slow_but_smallest([p for p in COCO if 'detr' in head(p) or 'dino' in head(p)]))
def test_detr_and_its_variants_follow_their_papers_on_coco(path: Path) -> None:
    config = load(path)
    kind = head(path)
    lr = 2e-4 if kind.startswith('deformable') else 1e-4
    assert optimizer(config) == ('AdamW', lr, 1e-4)
    assert config.optim_wrapper.clip_grad.max_norm == 0.1
    epochs, milestone = {'detr': (50, 33), 'dino-4scale': (12, 11)}.get(kind, (50, 40))
    assert (config.train_cfg.max_epochs, config.param_scheduler[-1].milestones) == (epochs, [milestone])
    slow = ['backbone', *(['sampling_offsets', 'reference_points'] if kind.startswith('deformable') else [])]
    assert {k: v.lr_mult for k, v in config.optim_wrapper.paramwise_cfg.custom_keys.items()} == dict.fromkeys(slow, 0.1)
    assert config.model.backbone.out_indices == ((3,) if kind == 'detr' else (1, 2, 3))
    assert config.model.neck.num_outs == (1 if kind == 'detr' else 4)
    forms = config.model.get('with_box_refine', False), config.model.get('as_two_stage', False)
    assert forms == ('-refine' in kind or 'dino' in kind, 'twostage' in kind or 'dino' in kind)
    if kind == 'detr':
        assert config.train_dataloader.dataset.pipeline[3].scales[0] == (1333, 640)


@pytest.mark.parametrize(
    'path', slow_but_smallest([p for p in CONFIGS if p.stem.startswith('fpn_') and '_ade20k-' in p.stem])
)
def test_semantic_fpn_follows_pvt_on_ade20k(path: Path) -> None:
    config = load(path)
    assert optimizer(config) == ('AdamW', 2e-4, 1e-4)
    (poly,) = config.param_scheduler
    assert (poly.type, poly.power, poly.eta_min, poly.begin, poly.end) == ('PolyLR', 0.9, 0.0, 0, 40000)
    assert config.train_cfg.max_iters == 40000
    check_ade20k(config)
    assert config.train_dataloader.batch_size == 4
    test = {t.type: t for t in config.test_dataloader.dataset.pipeline}
    assert test['Resize'].scale == (2048, 512)
    if path.parent.name == 'dat':  # the official code does not resize further
        assert 'ResizeToMultiple' not in test
    else:
        assert test['ResizeToMultiple'].size_divisor == 32
    assert config.model.data_preprocessor.test_cfg.size_divisor == 32
    if family(path) == 'dat++':
        assert config.model.backbone.drop_path_rate == (0.7 if '-b-' in path.stem else 0.4)
    if path.parent.name == 'dat':
        decays = weight_decays(config)
        assert {v for k, v in decays.items() if 'rpe_table' in k or 'norms.' in k} == {0.0}
        assert {v for k, v in decays.items() if k.endswith('proj.weight')} == {1e-4}


@pytest.mark.parametrize(
    'path', slow_but_smallest([p for p in CONFIGS if p.stem.startswith('upernet_') and '_ade20k-' in p.stem])
)
def test_upernet_follows_swin_on_ade20k(path: Path) -> None:
    config = load(path)
    assert optimizer(config) == ('AdamW', 6e-5, 0.01)
    warm_up, poly = config.param_scheduler
    assert (warm_up.start_factor, warm_up.end) == (1e-6, 1500)
    assert (poly.power, poly.begin, poly.end, config.train_cfg.max_iters) == (1.0, 1500, 160000, 160000)
    assert config.train_dataloader.batch_size == 2
    check_ade20k(config)
    if family(path) == 'dat++':
        assert config.model.backbone.drop_path_rate == {'t': 0.3, 's': 0.5, 'b': 0.7}[path.stem.split('-')[1]]
    if path.parent.name == 'dat':
        decays = weight_decays(config)
        assert {v for k, v in decays.items() if 'rpe_table' in k or 'norms.' in k} == {0.0}


def check_ade20k(config: Config) -> None:
    pipeline = {t.type: t for t in config.train_dataloader.dataset.pipeline}
    assert pipeline['LoadAnnotations'].reduce_zero_label
    assert (pipeline['RandomResize'].scale, pipeline['RandomResize'].ratio_range) == ((2048, 512), (0.5, 2.0))
    assert pipeline['RandomCrop'].crop_size == (512, 512)
    assert 'PhotoMetricDistortion' in pipeline
    assert config.model.decode_head.num_classes == 150
    # --tta: six multiples of the single-scale test size, each also flipped.
    scales, flips = config.tta_pipeline[1].transforms[:2]
    assert [s.scale for s in scales if s.type == 'Resize'] == [
        (int(2048 * ratio), int(512 * ratio)) for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    ]
    assert [flip.prob for flip in flips] == [0.0, 1.0]


IMAGENET = [p for p in CONFIGS if '_in1k' in p.stem]


@pytest.mark.parametrize('path', slow_but_smallest([p for p in IMAGENET if p.parent.name != 'dat']))
def test_pvt_and_dpt_follow_their_imagenet_recipe(path: Path) -> None:
    config = load(path)
    settings = config.optim_wrapper.optimizer
    assert (settings.type, settings.lr, settings.weight_decay) == ('AdamW', 1e-3, 0.05)
    warmup, cosine = config.param_scheduler
    assert warmup.end == cosine.begin == 5
    assert (settings.lr * warmup.start_factor, cosine.eta_min) == (pytest.approx(1e-6), 1e-5)
    assert config.train_cfg.max_epochs == 300
    large = config.model.backbone.arch in ('medium', 'large', 'b3', 'b4', 'b5')
    assert config.model.backbone.drop_path_rate == (0.3 if large else 0.1)
    assert (config.optim_wrapper.get('clip_grad') or {}).get('max_norm') == (1.0 if large else None)
    assert config.train_dataloader.sampler.type == 'RepeatAugSampler'
    check_augmentation(config)


# Learning rate, its end, warm-up epochs, epochs, gradient clipping, drop path rate, weight decay.
DAT_RECIPES = {
    'dat-tiny_8xb128_in1k': (1e-3, 1e-5, 20, 300, 5.0, 0.2, 0.05),
    'dat-small_8xb128_in1k': (1e-3, 1e-5, 20, 300, 5.0, 0.3, 0.05),
    'dat-base_8xb128_in1k': (8e-4, 1e-5, 50, 300, 1.0, 0.5, 0.05),
    'dat-base_8xb24_in1k-384px': (2e-6 * 192 / 512, 1e-7 * 192 / 512, 0, 30, 1.0, 0.5, 1e-8),
    'dat-tiny-pp_8xb128_in1k': (1e-3, 1e-5, 20, 300, 5.0, 0.2, 0.05),
    'dat-small-pp_8xb128_in1k': (1e-3, 1e-5, 20, 300, 5.0, 0.4, 0.05),
    'dat-base-pp_16xb64_in1k': (1e-3, 1e-5, 20, 300, 5.0, 0.7, 0.05),
    'dat-base-pp_8xb24_in1k-384px': (2e-5 * 192 / 512, 2e-7 * 192 / 512, 0, 30, 5.0, 0.6, 1e-8),
}


@pytest.mark.parametrize('path', slow_but_smallest([p for p in IMAGENET if p.parent.name == 'dat']))
def test_dat_follows_its_imagenet_recipe(path: Path) -> None:
    config = load(path)
    lr, end, warm_up, epochs, clip, drop_path, decay = DAT_RECIPES.get(path.stem, DAT_RECIPES['dat-tiny_8xb128_in1k'])
    settings = config.optim_wrapper.optimizer
    assert (settings.type, settings.weight_decay) == ('AdamW', decay)
    *before, cosine = config.param_scheduler
    assert (settings.lr, cosine.eta_min, config.train_cfg.max_epochs) == (
        pytest.approx(lr),
        pytest.approx(end),
        epochs,
    )
    assert sum(s.end for s in before) == cosine.get('begin', 0) == warm_up
    assert all(settings.lr * s.start_factor == pytest.approx(1e-6) for s in before)
    assert (config.optim_wrapper.clip_grad.max_norm, config.model.backbone.drop_path_rate) == (clip, drop_path)
    assert config.train_dataloader.sampler.type == 'DefaultSampler'
    test = {t.type: t for t in config.test_dataloader.dataset.pipeline}
    if path.stem.endswith('-384px'):
        assert config.load_from == f'checkpoints/{path.stem.split("_")[0]}_in1k.pth'
        assert config.train_dataloader.dataset.pipeline[1].scale == 384
        assert test['Resize'].scale == 384 if 'pp' in path.stem else test['CenterCrop'].crop_size == 384
    else:
        assert test['CenterCrop'].crop_size == 224
    check_augmentation(config, decay)


def check_augmentation(config: Config, weight_decay: float = 0.05) -> None:
    """Check the augmentation, which all families share, and the weight decays in the built optimizer."""
    transforms = {t.type: t for t in config.train_dataloader.dataset.pipeline}
    assert (transforms['RandAugment'].magnitude_level, transforms['RandAugment'].magnitude_std) == (9, 0.5)
    assert transforms['RandomErasing'].erase_prob == 0.25
    assert [(a.type, a.alpha) for a in config.model.train_cfg.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]
    assert config.model.head.loss.label_smooth_val == 0.1

    # Weight decay applies to matrices, kernels and position embeddings; not to norms, biases, class token and tables.
    dims = {name: p.ndim for name, p in build(config).named_parameters()}
    for name, decay in weight_decays(config).items():
        exempt = any(part in name for part in ('cls_token', 'rpe_table', 'relative_position_bias_table'))
        assert decay == (0.0 if dims[name] == 1 or exempt else weight_decay), name
