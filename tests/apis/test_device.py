"""Configs on machines with and without a GPU, test-time augmentation, and what tools/train.py adds."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop
from running import ROOT

from deformable_vit.apis.device import adapt_to_device
from deformable_vit.apis.test import add_show, add_tta
from deformable_vit.apis.train import make_reliable
from deformable_vit.errors import UserError

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason='tests machines without a GPU')
SEGMENTOR = ROOT / 'configs' / 'pvt' / 'fpn_pvt-t_8xb4-40k_ade20k-512x512.py'
DEMO = ROOT / 'configs' / 'demo'


@cpu_only
def test_sync_bn_becomes_bn_without_a_gpu() -> None:
    config = Config.fromfile(SEGMENTOR)
    assert config.model.decode_head.norm_cfg.type == 'SyncBN'
    adapt_to_device(config, 'none')
    assert config.model.decode_head.norm_cfg.type == 'BN'
    assert 'SyncBN' not in str(config.model)
    assert config.train_dataloader.pin_memory is False
    assert 'model_wrapper_cfg' not in config


def test_a_gpu_changes_nothing_and_needs_cuda_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.fromfile(SEGMENTOR)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr('deformable_vit.apis.device.get_compiling_cuda_version', lambda: '13.0')
    before = config.to_dict()
    adapt_to_device(config, 'slurm')
    assert config.to_dict() == before | {'launcher': 'slurm'}
    monkeypatch.setattr('deformable_vit.apis.device.get_compiling_cuda_version', lambda: 'not available')
    with pytest.raises(UserError, match='mmcv was built without CUDA ops.*make setup'):
        adapt_to_device(config, 'none')


@cpu_only
@pytest.mark.parametrize(('runner_type', 'key'), [(None, 'model_wrapper_cfg'), ('FlexibleRunner', 'strategy')])
def test_distributed_training_on_cpus_uses_gloo(
    monkeypatch: pytest.MonkeyPatch, runner_type: str | None, key: str
) -> None:
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, '0')
    initialized = []
    monkeypatch.setattr(torch.distributed, 'init_process_group', initialized.append)
    config = Config.fromfile(SEGMENTOR)
    if runner_type:
        config.runner_type = runner_type
    adapt_to_device(config, 'pytorch')
    assert initialized == ['gloo']
    assert config.env_cfg.dist_cfg.backend == 'gloo'
    wrapper = config[key].get('model_wrapper', config[key])
    assert (wrapper.type, wrapper.device_ids) == ('MMDistributedDataParallel', None)


def test_tta_flips_boxes_and_does_not_merge_masks() -> None:
    config = Config.fromfile(DEMO / 'retinanet_pvt_shapes.py')
    add_tta(config)
    assert config.model.type == 'DetTTAModel'
    assert config.model.module.type == 'RetinaNet'
    last = config.test_dataloader.dataset.pipeline[-1]
    assert last.type == 'TestTimeAug'
    assert [t.prob for t in last.transforms[0]] == [1.0, 0.0]
    for name in ('mask-rcnn_dat', 'mask2former_dat-pp'):
        with pytest.raises(UserError, match=r'--tta: mmdet merges boxes only, and \w+ also predicts masks'):
            add_tta(Config.fromfile(DEMO / f'{name}_shapes.py'))


def test_show_needs_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.fromfile(DEMO / 'retinanet_pvt_shapes.py')
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('sys.platform', 'linux')
    with pytest.raises(UserError, match='there is no display .DISPLAY is not set.; use --show-dir DIR'):
        add_show(config, True, None, 1)
    add_show(config, False, 'directory', 1)
    monkeypatch.setenv('DISPLAY', ':0')
    add_show(config, True, None, 1)


def test_a_config_keeps_what_it_names() -> None:
    """Hooks with arguments, a loop of somebody else, a batch sampler; types are names or classes."""
    config = Config(
        dict(
            custom_hooks=[dict(type='EMAHook'), dict(type='deformable_vit.engine.StopHook', grace=5)],
            train_cfg=dict(type=EpochBasedTrainLoop, max_epochs=1),
            train_dataloader=dict(
                batch_size=2,
                drop_last=True,
                sampler=dict(type='DefaultSampler'),
                batch_sampler=dict(type='AspectRatioBatchSampler'),
            ),
        )
    )
    make_reliable(config, on_bad_sample='skip')
    before = config.to_dict()
    make_reliable(config)
    assert config.to_dict() == before
    kinds = [hook['type'].rpartition('.')[2] for hook in config.custom_hooks]
    assert kinds[:2] == ['EMAHook', 'StopHook']
    assert sorted(kinds) == sorted(
        [
            'EMAHook',
            'StopHook',
            'WorkDirHook',
            'CheckpointMatchHook',
            'SeedHook',
            'SampleErrorHook',
            'FiniteLossHook',
            'DurationHook',
        ]
    )
    assert config.custom_hooks[1].grace == 5
    assert config.custom_hooks[kinds.index('SampleErrorHook')].on_error == 'skip'
    assert config.train_cfg.type == 'deformable_vit.engine.ResumableEpochBasedTrainLoop'
    assert config.train_dataloader.batch_sampler == dict(
        type='deformable_vit.engine.SeededBatchSampler',
        drop_last=True,
        batch_sampler=dict(type='AspectRatioBatchSampler'),
    )
    other = Config(dict(train_cfg=dict(type='MyLoop'), train_dataloader=dict(batch_size=2, sampler=dict(type='X'))))
    make_reliable(other)
    assert other.train_cfg.type == 'MyLoop'
    assert 'batch_sampler' not in other.train_dataloader
