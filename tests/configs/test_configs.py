"""Every config parses, builds the model that its name says, and trains it as the authors did."""

import importlib
import re
from pathlib import Path

import pytest
import torch
from golden import author_parameters
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from running import ROOT

CONFIGS = sorted(p for p in (ROOT / 'configs').glob('*/*.py') if p.parent.name != '_base_')
PUBLISHED = author_parameters()
HEADS = {'retinanet': 'RetinaNet', 'mask-rcnn': 'MaskRCNN', 'fpn': 'EncoderDecoder'}
SIZES = {'t': 'tiny', 's': 'small', 'm': 'medium', 'l': 'large'}
# Parameters in M as the papers and mmdet's model zoo give them.
RETINANET = {'pvt-t': 23.0, 'pvt-s': 34.2, 'pvt-m': 53.9, 'pvt-l': 71.1}
RETINANET |= {'pvtv2-b0': 13.0, 'pvtv2-b1': 23.8, 'pvtv2-b2-li': 32.3, 'pvtv2-b2': 35.1}
RETINANET |= {'pvtv2-b3': 55.0, 'pvtv2-b4': 72.3, 'pvtv2-b5': 91.7}


def load(path: Path) -> Config:
    return Config.fromfile(path)


def build(config: Config) -> torch.nn.Module:
    registry = importlib.import_module(f'{config.default_scope}.registry').MODELS
    init_default_scope(config.default_scope)
    if 'data_preprocessor' in config:
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    with torch.device('meta'):
        return registry.build(config.model)


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_every_config_builds_what_its_name_says(path: Path) -> None:
    config = load(path)
    assert 'deformable_vit' in config.custom_imports['imports']
    assert config.auto_scale_lr.base_batch_size > 0
    model, name, family = build(config), path.stem, path.parent.name
    head = name.split('_')[0]
    assert type(model).__name__ == HEADS.get(head, 'ImageClassifier')
    if family == 'demo':
        assert count(model) < 3e6
        return

    arch = config.model.backbone.arch
    assert type(model.backbone).__name__ == {'pvt': 'PVT', 'pvtv2': 'PVTv2', 'dpt': 'DPT', 'dat': 'DAT'}[family]
    if isinstance(arch, dict):  # the ablation; test_flops.py holds it
        assert (arch['like'], re.search(r'-d(\d+)_', name)[1]) == ('tiny', _deformable_stages(arch['blocks']))
        return
    size = re.search(rf'{family}-(b\d(?:-li)?|[a-z]+(?:-pp)?)_', name)[1].replace('-pp', '++')
    assert arch == SIZES.get(size, size)
    if head == 'retinanet':
        assert count(model) / 1e6 == pytest.approx(RETINANET[f'{family}-{size}'], abs=0.06)
        assert config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size == 16
    elif head == 'fpn':
        assert config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size == 32
    else:
        batch = re.search(r'_(\d+)xb(\d+)_', name)
        assert config.train_dataloader.batch_size == int(batch[2])
        assert config.auto_scale_lr.base_batch_size == int(batch[1]) * int(batch[2])
        published = (
            f'{family}-{arch}'.replace('dat-', 'datpp-').replace('++', '') if '++' in arch else f'{family}-{arch}'
        )
        if name.endswith('-384px') and published == 'dat-base':
            published = 'dat-base-384'
        assert count(model) == PUBLISHED[f'{published}_in1k']['num_params']
        return
    checkpoint = config.model.backbone.init_cfg.checkpoint
    known = f'pvt_{arch}' if family == 'pvt' else f'pvt_v2_{arch.replace("-", "_")}'
    assert checkpoint == f'https://github.com/whai362/PVT/releases/download/v2/{known}.pth'


def _deformable_stages(blocks: tuple[str, ...]) -> str:
    return ''.join(str(i + 1) for i, pattern in enumerate(blocks) if 'D' in pattern)


def test_there_is_a_config_for_every_published_model() -> None:
    names = {p.stem for p in CONFIGS}
    assert 'dat-base_8xb24_in1k-384px' in names
    assert 'dat-base-pp_8xb24_in1k-384px' in names
    for model in PUBLISHED:
        family, arch = model.split('_')[0].split('-', 1)
        if family in ('dpt', 'dat', 'datpp'):
            name = f'dat-{arch}-pp' if family == 'datpp' else f'{family}-{arch}'
            assert arch == 'base-384' or any(n.startswith(f'{name}_') and n.endswith('_in1k') for n in names), model
            continue
        short = {v: k for k, v in SIZES.items()}.get(arch, arch)
        assert f'{family}-{arch}_8xb128_in1k' in names
        assert f'retinanet_{family}-{short}_fpn_1x_coco' in names
        assert f'fpn_{family}-{short}_8xb4-40k_ade20k-512x512' in names


@pytest.mark.parametrize(
    'path', [p for p in CONFIGS if 'retinanet' in p.stem and p.parent.name != 'demo'], ids=lambda p: p.stem
)
def test_recipe_of_retinanet(path: Path) -> None:
    config = load(path)
    assert config.optim_wrapper.type == 'OptimWrapper'
    assert config.optim_wrapper.get('clip_grad') is None
    assert config.optim_wrapper.optimizer.to_dict() == dict(type='AdamW', lr=1e-4, weight_decay=1e-4)
    assert config.train_cfg.max_epochs == 12
    assert config.param_scheduler[-1].milestones == [8, 11]
    neck = config.model.neck
    assert (neck.start_level, neck.add_extra_convs, neck.num_outs) == (1, 'on_input', 5)
    resize, flip = config.train_dataloader.dataset.pipeline[2:4]
    assert (resize.type, resize.scale, flip.type) == ('Resize', (1333, 800), 'RandomFlip')


@pytest.mark.parametrize('path', [p for p in CONFIGS if '_ade20k-' in p.stem], ids=lambda p: p.stem)
def test_recipe_of_semantic_fpn(path: Path) -> None:
    config = load(path)
    assert config.optim_wrapper.optimizer.to_dict() == dict(type='AdamW', lr=2e-4, weight_decay=1e-4)
    (poly,) = config.param_scheduler
    assert (poly.type, poly.power, poly.eta_min, poly.begin, poly.end) == ('PolyLR', 0.9, 0.0, 0, 40000)
    assert config.train_cfg.max_iters == 40000
    pipeline = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert pipeline['LoadAnnotations'].reduce_zero_label
    assert (pipeline['RandomResize'].scale, pipeline['RandomResize'].ratio_range) == ((2048, 512), (0.5, 2.0))
    assert pipeline['RandomCrop'].crop_size == (512, 512)
    assert 'PhotoMetricDistortion' in pipeline
    assert config.model.decode_head.num_classes == 150
    assert config.test_dataloader.dataset.pipeline[2].size_divisor == 32
    assert config.model.data_preprocessor.test_cfg.size_divisor == 32


IMAGENET = [p for p in CONFIGS if '_in1k' in p.stem]


@pytest.mark.parametrize('path', [p for p in IMAGENET if p.parent.name != 'dat'], ids=lambda p: p.stem)
def test_recipe_of_imagenet(path: Path) -> None:
    config = load(path)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, 0.05)
    warmup, cosine = config.param_scheduler
    assert warmup.end == cosine.begin == 5
    assert (optimizer.lr * warmup.start_factor, cosine.eta_min) == (pytest.approx(1e-6), 1e-5)
    assert config.train_cfg.max_epochs == 300
    large = config.model.backbone.arch in ('medium', 'large', 'b3', 'b4', 'b5')
    assert config.model.backbone.drop_path_rate == (0.3 if large else 0.1)
    assert (config.optim_wrapper.get('clip_grad') or {}).get('max_norm') == (1.0 if large else None)
    assert config.train_dataloader.sampler.type == 'RepeatAugSampler'
    check_augmentation(config)


# lr, its end, warm-up epochs, epochs, clip, drop path, weight decay
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


@pytest.mark.parametrize('path', [p for p in IMAGENET if p.parent.name == 'dat'], ids=lambda p: p.stem)
def test_recipe_of_imagenet_for_dat(path: Path) -> None:
    config = load(path)
    lr, end, warm_up, epochs, clip, drop_path, decay = DAT_RECIPES.get(path.stem, DAT_RECIPES['dat-tiny_8xb128_in1k'])
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay) == ('AdamW', decay)
    *before, cosine = config.param_scheduler
    assert (optimizer.lr, cosine.eta_min, config.train_cfg.max_epochs) == (
        pytest.approx(lr),
        pytest.approx(end),
        epochs,
    )
    assert sum(s.end for s in before) == cosine.get('begin', 0) == warm_up
    assert all(optimizer.lr * s.start_factor == pytest.approx(1e-6) for s in before)
    assert (config.optim_wrapper.clip_grad.max_norm, config.model.backbone.drop_path_rate) == (clip, drop_path)
    assert config.train_dataloader.sampler.type == 'DefaultSampler'
    test = {step.type: step for step in config.test_dataloader.dataset.pipeline}
    if path.stem.endswith('-384px'):
        assert config.load_from == f'checkpoints/{path.stem.split("_")[0]}_in1k.pth'
        assert config.train_dataloader.dataset.pipeline[1].scale == 384
        assert test['Resize'].scale == 384 if 'pp' in path.stem else test['CenterCrop'].crop_size == 384
    else:
        assert test['CenterCrop'].crop_size == 224
    check_augmentation(config, decay)


def check_augmentation(config: Config, weight_decay: float = 0.05) -> None:
    """What all families share: augmentation, and what does not decay in the built optimizer."""
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert (steps['RandAugment'].magnitude_level, steps['RandAugment'].magnitude_std) == (9, 0.5)
    assert steps['RandomErasing'].erase_prob == 0.25
    assert [(a.type, a.alpha) for a in config.model.train_cfg.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]
    assert config.model.head.loss.label_smooth_val == 0.1

    # Matrices, kernels and position embeddings decay; norms, biases, class token and tables do not.
    model = build(config)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    for key, parameter in model.named_parameters():
        exempt = any(part in key for part in ('cls_token', 'rpe_table', 'relative_position_bias_table'))
        assert decay[id(parameter)] == (0.0 if parameter.ndim == 1 or exempt else weight_decay), key
