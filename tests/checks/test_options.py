"""``--cfg-options``: what users of mmdet, mmseg and mmpretrain pass is accepted; what nothing reads is named."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from running import ROOT

from deformable_vit.apis.command_line import add_config_options
from deformable_vit.apis.config import load_config
from deformable_vit.checks import check_options
from deformable_vit.errors import UserError

SEGMENTOR = str(ROOT / 'configs' / 'pvt' / 'fpn_pvt-t_8xb4-40k_ade20k-512x512.py')
DEMO = str(ROOT / 'configs' / 'demo' / 'mask-rcnn_dat_shapes.py')  # its pipelines are not made from train_pipeline
DETECTOR = str(ROOT / 'configs' / 'pvt' / 'mask-rcnn_pvt-t_fpn_1x_coco.py')
CLASSIFIER = str(ROOT / 'configs' / 'dat' / 'dat-tiny_8xb128_in1k.py')


def parsed(*options: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def message(config: str, *options: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(config, parsed(*options))
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_unknown_keys_are_named(tmp_path: Path) -> None:
    assert message(SEGMENTOR, 'modle.backbone.with_cp=True') == (
        "--cfg-options: unknown key 'modle'; did you mean 'model'?"
    )
    assert message(SEGMENTOR, 'my_key=1').startswith("--cfg-options: unknown key 'my_key'")
    for key, close in (
        ('default_hooks.checkpoint.intervall', 'interval'),  # mmengine fails at the first checkpoint
        ('model.backbone.with_cpp', 'with_cp'),
        ('optim_wrapper.optimizr.lr', 'optimizer'),
        ('train_cfg.max_epoch', 'max_epochs'),
        ('param_scheduler.0.ennd', 'end'),
        ('model.roi_head.bbox_head.num_class', 'num_classes'),
        ('train_dataloader.dataset.ann_fil', 'ann_file'),
    ):
        wrong = key.split('.')[-2 if key.endswith('.lr') else -1]
        assert message(DETECTOR, f'{key}=3').endswith(f': unknown key {wrong!r}; did you mean {close!r}?')
    assert "there is no optimizer 'AdamX'" in message(DETECTOR, 'optim_wrapper.optimizer.type=AdamX')
    # In a file, too, which may have variables of its own.
    file = tmp_path / 'mine.py'
    file.write_text(f'_base_ = {DETECTOR!r}\ndefault_hooks = dict(checkpoint=dict(save_bestt="auto"))\n')
    assert f"config {file}: default_hooks.checkpoint: unknown key 'save_bestt'" in message(str(file), 'resume=False')
    file.write_text(f'_base_ = {SEGMENTOR!r}\nmy_variable = 3\noptim_wraper = dict(optimizer=dict(lr=1))\n')
    assert "mine.py: unknown key 'optim_wraper'; did you mean 'optim_wrapper'" in message(str(file), 'resume=False')


@pytest.mark.slow
def test_variables_that_nothing_reads_name_the_keys_made_from_them() -> None:
    for config, option, hint in (
        (SEGMENTOR, 'train_pipeline.2.scale=(256,64)', 'set train_dataloader.dataset.pipeline.2.scale'),
        (SEGMENTOR, 'test_pipeline=[]', 'set val_dataloader.dataset.pipeline, test_dataloader.dataset.pipeline'),
        (DEMO, 'train_pipeline=[]', 'set train_dataloader.dataset.pipeline'),
        (SEGMENTOR, 'vis_backends=[]', 'set visualizer.vis_backends'),
        (SEGMENTOR, 'norm_cfg.type=BN', 'set model.decode_head.norm_cfg.type'),
        (SEGMENTOR, 'data_root=x', 'set train_dataloader.dataset.data_root, val_dataloader.dataset.data_root'),
        (SEGMENTOR, 'dataset_type=X', 'set train_dataloader.dataset.type, val_dataloader.dataset.type'),
        (DETECTOR, 'backend_args.backend=petrel', 'and 5 more'),
        (DETECTOR, 'data_preprocessor.pad_size_divisor=64', 'set model.data_preprocessor.pad_size_divisor'),
    ):
        found, variable = message(config, option), option.split('=')[0].split('.')[0]
        assert f'{variable!r} is a variable of {config} that nothing reads' in found
        assert hint in found


def test_dicts_are_refused_with_a_way_to_write_them(tmp_path: Path) -> None:
    for option in (
        "vis_backends=[dict(type='TensorboardVisBackend')]",
        "custom_hooks=[dict(type='EMAHook',momentum=0.001)]",
        "param_scheduler=[{'type':'PolyLR'}]",
    ):
        with pytest.raises(UserError, match=rf'^--cfg-options {option.partition("=")[0]}: dicts cannot be written'):
            parsed(option)
    file = tmp_path / 'mine.py'  # as the message recommends
    file.write_text(f"_base_ = {DETECTOR!r}\ncustom_hooks = [dict(type='EMAHook', momentum=0.001)]\n")
    assert load_config(str(file), {}).custom_hooks == [dict(type='EMAHook', momentum=0.001)]


RUNTIME = """
resume=True load_from=/data/run(1.pth find_unused_parameters=True default_hooks.early_stopping.type=EarlyStoppingHook
randomness.deterministic=True env_cfg.dist_cfg.timeout=100 model_wrapper_cfg.type=MMDistributedDataParallel
sync_bn=torch auto_scale_lr.enable=True default_hooks.checkpoint.save_best=auto default_hooks.timer=None
default_hooks.checkpoint.filename_tmpl=epoch_{}.pth visualizer.vis_backends.0.type=TensorboardVisBackend
train_dataloader.num_batch_per_epoch=5 train_dataloader.sampler.seed=1 train_dataloader.dataset.indices=10
train_dataloader.dataset.metainfo.classes=a,b optim_wrapper.clip_grad.max_norm=1 optim_wrapper.type=AmpOptimWrapper
optim_wrapper.dtype=bfloat16 optim_wrapper.optimizer.type=SGD optim_wrapper.optimizer.fused=True
optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0.1 param_scheduler.0.convert_to_iter_based=True
train_cfg.dynamic_intervals=[(3,1)] model.backbone.with_cp=True model.backbone.init_cfg.prefix=backbone.
"""
OWN = {
    DETECTOR: 'model.neck.add_extra_convs=on_input model.test_cfg.rcnn.nms.min_score=0.05 val_evaluator.classwise=True '
    'model.roi_head.bbox_head.loss_bbox.type=GIoULoss train_dataloader.dataset.filter_cfg.min_size=0',
    SEGMENTOR: 'model.test_cfg.mode=slide model.decode_head.sampler.type=OHEMPixelSampler val_evaluator.output_dir=a '
    'model.decode_head.loss_decode.class_weight=[1,2] train_dataloader.dataset.reduce_zero_label=False',
    CLASSIFIER: 'model.head.loss.label_smooth_val=0.2 data_preprocessor.to_rgb=False val_evaluator.topk=(1,5)',
}


def test_options_of_users_are_accepted() -> None:
    for config, options in OWN.items():
        before = Config.fromfile(config)
        for option in (RUNTIME + options).split():
            check_options(parsed(option), before, config)


def test_what_a_class_takes_in_other_ways_is_accepted(tmp_path: Path) -> None:
    # A new type brings its keys; a decorated constructor takes older names; types may be classes.
    step = 'train_dataloader.dataset.pipeline.2'
    check_options(
        parsed(f'{step}.type=RandomChoiceResize', f'{step}.scales=[(512,512)]'), Config.fromfile(SEGMENTOR), SEGMENTOR
    )
    deformable = dict(type='DCNv2', deformable_groups=1)
    optimizer = dict(type=torch.optim.AdamW, lr=0.1)
    config = Config(dict(default_scope='mmdet', model=deformable, optim_wrapper=dict(optimizer=optimizer)))
    check_options({'optim_wrapper.optimizer.weight_decay': 0.1}, config, 'mine.py')
    with pytest.raises(UserError, match="unknown key 'weigth_decay'; did you mean 'weight_decay'"):
        check_options({'optim_wrapper.optimizer.weigth_decay': 0.1}, config, 'mine.py')
