"""``--cfg-options``: applied as written, or an error that says how to write it."""

import argparse
from pathlib import Path
from typing import Any

import pytest
from running import ROOT

from deformable_vit.engine import UserError, add_config_options, load_config

SEGMENTOR = str(ROOT / 'configs' / 'pvt' / 'fpn_pvt-t_8xb4-40k_ade20k-512x512.py')
DEMO = str(ROOT / 'configs' / 'demo' / 'mask-rcnn_dat_shapes.py')  # its pipelines are not made from train_pipeline
DETECTOR = str(ROOT / 'configs' / 'pvt' / 'mask-rcnn_pvt-t_fpn_1x_coco.py')


def parsed(*options: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def message(config: str, *options: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(config, parsed(*options))
    return str(caught.value)


def test_options_override_and_add_settings() -> None:
    options = parsed(
        'randomness.seed=3',
        'model.backbone.with_cp=True',
        'train_cfg.max_iters=5',
        'train_dataloader.dataset.pipeline.2.scale=(256,64)',
        'model.backbone.out_indices=0,1',
        'default_hooks.checkpoint.filename_tmpl=epoch_{}.pth',
        'load_from=None',
    )
    config = load_config(SEGMENTOR, options)
    assert config.randomness.seed == 3
    assert config.model.backbone.with_cp is True
    assert config.model.backbone.arch == 'tiny'
    assert config.train_dataloader.dataset.pipeline[2].scale == (256, 64)
    assert config.model.backbone.out_indices == [0, 1]
    assert config.default_hooks.checkpoint.filename_tmpl == 'epoch_{}.pth'
    assert config.load_from is None


def test_unknown_keys_are_named() -> None:
    assert message(SEGMENTOR, 'modle.backbone.with_cp=True') == (
        "--cfg-options: unknown key 'modle'; did you mean 'model'?"
    )
    assert message(SEGMENTOR, 'my_key=1').startswith("--cfg-options: unknown key 'my_key'")


@pytest.mark.parametrize(
    ('config', 'option', 'hint'),
    [
        (SEGMENTOR, 'train_pipeline.2.scale=(256,64)', 'set train_dataloader.dataset.pipeline.2.scale'),
        (SEGMENTOR, 'test_pipeline=[]', 'set val_dataloader.dataset.pipeline, test_dataloader.dataset.pipeline'),
        (DEMO, 'train_pipeline=[]', 'set train_dataloader.dataset.pipeline'),
        (SEGMENTOR, 'vis_backends=[]', 'set visualizer.vis_backends'),
        (SEGMENTOR, 'norm_cfg.type=BN', 'set model.decode_head.norm_cfg.type'),
        (SEGMENTOR, 'data_root=data/own', 'set train_dataloader.dataset.data_root, val_dataloader.dataset.data_root'),
        (SEGMENTOR, 'dataset_type=X', 'set train_dataloader.dataset.type, val_dataloader.dataset.type'),
        (DETECTOR, 'backend_args.backend=petrel', 'and 5 more'),
    ],
)
def test_variables_that_nothing_reads_name_the_keys_made_from_them(config: str, option: str, hint: str) -> None:
    variable = option.split('=')[0].split('.')[0]
    found = message(config, option)
    assert f'{variable!r} is a variable of {config} that nothing reads' in found
    assert hint in found


def test_suggested_keys_exist() -> None:
    """The key that the message for ``vis_backends`` names does what was meant."""
    config = load_config(SEGMENTOR, parsed('visualizer.vis_backends.0.type=TensorboardVisBackend'))
    assert config.visualizer.vis_backends[0].type == 'TensorboardVisBackend'


def test_dicts_are_refused_with_a_way_to_write_them() -> None:
    found = message(SEGMENTOR, "vis_backends=[dict(type='TensorboardVisBackend')]")
    assert 'dicts cannot be written on the command line' in found
    assert 'such as visualizer.vis_backends.0.type=VALUE' in found
    assert f"write visualizer.vis_backends in a config that begins with _base_ = '{SEGMENTOR}'" in found

    found = message(DETECTOR, "custom_hooks=[dict(type='EMAHook',momentum=0.001)]")
    assert found == (
        '--cfg-options custom_hooks: dicts cannot be written on the command line; '
        f"write custom_hooks in a config that begins with _base_ = '{DETECTOR}'"
    )
    assert 'such as param_scheduler.0.type=VALUE' in message(DETECTOR, "param_scheduler=[{'type':'PolyLR'}]")
    assert 'such as train_cfg.type=VALUE' in message(DETECTOR, 'train_cfg=dict(max_epochs=3)')
    assert "unknown key 'custm_hooks'" in message(DETECTOR, "custm_hooks=[dict(type='EMAHook')]")


def test_the_config_that_the_message_recommends_works(tmp_path: Path) -> None:
    file = tmp_path / 'mine.py'
    file.write_text(f"_base_ = {DETECTOR!r}\ncustom_hooks = [dict(type='EMAHook', momentum=0.001)]\n")
    assert load_config(str(file), {}).custom_hooks == [dict(type='EMAHook', momentum=0.001)]


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('train_cfg.max_epochs', "'train_cfg.max_epochs' is not KEY=VALUE"),
        ('=3', "'=3' is not KEY=VALUE"),
        ('model.backbone.out_indices=[0,1', "model.backbone.out_indices: unbalanced brackets in '[0,1'"),
    ],
)
def test_malformed_options_are_one_line(option: str, words: str) -> None:
    with pytest.raises(UserError, match='--cfg-options') as caught:
        parsed(option)
    assert words in str(caught.value)


def test_misspelled_keys_in_a_file_are_found_and_own_variables_are_not(tmp_path: Path) -> None:
    path = tmp_path / 'mine.py'
    path.write_text(f'_base_ = {SEGMENTOR!r}\nmy_variable = 3\noptim_wraper = dict(optimizer=dict(lr=1))\n')
    with pytest.raises(UserError, match=r"mine.py: unknown key 'optim_wraper'; did you mean 'optim_wrapper'"):
        load_config(str(path), {})
    path.write_text(f'_base_ = {SEGMENTOR!r}\nmy_variable = 3\n')
    assert load_config(str(path), {}).my_variable == 3
