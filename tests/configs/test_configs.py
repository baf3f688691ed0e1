"""Every config builds the model of its name, with a neck and heads that fit the backbone."""

import re
import runpy
from pathlib import Path

import pytest
import torch
import yaml
from config_files import CONFIGS, LISTED, MODELS, build, family, head, load, metafile, of_family
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from running import ROOT

from deformable_vit.checkpoints import find_official

ON_FORKS = MODULE2PACKAGE['mmseg'] == 'mmseg'  # as tests/conftest.py finds out
HEADS = {
    'retinanet': 'RetinaNet',
    'mask-rcnn': 'MaskRCNN',
    'cascade-mask-rcnn': 'CascadeRCNN',
    'detr': 'DETR',
    'deformable-detr': 'DeformableDETR',
    'dino': 'DINO',
    'atss': 'ATSS',
    'gfl': 'GFL',
    'sparse-rcnn': 'SparseRCNN',
    'mask2former': 'Mask2Former',
    'mask2former-semantic': 'EncoderDecoder',
    'fpn': 'EncoderDecoder',
    'upernet': 'EncoderDecoder',
    # configs/own_data
    'detection': 'RetinaNet',
    'voc': 'RetinaNet',
    'instance': 'MaskRCNN',
    'segmentation': 'EncoderDecoder',
    'cityscapes': 'EncoderDecoder',
}
BACKBONES = {'pvt': 'PVT', 'pvtv2': 'PVTv2', 'dpt': 'DPT', 'dat': 'DAT', 'dat++': 'DAT', 'dat-pp': 'DAT'}
ARCHS = {'t': 'tiny', 's': 'small', 'm': 'medium', 'l': 'large', 'b': 'base'}


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def model_name(path: Path) -> str:
    """Return ``pvtv2-b2-li`` or ``dat-t-pp``."""
    return re.search(r'(?:pvtv2|pvt|dpt|dat)-(?:b\d(?:-li)?|[a-z]+)(?:-pp?)?(?=_|-d)', path.stem)[0]


def arch_of(path: Path) -> str:
    """Return the ``arch`` that the name of a config says: ``b2-li``, ``tiny++``."""
    size, plus = re.fullmatch(r'(.+?)(?:-(pp?))?', model_name(path).split('-', 1)[1]).groups(default='')
    return ARCHS.get(size, size) + '+' * len(plus)


def feature_channels(config: Config) -> list[int]:
    """Return the channels that the neck, or the head in its place, expects of the backbone."""
    model = config.model
    for part in (model.get('neck'), model.get('panoptic_head'), model.get('decode_head'), model.get('head')):
        if part and 'in_channels' in part:
            channels = part.in_channels
            return [channels] if isinstance(channels, int) else list(channels)
    raise AssertionError('neither neck nor head has in_channels')


def recipe_name(config: Config) -> str:
    """Return batch, augmentation and schedule of a detector as in mmdet's names: ``32xb2-ms-crop-3x``, ``1x``."""
    images, pipeline = config.train_dataloader.batch_size, str(config.train_dataloader.dataset.pipeline)
    batch = f'{config.auto_scale_lr.base_batch_size // images}xb{images}'
    parts = [
        *([] if batch == '8xb2' else [batch]),
        *(['ms'] if 'RandomChoiceResize' in pipeline else []),
        *(['crop'] if 'RandomCrop' in pipeline else []),
        {12: '1x', 36: '3x'}[config.train_cfg.max_epochs],
    ]
    return '-'.join(parts)


def check_name(path: Path, config: Config) -> None:
    if schedule := re.search(r'_fpn_(?:adamw-wd[15]e-\d-)?(.+[13]x|[13]x)_coco$', path.stem):
        assert schedule[1] == recipe_name(config)
    if batch := re.search(r'_(\d+)xb(\d+)', path.stem):
        assert config.train_dataloader.batch_size == int(batch[2])
        assert config.auto_scale_lr.base_batch_size == int(batch[1]) * int(batch[2])
    if length := re.search(r'-(\d+)(e|k)_', path.stem):
        epochs = length[2] == 'e' and 'mask2former' not in path.stem  # mmdet counts 50 epochs in iterations
        assert epochs == ('max_epochs' in config.train_cfg)
        if epochs:
            assert config.train_cfg.max_epochs == int(length[1])
        elif length[2] == 'k':
            assert config.train_cfg.max_iters == 1000 * int(length[1])


def check_config(path: Path) -> None:
    config = load(path)
    model, kind = build(config), re.sub('-(640|refine.*|single-scale.*|4scale)$', '', head(path))
    assert type(model).__name__ == HEADS.get(kind, 'ImageClassifier')
    check_name(path, config)
    if path.parent.name in LISTED:
        # onedl-mmdetection encodes DINO's reference points in 4 x 256 channels, mmdet in 2 x 256.
        more = 512 * 256 if ON_FORKS and type(model).__name__ == 'DINO' else 0
        assert metafile(path.parent.name)[path.stem]['Metadata']['Parameters'] + more == count(model)
    if path.parent.name == 'baselines':
        assert type(model.backbone).__name__.startswith('SwinTransformer' if '_swin-t_' in path.stem else 'ResNet')
        return
    assert 'deformable_vit' in config.custom_imports['imports']
    channels = list(model.backbone.out_channels)
    assert feature_channels(config) == (channels[-1:] if config.default_scope == 'mmpretrain' else channels)
    if path.parent.name == 'own_data':
        return
    arch = config.model.backbone.arch
    if path.parent.name == 'demo':
        name = path.stem.removesuffix('_shapes').split('_')[-1]
        assert type(model.backbone).__name__ == BACKBONES[name]
        assert (arch if isinstance(arch, str) else arch.like) == ('test++' if name == 'dat-pp' else 'test')
        assert count(model) < 6e6
        return
    assert type(model.backbone).__name__ == BACKBONES[family(path)]
    if ablation := re.search(r'dat-tiny-d(\d+)_', path.stem):
        assert arch['like'] == 'tiny'
        assert ''.join(str(i + 1) for i, blocks in enumerate(arch['blocks']) if 'D' in blocks) == ablation[1]
        return
    assert arch == arch_of(path)
    if kind != 'in1k':
        weights = find_official(config.model.backbone.init_cfg.checkpoint.removeprefix('official://'))
        assert (weights.backbone, weights.arch, weights.data) == (BACKBONES[family(path)], arch, 'ImageNet-1k')


@pytest.mark.slow
@pytest.mark.parametrize('name', [*MODELS, 'baselines', 'demo', 'own_data'])
def test_configs_build_the_model_of_their_name(name: str) -> None:
    failures = {}
    for path in of_family(name):
        try:
            check_config(path)
        except Exception as error:
            failures[path.stem] = repr(error)
    assert not failures, '\n'.join(f'{stem}: {error}' for stem, error in failures.items())


def test_every_config_and_no_other_is_listed() -> None:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == [f'configs/{name}/metafile.yml' for name in LISTED]
    for name in LISTED:
        listed = {stem: model['Config'] for stem, model in metafile(name).items()}
        assert listed == {p.stem: str(p.relative_to(ROOT)) for p in CONFIGS if p.parent.name == name}


@pytest.mark.nightly
def test_pages_are_up_to_date() -> None:
    pages = runpy.run_path(str(ROOT / 'tools' / 'dev' / 'results_pages.py'))['pages']()
    assert [page for page, text in pages.items() if text != page.read_text()] == [], 'run tools/dev/results_pages.py'
