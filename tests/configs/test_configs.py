"""Every config builds the model of its name."""

import re
from pathlib import Path

import pytest
from config_files import CONFIGS, build, count, family, head, load, metafile, slow_but_smallest
from golden import official_parameters
from mmengine.config.utils import MODULE2PACKAGE
from running import ROOT

from deformable_vit.checks import check_options
from deformable_vit.engine.guard import take_policy

PUBLISHED = official_parameters()
ON_FORKS = MODULE2PACKAGE['mmseg'] == 'mmseg'  # importing deformable_vit says so
HEADS = {
    'retinanet': 'RetinaNet',
    'retinanet-640': 'RetinaNet',
    'mask-rcnn': 'MaskRCNN',
    'cascade-mask-rcnn': 'CascadeRCNN',
    'detr': 'DETR',
    'deformable-detr': 'DeformableDETR',
    'deformable-detr-refine': 'DeformableDETR',
    'deformable-detr-refine-twostage': 'DeformableDETR',
    'dino-4scale': 'DINO',
    'dino': 'DINO',
    'deformable-detr-single-scale': 'DeformableDETR',
    'deformable-detr-single-scale-dc5': 'DeformableDETR',
    'atss': 'ATSS',
    'gfl': 'GFL',
    'sparse-rcnn': 'SparseRCNN',
    'mask2former': 'Mask2Former',
    'mask2former-semantic': 'EncoderDecoder',
    'fpn': 'EncoderDecoder',
    'upernet': 'EncoderDecoder',
    'in1k': 'ImageClassifier',
}
OWN_DATA = {
    'classification': 'ImageClassifier',
    'detection': 'RetinaNet',
    'voc': 'RetinaNet',
    'instance_segmentation': 'MaskRCNN',
    'segmentation': 'EncoderDecoder',
    'cityscapes': 'EncoderDecoder',
}
BACKBONES = {'pvt': 'PVT', 'pvtv2': 'PVTv2', 'dpt': 'DPT', 'dat': 'DAT', 'dat++': 'DAT'}
ARCHS = {'t': 'tiny', 's': 'small', 'm': 'medium', 'l': 'large', 'b': 'base'}
# Parameters in M, as published in the papers, the official repositories and mmdet's model zoo.
PARAMETERS = {
    'retinanet': {
        'pvt-t': 23.0,
        'pvt-s': 34.2,
        'pvt-m': 53.9,
        'pvt-l': 71.1,
        'pvtv2-b0': 13.0,
        'pvtv2-b1': 23.8,
        'pvtv2-b2-li': 32.3,
        'pvtv2-b2': 35.1,
        'pvtv2-b3': 55.0,
        'pvtv2-b4': 72.3,
        'pvtv2-b5': 91.7,
        'dpt-t': 24.9,
        'dpt-s': 36.1,
        'dpt-m': 55.9,
    },
    'mask-rcnn': {'dpt-t': 34.8, 'dpt-s': 46.1, 'dpt-m': 65.8},
    'upernet': {'dat-t': 60, 'dat-s': 81, 'dat-b': 121},
    'cascade-mask-rcnn': {'dat-t': 86, 'dat-s': 107, 'dat-b': 145},
}


def model_name(path: Path) -> str:
    """Return ``pvtv2-b2-li`` or ``dat-t-pp``."""
    return re.search(r'(?:pvtv2|pvt|dpt|dat)-(?:b\d(?:-li)?|[a-z]+)(?:-pp?)?(?=_|-d)', path.stem)[0]


@pytest.mark.parametrize('path', slow_but_smallest(CONFIGS))
def test_config_builds_the_model_of_its_name(path: Path) -> None:
    config = load(path)
    take_policy(config)
    check_options({}, config, str(path))
    model = build(config)
    kind = head(path)
    assert config.auto_scale_lr.base_batch_size > 0
    if path.parent.name == 'own_data':
        assert type(model).__name__ == OWN_DATA[path.stem]
    else:
        assert type(model).__name__ == HEADS.get(kind, 'ImageClassifier')
    if path.parent.name not in ('demo', 'own_data'):
        (listed,) = [m for m in metafile(path.parent.name)['Models'] if m['Name'] == path.stem]
        # onedl-mmdetection encodes DINO's reference points in 4 x 256 channels, mmdet in 2 x 256.
        more = 512 * 256 if ON_FORKS and type(model).__name__ == 'DINO' else 0
        assert listed['Metadata']['Parameters'] + more == count(model)
    if path.parent.name == 'baselines':
        assert type(model.backbone).__name__ in (
            ('SwinTransformer',) if '_swin-t_' in path.stem else ('ResNet', 'ResNetV1c')
        )
        return
    assert 'deformable_vit' in config.custom_imports['imports']
    if path.parent.name == 'own_data':
        return
    if path.parent.name == 'demo':
        name = path.stem.removesuffix('_shapes').split('_')[-1].replace('datpp', 'dat++')
        assert type(model.backbone).__name__ == BACKBONES[name]
        assert config.model.backbone.arch.get('like') == {'dat': 'tiny', 'dat++': 'tiny++'}.get(name)
        assert count(model) < 6e6
        return

    arch = config.model.backbone.arch
    assert type(model.backbone).__name__ == BACKBONES[family(path)]
    if isinstance(arch, dict):  # the ablation; test_flops.py checks its FLOPs
        assert (arch['like'], re.search(r'-d(\d+)_', path.stem)[1]) == ('tiny', _deformable_stages(arch['blocks']))
        return
    name = model_name(path)
    size = name.split('-', 1)[1]
    size, plus = re.fullmatch(r'(.+?)(?:-(pp?))?', size).groups(default='')
    assert arch == ARCHS.get(size, size) + '+' * len(plus)
    if kind == 'in1k':
        _check_classifier(path, config, count(model))
        return
    if name in PARAMETERS.get(kind, {}):
        assert count(model) / 1e6 == pytest.approx(
            PARAMETERS[kind][name], abs=0.06 if kind in ('retinanet', 'mask-rcnn') else 0.6
        )
    _check_weights(family(path), arch, config.model.backbone.init_cfg.checkpoint)
    # The norm of a feature map that no head reads would get no gradient, which stops distributed training.
    if 'norms' in dict(model.backbone.named_children()):
        read = {'retinanet': 3, 'deformable-detr': 3, 'dino-4scale': 3}.get(kind.split('-refine')[0], 4)
        read = 1 if 'single-scale' in kind else read
        assert len(model.backbone.norms) == read


def _check_classifier(path: Path, config, parameters: int) -> None:
    batch = re.search(r'_(\d+)xb(\d+)_', path.stem)
    assert config.train_dataloader.batch_size == int(batch[2])
    assert config.auto_scale_lr.base_batch_size == int(batch[1]) * int(batch[2])
    arch = config.model.backbone.arch.removesuffix('++')
    if arch == 'tiny+':  # no checkpoint is published; test_official_checkpoints.py compares the parameters
        return
    published = f'{family(path).replace("++", "pp")}-{arch}'
    if path.stem == 'dat-base_8xb24_in1k-384px':
        published = 'dat-base-384'
    assert parameters == PUBLISHED[f'{published}_in1k']['num_params']


def _check_weights(family: str, arch: str, checkpoint: str) -> None:
    if family.startswith('pvt'):
        known = f'pvt_{arch}' if family == 'pvt' else f'pvt_v2_{arch.replace("-", "_")}'
        assert checkpoint == f'https://github.com/whai362/PVT/releases/download/v2/{known}.pth'
    else:
        assert checkpoint == f'checkpoints/{family.removesuffix("++")}-{arch.replace("++", "-pp")}_in1k.pth'


def _deformable_stages(blocks: tuple[str, ...]) -> str:
    return ''.join(str(i + 1) for i, pattern in enumerate(blocks) if 'D' in pattern)


SIZES = {
    'pvt': ('t', 's', 'm', 'l'),
    'pvtv2': ('b0', 'b1', 'b2', 'b2-li', 'b3', 'b4', 'b5'),
    'dpt': ('t', 's', 'm'),
    'dat': ('t', 's', 't-pp', 's-pp'),
}
DETR_SIZES = {'pvt': ('t', 's'), 'pvtv2': ('b1', 'b2'), 'dpt': ('t', 's'), 'dat': ('t', 's', 't-pp', 's-pp')}


def test_every_combination_of_the_papers_has_a_config() -> None:
    names = {p.stem for p in CONFIGS}
    wanted = {
        *(
            f'{h}_{f}-{s}_fpn_{e}_coco'
            for f, sizes in SIZES.items()
            for s in sizes
            for h in ('retinanet', 'mask-rcnn')
            for e in ('1x', 'ms-3x')
        ),
        *(f'cascade-mask-rcnn_dat-{s}_fpn_ms-3x_coco' for s in ('t', 's', 'b', 't-pp', 's-pp', 'b-pp')),
        *(f'cascade-mask-rcnn_pvtv2-{s}_fpn_ms-3x_coco' for s in ('b2', 'b2-li')),
        'cascade-mask-rcnn_dat-t-pp_fpn_1x_coco',
        'retinanet-640_pvt-s_fpn_1x_coco',
        *(f'detr_{f}-s_8xb2-50e_coco' for f in ('pvt', 'dpt')),
        *(
            f'deformable-detr{form}_{f}-{s}_16xb2-50e_coco'
            for f, sizes in DETR_SIZES.items()
            for s in sizes
            for form in ('', '-refine', '-refine-twostage')
        ),
        *(
            f'deformable-detr-single-scale{form}_{f}-{s}_16xb2-50e_coco'
            for f, sizes in DETR_SIZES.items()
            if f != 'pvt'
            for s in sizes
            for form in ('', '-dc5')
        ),
        *(f'dino-4scale_dat-{s}_8xb2-12e_coco' for s in ('t-pp', 's-pp')),
        *(f'{h}_pvtv2-{s}_fpn_ms-3x_coco' for s in ('b2', 'b2-li') for h in ('atss', 'gfl', 'sparse-rcnn')),
        *(
            f'mask2former_{f}-{s}_8xb2-{data}'
            for f, sizes in DETR_SIZES.items()
            if f != 'pvt'
            for s in sizes
            for data in ('lsj-50e_coco', '160k_ade20k-512x512')
        ),
        'dat-tiny-p_8xb128_in1k',
        *(f'fpn_{f}-{s}_8xb4-40k_ade20k-512x512' for f, sizes in SIZES.items() for s in sizes),
        *(
            f'{h}_ade20k-512x512'
            for s in ('b', 'b-pp')
            for h in (f'fpn_dat-{s}_8xb4-40k', f'upernet_dat-{s}_8xb2-160k')
        ),
        *(f'upernet_dat-{s}_8xb2-160k_ade20k-512x512' for s in ('t', 's', 't-pp', 's-pp')),
        *(f'dat-base{pp}_8xb24_in1k-384px' for pp in ('', '-pp')),
    }
    assert not wanted - names
    for model in PUBLISHED:
        family, arch = model.split('_')[0].split('-', 1)
        name = f'dat-{arch}-pp' if family == 'datpp' else f'{family}-{arch}'
        assert arch == 'base-384' or any(re.fullmatch(rf'{name}_\d+xb\d+_in1k', n) for n in names), model


def names(config: str) -> set[str]:
    return {name for name, _ in build(load(ROOT / 'configs' / config)).named_parameters()}


def test_detectors_have_the_parameters_of_official_checkpoints() -> None:
    """The parameters beyond mmdet's own models, according to the official configs."""
    assert 'neck.fpn_convs.4.conv.weight' in names('dat/mask-rcnn_dat-t-pp_fpn_ms-3x_coco.py')
    assert 'neck.fpn_convs.4.conv.weight' not in names('pvtv2/mask-rcnn_pvtv2-b2_fpn_1x_coco.py')
    for config in (
        'dat/cascade-mask-rcnn_dat-t-pp_fpn_ms-3x_coco.py',
        'pvtv2/cascade-mask-rcnn_pvtv2-b2_fpn_ms-3x_coco.py',
    ):
        found = names(config)
        assert {f'roi_head.bbox_head.{i}.shared_convs.3.bn.weight' for i in range(3)} <= found
        assert 'roi_head.bbox_head.0.shared_fcs.1.weight' not in found
        assert 'neck.fpn_convs.4.conv.weight' not in found
