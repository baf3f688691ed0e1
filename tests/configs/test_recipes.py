"""What the official recipes say beyond the table of test_official_recipes.py."""

import math

import mmengine.optim
import pytest
import torch
from config_files import CONFIGS, build, family, head, load, smallest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from running import ROOT

COCO = [p for p in CONFIGS if p.stem.endswith('_coco') and p.parent.name in ('pvt', 'pvtv2', 'dpt', 'dat')]
RCNN = [p for p in COCO if head(p).split('-640')[0] in ('retinanet', 'mask-rcnn', 'cascade-mask-rcnn')]
# PVT v2 trains over 36 epochs as Swin Transformer does.
SWIN_RECIPE = [p for p in RCNN if '-crop-' in p.stem]
TABLES = ('rpe_table', 'relative_position_bias_table')


def optimizer_settings(config: Config) -> dict[str, tuple[float, float]]:
    """Return the learning rate and the weight decay of each parameter in the built optimizer."""
    model = build(config)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    settings = {id(p): (group['lr'], group['weight_decay']) for group in groups for p in group['params']}
    return {name: settings[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def test_pvt_and_dpt_have_the_neck_of_their_detectors() -> None:
    for path in set(RCNN) - set(SWIN_RECIPE):
        config = load(path)
        neck = config.model.neck
        if head(path).startswith('retinanet'):
            assert (neck.start_level, neck.add_extra_convs, neck.num_outs) == (1, 'on_input', 5), path.stem
        else:
            settings = neck.get('start_level', 0), neck.get('add_extra_convs', False), neck.num_outs
            assert settings == (0, False, 5), path.stem
            annotations = config.train_dataloader.dataset.pipeline[1]
            assert annotations.get('poly2mask', True) == ('_ms-3x_' not in path.stem), path.stem  # mstrain-poly


@pytest.mark.slow
def test_norms_and_position_tables_have_no_weight_decay() -> None:
    for path in SWIN_RECIPE:
        annotations = load(path).train_dataloader.dataset.pipeline[1]
        assert annotations.get('with_mask', False) == (head(path) != 'retinanet'), path.stem
    for path in smallest(SWIN_RECIPE).values():
        every_norm = ('.bn.weight', '.bn.bias') if family(path) == 'dat++' else ()
        for name, (_, decay) in optimizer_settings(load(path)).items():
            exempt = any(part in name for part in ('norm', *TABLES, *every_norm))
            assert decay == (0.0 if exempt else 0.05), f'{path.stem}: {name}'
    for path in smallest([p for p in CONFIGS if p.parent.name == 'dat' and '_ade20k-' in p.stem]).values():
        config = load(path)
        for name, (_, decay) in optimizer_settings(config).items():
            if 'rpe_table' in name or 'norms.' in name or name.endswith('proj.weight'):
                expected = config.optim_wrapper.optimizer.weight_decay if name.endswith('proj.weight') else 0.0
                assert decay == expected, f'{path.stem}: {name}'


@pytest.mark.slow
def test_detr_and_its_variants_follow_their_papers_on_coco() -> None:
    for path in COCO:
        kind, config = head(path), load(path)
        if 'detr' not in kind and 'dino' not in kind:
            continue
        settings = config.optim_wrapper.optimizer
        lr = 2e-4 if kind.startswith('deformable') else 1e-4
        assert (settings.type, settings.lr, settings.weight_decay) == ('AdamW', lr, 1e-4), path.stem
        assert config.optim_wrapper.clip_grad.max_norm == 0.1, path.stem
        epochs, milestone = {'detr': (50, 33), 'dino-4scale': (12, 11)}.get(kind, (50, 40))
        schedule = config.train_cfg.max_epochs, config.param_scheduler[-1].milestones
        assert schedule == (epochs, [milestone]), path.stem
        slow = ['backbone', *(['sampling_offsets', 'reference_points'] if kind.startswith('deformable') else [])]
        rates = {k: v.lr_mult for k, v in config.optim_wrapper.paramwise_cfg.custom_keys.items()}
        assert rates == dict.fromkeys(slow, 0.1), path.stem
        single = kind == 'detr' or 'single-scale' in kind
        assert config.model.backbone.out_indices == ((3,) if single else (1, 2, 3)), path.stem
        assert config.model.neck.num_outs == (1 if single else 4), path.stem
        forms = config.model.get('with_box_refine', False), config.model.get('as_two_stage', False)
        assert forms == ('-refine' in kind or 'dino' in kind, 'twostage' in kind or 'dino' in kind), path.stem


def test_detr_matches_boxes_as_the_official_config() -> None:
    """PVT's config sets the format, DPT's has the default of mmdet 2.8, on which it ran."""
    for name, box_format in (('pvt/detr_pvt-s', 'xywh'), ('dpt/detr_dpt-s', 'xyxy')):
        config = load(ROOT / 'configs' / f'{name}_8xb2-50e_coco.py')
        costs = {cost.type: cost for cost in config.model.train_cfg.assigner.match_costs}
        weights = {k: v.weight for k, v in costs.items()}
        assert weights == {'ClassificationCost': 1.0, 'BBoxL1Cost': 5.0, 'IoUCost': 2.0}
        assert costs['BBoxL1Cost'].box_format == box_format


def test_segmentors_follow_pvt_and_swin_on_ade20k() -> None:
    for path in CONFIGS:
        if not path.stem.startswith(('fpn_', 'upernet_')) or '_ade20k-' not in path.stem:
            continue
        config = load(path)
        pipeline = {t.type: t for t in config.train_dataloader.dataset.pipeline}
        assert pipeline['LoadAnnotations'].reduce_zero_label, path.stem
        assert 'PhotoMetricDistortion' in pipeline, path.stem
        assert config.model.decode_head.num_classes == 150, path.stem
        if path.stem.startswith('fpn_') and path.parent.name != 'dat':  # the official DAT code neither resizes nor pads
            assert config.model.data_preprocessor.test_cfg.size_divisor == 32, path.stem
        # --tta: six multiples of the single-scale test size, each also flipped.
        scales, flips = config.tta_pipeline[1].transforms[:2]
        ratios = [s.scale[1] / 512 for s in scales if s.type == 'Resize' and s.scale[0] == 4 * s.scale[1]]
        assert ratios == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75], path.stem
        assert [flip.prob for flip in flips] == [0.0, 1.0], path.stem


def test_classifiers_follow_deit_on_imagenet() -> None:
    classifiers = [p for p in CONFIGS if '_in1k' in p.stem]
    for path in classifiers:
        config = load(path)
        sampler = 'DefaultSampler' if path.parent.name == 'dat' else 'RepeatAugSampler'
        assert config.train_dataloader.sampler.type == sampler, path.stem
        if path.stem.endswith('-384px'):
            assert config.load_from == f'official://{path.stem.split("_")[0]}_in1k'
        transforms = {t.type: t for t in config.train_dataloader.dataset.pipeline}
        assert transforms['RandAugment'].magnitude_level == 9, path.stem
        assert transforms['RandAugment'].magnitude_std == 0.5, path.stem
        assert transforms['RandomErasing'].erase_prob == 0.25, path.stem
        augments = [(a.type, a.alpha) for a in config.model.train_cfg.augments]
        assert augments == [('Mixup', 0.8), ('CutMix', 1.0)], path.stem
        assert config.model.head.loss.label_smooth_val == 0.1, path.stem
    # Weight decay applies to matrices, kernels and position embeddings; not to norms, biases, class token and tables.
    for path in smallest(classifiers).values():
        config = load(path)
        dims = {name: p.ndim for name, p in build(config).named_parameters()}
        for name, (_, decay) in optimizer_settings(config).items():
            exempt = dims[name] == 1 or any(part in name for part in ('cls_token', *TABLES))
            assert decay == (0.0 if exempt else config.optim_wrapper.optimizer.weight_decay), f'{path.stem}: {name}'


@pytest.mark.slow
def test_mask2former_trains_the_backbone_as_a_swin_transformer() -> None:
    """A tenth of the learning rate; no weight decay for norms, embeddings, queries and position bias tables."""
    exempt = ('norm', '.gn.', 'pos_embed', 'query_embed', 'query_feat', 'level_embed', *TABLES)
    for path in smallest(
        [p for p in CONFIGS if head(p).startswith('mask2former') and p.parent.name != 'demo']
    ).values():
        for name, (lr, decay) in optimizer_settings(load(path)).items():
            assert lr == pytest.approx(1e-5 if name.startswith('backbone.') else 1e-4), f'{path.stem}: {name}'
            assert decay == (0.0 if any(part in name for part in exempt) else 0.05), f'{path.stem}: {name}'


def test_learning_rate_decays_with_depth() -> None:
    """DAT-T has 2, 2, 6 and 2 blocks; the depths are 0 to 13."""
    config = load(ROOT / 'configs' / 'own_data' / 'classification_dat_layer-decay.py')
    settings, lr = optimizer_settings(config), config.optim_wrapper.optimizer.lr
    for name, depth in (
        ('backbone.stages.0.patch_embed.proj.weight', 0),
        ('backbone.stages.0.blocks.0.attn.qkv.weight', 1),
        ('backbone.stages.1.patch_embed.proj.weight', 2),
        ('backbone.stages.2.blocks.5.attn.rpe_table', 10),
        ('backbone.stages.3.blocks.1.mlp.fc2.bias', 12),
        ('backbone.norms.3.weight', 13),
        ('head.fc.weight', 13),
    ):
        decay = 0.0 if name.endswith(('bias', 'table', 'norms.3.weight')) else 0.05
        assert settings[name] == (pytest.approx(lr * 0.8 ** (13 - depth)), decay), name


def test_learning_rate_after_warm_up_is_that_of_timm() -> None:
    """The cosine of timm covers all 300 epochs, also those of the warm-up."""
    for name in ('pvt/pvt-tiny', 'dat/dat-tiny', 'dat/dat-base'):
        config = load(ROOT / 'configs' / f'{name}_8xb128_in1k.py')
        highest, epoch = config.optim_wrapper.optimizer.lr, 4  # iterations
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=highest)
        schedulers = []
        for settings in config.param_scheduler:
            kind = getattr(mmengine.optim, settings.pop('type'))
            settings.pop('convert_to_iter_based', None)
            schedulers.append(kind.build_iter_from_epoch(optimizer, **{'end': 300, **settings}, epoch_length=epoch))
        for i in range(300 * epoch):
            if i > schedulers[0].end:
                official = 1e-5 + (highest - 1e-5) * (1 + math.cos(math.pi * i / (300 * epoch))) / 2
                assert optimizer.param_groups[0]['lr'] == pytest.approx(official, abs=1e-3 * highest), name
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
