"""Slips of users: each is found before the first iteration, and is one line that names the value."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deformable_vit.engine import UserError, add_show, load_config
from deformable_vit.engine.guard import Policy, take_policy

CKPT = 'default_hooks.checkpoint'
GUARD = 'default_hooks.guard'
OPTIM = 'optim_wrapper'
# An option, and words of the line. All in one process; what is found before anything is built takes no time.
SLIPS = [
    ('model.backbone.with_cp', ['is not KEY=VALUE']),
    ('=3', ['is not KEY=VALUE']),
    ('train_dataloader.batch_size=(4', ['unbalanced brackets']),
    ('optim_wraper.optimizer.lr=1', ["unknown key 'optim_wraper'", "did you mean 'optim_wrapper'"]),
    ('max_epochs=3', ["'max_epochs' is a variable", 'train_cfg.max_epochs']),
    # hooks
    (f'{CKPT}.intervall=1', [f'{CKPT}.intervall: unknown key', "did you mean 'interval'"]),  # codespell:ignore
    (f'{CKPT}.interval=0', [f'{CKPT}.interval', 'at least 1, got 0']),
    (f'{CKPT}.interval=x', [f'{CKPT}.interval', "got 'x'"]),
    (f'{CKPT}.interval=0.5', [f'{CKPT}.interval', 'got 0.5']),
    (f'{CKPT}.max_keep_ckpts=0', [f'{CKPT}.max_keep_ckpts', 'got 0']),
    (f'{CKPT}.max_keep=3', [f'{CKPT}: nothing reads', "'max_keep'"]),
    (f'{CKPT}.save_best=coco/bbox_map', ["no metric 'coco/bbox_map'", "did you mean 'coco/bbox_mAP'"]),
    (f'{CKPT}.save_best=mIoU', ["no metric 'mIoU'"]),
    (f'{CKPT}.save_optimiser=False', ["did you mean 'save_optimizer'"]),  # codespell:ignore
    ('default_hooks.logger.interval=0', ['default_hooks.logger.interval', 'got 0']),
    ('default_hooks.logger.intervall=5', ["'intervall'"]),  # codespell:ignore
    ('default_hooks.chekpoint.interval=1', ["unknown key 'chekpoint'; did you mean 'checkpoint'?"]),  # codespell:ignore
    ('default_hooks.checkpoint=1', ['default_hooks.checkpoint must be a dict']),
    ('default_hooks.timer.type=Timer', ["default_hooks.timer.type: there is no 'Timer'"]),
    (f'{GUARD}.on_bad_samples=skip', [f'{GUARD}: unknown key', "did you mean 'on_bad_sample'"]),
    (f'{GUARD}.on_bad_sample=ignore', ["must be 'raise' or 'skip', got 'ignore'"]),
    (f'{GUARD}.max_bad_samples=-1', ['at least 0, got -1']),
    # loops and loaders
    ('train_cfg.val_interval=0', ['train_cfg.val_interval', 'got 0']),
    ('train_cfg.max_epochs=0', ['train_cfg.max_epochs', 'got 0']),
    ('train_cfg.max_epochs=-1', ['train_cfg.max_epochs', 'got -1']),
    ('train_cfg.max_epochs=two', ['train_cfg.max_epochs', "got 'two'"]),
    ('train_cfg.max_epoch=3', ["did you mean 'max_epochs'"]),
    ('train_cfg.type=EpochLoop', ["did you mean 'EpochBasedTrainLoop'"]),
    ('train_dataloader.batch_size=0', ['train_dataloader.batch_size', 'got 0']),
    ('train_dataloader.num_workers=-1', ['train_dataloader.num_workers', 'got -1']),
    ('train_dataloader.batchsize=3', ["did you mean 'batch_size'"]),
    ('train_dataloader.sampler.shufle=True', ["'shufle'"]),  # codespell:ignore
    ('train_dataloader.dataset.type=CocoDatset', ["did you mean 'CocoDataset'"]),
    ('train_dataloader.dataset.ann_file=nowhere.json', ['nowhere.json does not exist; set data_root']),
    ('train_dataloader.dataset.pipeline.0.type=LoadImage', ["did you mean 'LoadImageFromFile'"]),
    ('train_dataloader.dataset.metainfo.classes=disc', ["metainfo.classes is the text 'disc'"]),
    ('train_dataloader.persistent_workers=True', ['num_workers=0 needs train_dataloader.persistent_workers=False']),
    ('val_evaluator.metric=bboxx', ["metric should be one of 'bbox'", 'got bboxx']),
    # optimizer and schedule
    (f'{OPTIM}.optimizer.lr=x', [f'{OPTIM}.optimizer.lr', "got 'x'"]),
    (f'{OPTIM}.optimizer.lr=-1', [f'{OPTIM}.optimizer.lr', 'got -1']),
    (f'{OPTIM}.optimizer.lrr=1', ["'lrr'"]),
    (f'{OPTIM}.optimizer.type=Adamw', ["there is no optimizer 'Adamw'", "did you mean 'Adam"]),
    (f'{OPTIM}.clip_gradd.max_norm=1', ["unknown key 'clip_gradd'; did you mean 'clip_grad'?"]),
    (f'{OPTIM}.accumulative_counts=0', ['accumulative_counts', 'got 0']),
    (f'{OPTIM}.paramwise_cfg.norm_decay=0', ["nothing reads the key 'norm_decay'", "did you mean 'norm_decay_mult'"]),
    (f'{OPTIM}.paramwise_cfg.custom_keys.backbone=0.1', ['custom_keys.backbone must be a dict']),
    ('param_scheduler.0.end=0', ['param_scheduler.0.end', 'got 0']),
    ('param_scheduler.0.begin=5', ['param_scheduler.0: end must be above begin, got begin=5 and end=3']),
    ('param_scheduler.0.type=LinearLr', ["did you mean 'LinearLR'"]),
    ('param_scheduler.0.start_facter=0.1', ["did you mean 'start_factor'"]),
    ('auto_scale_lr.base_batchsize=4', ["did you mean 'base_batch_size'"]),
    ('env_cfg.cudnn_benchmrk=True', ["did you mean 'cudnn_benchmark'"]),
    ('randomness.sed=1', ["did you mean 'seed'"]),
    # model
    ('model.backbone.out_indices=(0,0,1,2)', ['out_indices must not repeat a stage']),
    ('model.backbone.out_indices=(0,1,2,4)', ['out_indices must be some of']),
    ('model.backbone.out_indices=(0,1,2)', ['neck.in_channels', 'the backbone returns [64, 96, 128]']),
    ('model.neck.in_channels=[64,96,128,512]', ['in_channels is [64, 96, 128, 512]', '[64, 96, 128, 160]']),
    ('model.neck.out_channels=32', ['model.bbox_head.', 'does not fit what comes before it']),
    ('model.bbox_head.in_channels=63', ['model.bbox_head.', 'does not fit what comes before it']),
    ('model.bbox_head.num_classes=4', ['model.bbox_head.num_classes is 4', '5 classes']),
    ('model.bbox_head.num_class=5', ["did you mean 'num_classes'"]),
    ('model.backbone.drop_path_rate=1.5', ['drop_path_rate must be in [0, 1), got 1.5']),
    ('model.backbone.frozen_stages=9', ['frozen_stages must be -1 (none) to 4 (all), got 9']),
    ('model.bbox_head.loss_cls.type=FocalLos', ["did you mean 'FocalLoss'"]),
    ('load_from=gone.pth', ['checkpoint gone.pth does not exist']),
]


@pytest.mark.slow
def test_slips_are_single_lines(start_with: Callable[[str], str]) -> None:
    assert start_with('') == 'training started'
    assert len(SLIPS) >= 60
    lines = {option: start_with(option) for option, _ in SLIPS}
    assert [
        f'{option}: {lines[option]}' for option, words in SLIPS if not all(word in lines[option] for word in words)
    ] == []


def test_show_needs_a_display(config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_config(str(config('retinanet_pvtv2_shapes.py')), {})
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('sys.platform', 'linux')
    with pytest.raises(UserError, match='there is no display .DISPLAY is not set.; use --show-dir DIR'):
        add_show(loaded, True, None, 1)
    add_show(loaded, False, 'directory', 1)
    monkeypatch.setenv('DISPLAY', ':0')
    add_show(loaded, True, None, 1)


def test_the_policy_is_taken_from_the_config(config: Callable[..., Path]) -> None:
    path = str(config('retinanet_pvtv2_shapes.py'))
    loaded = load_config(path, {f'{GUARD}.on_bad_sample': 'skip', f'{GUARD}.max_lr_growth': 5})
    assert take_policy(loaded) == Policy(on_bad_sample='skip', max_lr_growth=5)
    assert 'guard' not in loaded.default_hooks
    assert take_policy(loaded) == Policy()
