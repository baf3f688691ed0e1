"""Configs on machines with and without a GPU, and test-time augmentation."""

import pytest
import torch
from mmengine.config import Config
from running import ROOT

from deformable_vit.engine import UserError, adapt_to_device, add_tta

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason='tests machines without a GPU')
SEGMENTOR = ROOT / 'configs' / 'pvt' / 'fpn_pvt-t_8xb4-40k_ade20k-512x512.py'


@cpu_only
def test_sync_bn_becomes_bn_without_a_gpu() -> None:
    config = Config.fromfile(SEGMENTOR)
    assert config.model.decode_head.norm_cfg.type == 'SyncBN'
    adapt_to_device(config, 'none')
    assert config.model.decode_head.norm_cfg.type == 'BN'
    assert 'SyncBN' not in str(config.model)
    assert config.train_dataloader.pin_memory is False
    assert 'model_wrapper_cfg' not in config


def test_a_gpu_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.fromfile(SEGMENTOR)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr('deformable_vit.engine.launch.get_compiling_cuda_version', lambda: '13.0')
    before = config.to_dict()
    adapt_to_device(config, 'slurm')
    assert config.to_dict() == before | {'launcher': 'slurm'}


def test_a_gpu_without_cuda_ops_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr('deformable_vit.engine.launch.get_compiling_cuda_version', lambda: 'not available')
    with pytest.raises(UserError, match='mmcv was built without CUDA ops.*make setup'):
        adapt_to_device(Config.fromfile(SEGMENTOR), 'none')


def test_classification_gets_mmpretrains_collation() -> None:
    config = Config.fromfile(ROOT / 'configs' / 'demo' / 'pvt_shapes.py')
    adapt_to_device(config, 'none')
    assert config.train_dataloader.collate_fn.type == 'default_collate'


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


def test_detectors_are_flipped_with_tta() -> None:
    config = Config.fromfile(ROOT / 'configs' / 'demo' / 'retinanet_pvt_shapes.py')
    add_tta(config)
    assert config.model.type == 'DetTTAModel'
    assert config.model.module.type == 'RetinaNet'
    last = config.test_dataloader.dataset.pipeline[-1]
    assert last.type == 'TestTimeAug'
    assert [t.prob for t in last.transforms[0]] == [1.0, 0.0]


@pytest.mark.parametrize('name', ['mask-rcnn_dat', 'mask2former_datpp'])
def test_masks_are_not_merged_with_tta(name: str) -> None:
    config = Config.fromfile(ROOT / 'configs' / 'demo' / f'{name}_shapes.py')
    with pytest.raises(UserError, match=r'--tta: mmdet merges boxes only, and \w+ also predicts masks'):
        add_tta(config)
