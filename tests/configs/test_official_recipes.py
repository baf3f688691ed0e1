"""The configs train and test as the official ones: official_recipes.txt has a row per official config."""

from pathlib import Path

import pytest
from config_files import CONFIGS, LISTED, load, metafile
from mmengine.config import Config
from running import ROOT

AMP = '# The official training is in half precision: add --amp.'
SHORT_SIDES = {'640-800': range(640, 801, 32), '480-800': range(480, 801, 32), '400-600': (400, 500, 600)}


def _rows() -> dict[str, dict[str, str]]:
    lines = (ROOT / 'tests/configs/official_recipes.txt').read_text().splitlines()
    header, *rows = (line.split() for line in lines if line and not line.startswith('#'))
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert len({row['config'] for row in table}) == len(table), 'two rows of one config'
    return {row['config']: row for row in table}


ROWS = _rows()
PATHS = {f'{p.parent.name}/{p.stem}': p for p in CONFIGS if p.parent.name in LISTED}


def number(text: str) -> float:
    """Return the value of ``1e-4`` or ``2e-4/1.4``."""
    value, *divisor = map(float, text.split('/'))
    return value / divisor[0] if divisor else value


def batch(config: Config) -> str:
    images = config.train_dataloader.batch_size
    gpus, rest = divmod(config.auto_scale_lr.base_batch_size, images)
    assert not rest, f'{config.auto_scale_lr.base_batch_size=} is no multiple of {images=}'
    return f'{gpus}x{images}'


def warm_up(config: Config) -> str:
    linear = [s for s in config.param_scheduler if s.type == 'LinearLR']
    if not linear:
        return '0'
    (scheduler,) = linear
    rate = config.optim_wrapper.optimizer.lr
    start = {500: 0.001, 1500: 1e-6}[scheduler.end] if not scheduler.by_epoch else 1e-6 / rate
    assert scheduler.start_factor == pytest.approx(start)
    return f'{scheduler.end}{"e" if scheduler.by_epoch else "i"}'


def schedule(config: Config) -> str:
    *_, decay = config.param_scheduler
    length = f'{config.train_cfg.max_iters}i' if 'max_iters' in config.train_cfg else f'{config.train_cfg.max_epochs}e'
    if decay.type == 'MultiStepLR':
        assert (decay.gamma, decay.by_epoch) == (0.1, True)
        return f'{",".join(map(str, decay.milestones))}/{length}'
    if decay.type == 'PolyLR':
        # From the first iteration on: mmcv 1 multiplies the warm-up with it.
        assert (decay.eta_min, decay.begin, decay.end) == (0.0, 0, config.train_cfg.max_iters)
        return f'poly{decay.power}/{length}'
    assert (decay.type, decay.get('begin', 0)) == ('CosineAnnealingLR', 0)  # timm's includes the warm-up
    return f'cos{decay.eta_min:g}/{length}'.replace('e-0', 'e-')


def _sides(transform: dict) -> str:
    """Return the short sides of a resizing of COCO."""
    assert transform.keep_ratio
    if transform.type == 'Resize':
        assert transform.scale in ((1333, 800), (1066, 640))
        return str(transform.scale[1])
    assert transform.type == 'RandomChoiceResize'
    # mmdet's Sparse R-CNN has the short side first.
    scales = [tuple(sorted(scale, reverse=True)) for scale in transform.scales]
    return next(k for k, v in SHORT_SIDES.items() if scales == [(1333, side) for side in v])


def training(config: Config) -> str:
    transforms = {t.type: t for t in config.train_dataloader.dataset.pipeline}
    if 'RandomResizedCrop' in transforms:
        assert transforms['RandomResizedCrop'].interpolation == 'bicubic'
        return str(transforms['RandomResizedCrop'].scale)
    if 'RandomResize' in transforms:
        assert (transforms['RandomResize'].scale, transforms['RandomResize'].ratio_range) == ((2048, 512), (0.5, 2.0))
        assert transforms['RandomCrop'].crop_size == (512, 512)
        return '512'
    if 'RandomChoice' in transforms:
        (whole,), (before, crop, after) = transforms['RandomChoice'].transforms
        assert (crop.type, crop.crop_size, crop.allow_negative_crop) == ('RandomCrop', (384, 600), True)
        assert (crop.crop_type, _sides(before)) == ('absolute_range', '400-600')
        assert _sides(whole) == _sides(after)
        return f'{_sides(whole)}+crop'
    return _sides(transforms.get('RandomChoiceResize') or transforms['Resize'])


def evaluation(config: Config) -> str:
    assert config.test_dataloader.dataset.pipeline == config.val_dataloader.dataset.pipeline
    transforms = {t.type: t for t in config.test_dataloader.dataset.pipeline}
    if config.default_scope == 'mmdet':
        return _sides(transforms['Resize'])
    if config.default_scope == 'mmseg':
        assert (transforms['Resize'].scale, transforms['Resize'].keep_ratio) == ((2048, 512), True)
        divisor = transforms.get('ResizeToMultiple', {}).get('size_divisor')
        padding = (config.model.data_preprocessor.get('test_cfg') or {}).get('size_divisor')
        assert padding in (None, divisor)
        return f'512/{divisor}' if divisor else '512'
    resize = transforms.get('Resize') or transforms['ResizeEdge']
    assert (resize.backend, resize.interpolation) == ('pillow', 'bicubic')
    scale = resize.scale
    if resize.type == 'Resize':  # to a square
        scale = 'x'.join(map(str, (scale, scale) if isinstance(scale, int) else scale))
    crop = transforms.get('CenterCrop')
    return f'{scale}>{crop.crop_size}' if crop else str(scale)


def resolved(path: Path) -> dict[str, object]:
    """Return the columns of the table for the resolved config at ``path``."""
    config = load(path)
    wrapper = config.optim_wrapper
    assert wrapper.get('type', 'OptimWrapper') == 'OptimWrapper', '--amp is the choice of the user'
    assert wrapper.optimizer.type == 'AdamW'
    return dict(
        batch=batch(config),
        lr=pytest.approx(wrapper.optimizer.lr, rel=1e-6),
        decay=wrapper.optimizer.weight_decay,
        drop_path=config.model.backbone.get('drop_path_rate', '-'),
        warm_up=warm_up(config),
        schedule=schedule(config),
        train=training(config),
        clip=(wrapper.get('clip_grad') or {}).get('max_norm', '-'),
        precision='fp16' if AMP in path.read_text().splitlines() else 'fp32',
        test=evaluation(config),
    )


@pytest.mark.slow
def test_configs_equal_the_official_ones() -> None:
    differences = {}
    for name, texts in ROWS.items():
        row = {k: v for k, v in texts.items() if k not in ('config', 'source')}
        row |= {k: number(row[k]) for k in ('lr', 'decay', 'drop_path', 'clip') if row[k] != '-'}
        found = resolved(PATHS[name])
        differences |= {f'{name}, {k}': (found[k], v) for k, v in row.items() if found[k] != v}
    assert differences == {}


@pytest.mark.slow
def test_metafiles_state_the_recipe() -> None:
    """The pages show it."""
    for name, path in PATHS.items():
        recipe, config = metafile(path.parent.name)[path.stem]['Metadata']['Training Recipe'], load(path)
        assert recipe['Batch'] == batch(config).replace('x', ' x '), name
        assert number(recipe['Learning Rate']) == pytest.approx(config.optim_wrapper.optimizer.lr, rel=1e-6), name
        if name in ROWS:
            assert recipe['Precision'] == ROWS[name]['precision'], name
            assert recipe['Source'].endswith('/' + ROWS[name]['source'].split(':')[1]), name
        else:
            assert set(recipe) == {'Batch', 'Learning Rate'}, name
