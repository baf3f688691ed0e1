"""``--cfg-options``: what users of mmdet, mmseg and mmpretrain pass is accepted, also keys that the config lacks."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from running import ROOT
from test_options import DETECTOR, SEGMENTOR, message, parsed

from deformable_vit.engine import load_config
from deformable_vit.engine.options import check_option, check_spelling

CLASSIFIER = str(ROOT / 'configs' / 'dat' / 'dat-tiny_8xb128_in1k.py')
RUNTIME = """
resume=True load_from=/data/run(1.pth log_level=DEBUG experiment_name=a compile=True find_unused_parameters=True
default_hooks.early_stopping.type=EarlyStoppingHook default_hooks.early_stopping.monitor=coco/bbox_mAP
randomness.seed=1 randomness.deterministic=True randomness.diff_rank_seed=True env_cfg.cudnn_benchmark=True
env_cfg.dist_cfg.backend=gloo env_cfg.dist_cfg.timeout=100 env_cfg.mp_cfg.opencv_num_threads=1
env_cfg.resource_limit=8192 model_wrapper_cfg.type=MMDistributedDataParallel sync_bn=torch auto_scale_lr.enable=True
auto_scale_lr.base_batch_size=16 default_hooks.checkpoint.save_best=auto default_hooks.checkpoint.max_keep_ckpts=3
default_hooks.checkpoint.rule=greater default_hooks.checkpoint.save_last=False default_hooks.checkpoint.save_begin=5
default_hooks.checkpoint.out_dir=a default_hooks.checkpoint.save_optimizer=False
default_hooks.checkpoint.published_keys=[meta,state_dict] default_hooks.logger.log_metric_by_epoch=False
default_hooks.logger.out_suffix=.log default_hooks.timer=None visualizer.save_dir=a
visualizer.vis_backends.0.type=TensorboardVisBackend visualizer.vis_backends.0.save_dir=a log_processor.window_size=10
log_processor.num_digits=5 log_processor.log_with_hierarchy=True train_dataloader.batch_size=1
train_dataloader.pin_memory=True train_dataloader.prefetch_factor=2 train_dataloader.drop_last=True
train_dataloader.num_batch_per_epoch=5 train_dataloader.sampler.type=InfiniteSampler train_dataloader.sampler.seed=1
train_dataloader.sampler.round_up=False train_dataloader.collate_fn.type=default_collate
train_dataloader.dataset.indices=10 train_dataloader.dataset.test_mode=True train_dataloader.dataset.lazy_init=True
train_dataloader.dataset.serialize_data=False train_dataloader.dataset.max_refetch=10
train_dataloader.dataset.metainfo.classes=a,b optim_wrapper.accumulative_counts=4 optim_wrapper.clip_grad.max_norm=1
optim_wrapper.clip_grad.norm_type=2 optim_wrapper.type=AmpOptimWrapper optim_wrapper.loss_scale=dynamic
optim_wrapper.dtype=bfloat16 optim_wrapper.optimizer.type=SGD optim_wrapper.optimizer.momentum=0.9
optim_wrapper.optimizer.nesterov=True optim_wrapper.optimizer.fused=True optim_wrapper.optimizer.foreach=True
optim_wrapper.optimizer.eps=1e-6 optim_wrapper.paramwise_cfg.bias_lr_mult=0
optim_wrapper.paramwise_cfg.bias_decay_mult=0 optim_wrapper.paramwise_cfg.norm_decay_mult=0
optim_wrapper.paramwise_cfg.flat_decay_mult=0 optim_wrapper.paramwise_cfg.dwconv_decay_mult=0
optim_wrapper.paramwise_cfg.decay_rate=0 optim_wrapper.paramwise_cfg.decay_type=layer_wise
optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0.1 param_scheduler.0.end=500
param_scheduler.0.end_factor=0.9 param_scheduler.0.convert_to_iter_based=True param_scheduler.0.verbose=True
param_scheduler.0.type=CosineAnnealingLR param_scheduler.0.T_max=5 param_scheduler.0.eta_min_ratio=0.01
train_cfg.val_begin=1 train_cfg.dynamic_intervals=[(3,1)] val_cfg.fp16=True val_evaluator.collect_device=gpu
val_evaluator.prefix=a test_evaluator.collect_dir=a model.backbone.with_cp=True model.backbone.drop_path_rate=0.3
model.backbone.out_indices=(0,1,2,3) model.backbone.init_cfg=None model.backbone.init_cfg.prefix=backbone.
model.backbone.frozen_stages=1
"""
DETECTION = """
data_preprocessor.pad_size_divisor=64 model.data_preprocessor.pad_size_divisor=64
model.data_preprocessor.pad_mask=True model.data_preprocessor.pad_seg=True model.data_preprocessor.rgb_to_bgr=True
model.neck.add_extra_convs=on_input model.test_cfg.rcnn.nms.type=soft_nms model.test_cfg.rcnn.nms.min_score=0.05
model.test_cfg.rcnn.mask_thr_binary=0.4 model.train_cfg.rpn.sampler.num=128
model.train_cfg.rcnn.sampler.pos_fraction=0.5 model.roi_head.bbox_head.num_classes=5
model.roi_head.bbox_head.reg_decoded_bbox=True model.roi_head.bbox_head.loss_bbox.type=GIoULoss
model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio=2 model.rpn_head.anchor_generator.scales=[4]
train_dataloader.dataset.filter_cfg.min_size=0 train_dataloader.dataset.pipeline.2.keep_ratio=True
train_dataloader.dataset.pipeline.2.interpolation=bicubic val_evaluator.classwise=True val_evaluator.format_only=True
val_evaluator.proposal_nums=(100,300,1000) test_evaluator.outfile_prefix=a tta_model.tta_cfg.max_per_img=100
"""
SEGMENTATION = """
model.data_preprocessor.size=(512,512) model.data_preprocessor.size_divisor=32 model.test_cfg.mode=slide
model.test_cfg.crop_size=(512,512) model.test_cfg.stride=(341,341) model.decode_head.loss_decode.class_weight=[1,2]
model.decode_head.ignore_index=0 model.decode_head.sampler.type=OHEMPixelSampler model.decode_head.threshold=0.5
train_dataloader.dataset.reduce_zero_label=False train_dataloader.dataset.img_suffix=.png val_evaluator.output_dir=a
val_evaluator.nan_to_num=0 train_dataloader.dataset.pipeline.2.ratio_range=(0.5,2.0)
"""
CLASSIFICATION = """
model.head.loss.label_smooth_val=0.2 model.head.topk=(1,5) model.train_cfg.augments.0.alpha=0.5
data_preprocessor.to_rgb=False data_preprocessor.num_classes=3 val_evaluator.topk=(1,5)
train_dataloader.dataset.split=val train_dataloader.dataset.pipeline.1.backend=cv2 model.head.cal_acc=True
"""


@pytest.mark.parametrize(
    ('config', 'options'),
    [(DETECTOR, DETECTION), (SEGMENTOR, SEGMENTATION), (CLASSIFIER, CLASSIFICATION)],
    ids=['mmdet', 'mmseg', 'mmpretrain'],
)
def test_options_of_users_are_accepted(config: str, options: str) -> None:
    before = load_config(config, {})
    for option in (RUNTIME + options).split():
        if config == DETECTOR and option.startswith('data_preprocessor.'):  # the error names what to set
            assert f'set model.{option.partition("=")[0]}' in message(config, option)
            continue
        after, options_of_one = copy.deepcopy(before), parsed(option)
        for key, value in options_of_one.items():
            check_option(key, value, before, config)
        after.merge_from_dict(options_of_one)
        check_spelling(options_of_one, before, after)


def test_a_new_type_brings_its_keys() -> None:
    step = 'train_dataloader.dataset.pipeline.2'
    assert "unknown key 'scales'; did you mean 'scale'?" in message(SEGMENTOR, f'{step}.scales=[(512,512)]')
    config = load_config(SEGMENTOR, parsed(f'{step}.type=RandomChoiceResize', f'{step}.scales=[(512,512)]'))
    assert config.train_dataloader.dataset.pipeline[2].scales == [(512, 512)]


def test_types_may_be_classes(tmp_path: Path) -> None:
    file = tmp_path / 'config.py'
    Config(dict(default_scope='mmdet', model=dict(type='RetinaNet'), optim_wrapper=dict(optimizer=dict()))).dump(file)
    text = file.read_text().replace('optimizer=dict()', 'optimizer=dict(type=torch.optim.AdamW, lr=0.1)')
    file.write_text(f'import torch\n{text}')
    config = load_config(str(file), parsed('optim_wrapper.optimizer.weight_decay=0.1'))
    assert config.optim_wrapper.optimizer.type is torch.optim.AdamW
    assert 'did you mean' in message(str(file), 'optim_wrapper.optimizer.lrr=1')


def test_a_config_without_scope_is_named(tmp_path: Path) -> None:
    file = tmp_path / 'config.py'
    file.write_text("model = dict(type='RetinaNet', backbone=dict(type='PVT'))")
    assert "has no 'default_scope'" in message(str(file), 'model.backbone.with_cp=True')
    config = load_config(str(file), parsed('default_scope=mmdet', 'model.backbone.with_cp=True'))
    assert config.model.backbone.with_cp
    file.write_text(file.read_text() + "\ndefault_scope = 'mmpose'")
    assert "default_scope 'mmpose' is not" in message(str(file), 'model.backbone.with_cp=True')
