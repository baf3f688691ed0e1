"""What a machine without a GPU changes in a config, and what it does not."""

import pytest
import torch
from mmengine.config import Config
from running import ROOT

from deformable_vit.engine import UserError, adapt_to_device, add_tta, load_config

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without a GPU')
SEGMENTOR = ROOT / 'configs' / 'pvt' / 'fpn_pvt-t_8xb4-40k_ade20k-512x512.py'


@cpu_only
def test_sync_bn_becomes_bn_without_a_gpu(capsys: pytest.CaptureFixture) -> None:
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


def test_options_may_add_what_mmengine_knows() -> None:
    config = load_config(
        str(SEGMENTOR), {'randomness.seed': 3, 'model.backbone.with_cp': True, 'train_cfg.max_iters': 5}
    )
    assert config.randomness.seed == 3
    assert config.model.backbone.with_cp is True
    assert config.model.backbone.arch == 'tiny'
    with pytest.raises(UserError, match=r"unknown key 'modle'; did you mean 'model'\?"):
        load_config(str(SEGMENTOR), {'modle.backbone.with_cp': True})


def test_a_misspelt_key_in_a_file(tmp_path) -> None:
    path = tmp_path / 'mine.py'
    path.write_text(f'_base_ = {str(SEGMENTOR)!r}\nmy_variable = 3\noptim_wraper = dict(optimizer=dict(lr=1))\n')
    with pytest.raises(UserError, match=r"mine.py: unknown key 'optim_wraper'; did you mean 'optim_wrapper'"):
        load_config(str(path), {})
    path.write_text(f'_base_ = {str(SEGMENTOR)!r}\nmy_variable = 3\n')
    assert load_config(str(path), {}).my_variable == 3


def test_tta_of_a_detector_flips() -> None:
    config = Config.fromfile(ROOT / 'configs' / 'demo' / 'retinanet_pvt_shapes.py')
    add_tta(config)
    assert config.model.type == 'DetTTAModel'
    assert config.model.module.type == 'RetinaNet'
    last = config.test_dataloader.dataset.pipeline[-1]
    assert last.type == 'TestTimeAug'
    assert [t.prob for t in last.transforms[0]] == [1.0, 0.0]
