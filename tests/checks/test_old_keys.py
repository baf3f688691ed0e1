"""Keys of configs before mmengine, which nothing reads: named with today's key, unless the config reads them itself."""

from pathlib import Path

import pytest
from mmengine.config import Config
from running import ROOT

from deformable_vit.apis.config import load_config
from deformable_vit.checks.old_keys import check_old_keys, unread_variables
from deformable_vit.errors import UserError

DETECTOR = str(ROOT / 'configs' / 'demo' / 'retinanet_pvtv2_shapes.py')
SEGMENTOR = str(ROOT / 'configs' / 'demo' / 'fpn_pvt_shapes.py')  # mmseg's schedule has a variable `optimizer`


def found(path: Path, text: str, base: str = DETECTOR) -> dict[str, str]:
    """Return level and detail of the old keys of a config, by the key that is named."""
    path.write_text(f'_base_ = {base!r}\n{text}\n')
    return {p.kind.split("'")[1]: f'{p.level}: {p.detail}' for p in check_old_keys(Config.fromfile(path))}


@pytest.mark.parametrize(
    ('line', 'new'),
    [
        ("optimizer = dict(type='SGD', lr=0.01)", 'optim_wrapper.optimizer'),
        ('optimizer_config = dict(grad_clip=dict(max_norm=1))', 'optim_wrapper.clip_grad'),
        ("lr_config = dict(policy='step', step=[8, 11])", 'param_scheduler'),
        ("evaluation = dict(interval=1, metric='bbox')", 'val_evaluator'),
        ("runner = dict(type='EpochBasedRunner', max_epochs=12)", 'train_cfg.max_epochs'),
        ('total_epochs = 12', 'train_cfg.max_epochs'),
        ('data = dict(samples_per_gpu=2)', 'train_dataloader'),
        ("workflow = [('train', 1), ('val', 1)]", 'train_cfg.val_interval'),
        ('checkpoint_config = dict(interval=1)', 'default_hooks.checkpoint'),
        ("log_config = dict(interval=50, hooks=[dict(type='TextLoggerHook')])", 'default_hooks.logger'),
        ('fp16 = dict(loss_scale=512.0)', 'AmpOptimWrapper'),
        ('seed = 0', 'randomness.seed'),
    ],
)
def test_keys_of_a_training_are_errors_with_todays_key(tmp_path: Path, line: str, new: str) -> None:
    for base in (DETECTOR, SEGMENTOR):
        problems = found(tmp_path / 'own.py', line, base)
        assert set(problems) == {line.split(' ')[0]}
        level, _, detail = next(iter(problems.values())).partition(':')
        assert level == 'error'
        assert new in detail


def test_keys_without_effect_on_the_training_are_warnings(tmp_path: Path) -> None:
    problems = found(tmp_path / 'own.py', "dist_params = dict(backend='nccl')\ncudnn_benchmark = True\ngpu_ids = [0]")
    assert {key: text.split(':')[0] for key, text in problems.items()} == dict.fromkeys(
        ('dist_params', 'cudnn_benchmark', 'gpu_ids'), 'warning'
    )


def test_settings_that_were_off_are_accepted(tmp_path: Path) -> None:
    assert not found(tmp_path / 'own.py', 'fp16 = None\nresume_from = None\nauto_resume = False')


def test_variables_that_the_config_reads_are_accepted(tmp_path: Path) -> None:
    own, base = tmp_path / 'own.py', tmp_path / 'base.py'
    assert not found(own, "optimizer = dict(type='AdamW', lr=1e-4)\noptim_wrapper = dict(optimizer=optimizer)")
    assert not found(own, 'total_epochs = 3\ntrain_cfg = dict(max_epochs=total_epochs)')
    assert not found(own, 'for data in (1, 2):\n    pass')
    # Variables of a base are for the configs that inherit from it.
    for reads in (
        'train_cfg = dict(max_epochs=_base_.total_epochs)',
        'train_cfg = dict(max_epochs={{_base_.total_epochs}})',
    ):
        base.write_text(f'_base_ = {DETECTOR!r}\ntotal_epochs = 3\n')
        assert not found(own, reads, str(base))
    assert set(found(own, '', str(base))) == {'total_epochs'}
    # The base's own variable is read there, and the one that should replace it is not.
    base.write_text(f"_base_ = {DETECTOR!r}\noptimizer = dict(type='SGD')\noptim_wrapper = dict(optimizer=optimizer)\n")
    assert set(found(own, 'optimizer = dict(lr=1.0)', str(base))) == {'optimizer'}
    assert not found(own, 'optim_wrapper = dict(optimizer=dict(lr=1.0))', str(base))


def test_configs_of_work_directories_are_accepted(tmp_path: Path) -> None:
    """They have the variables of all files, and the values that were made from them or replaced them."""
    own, dump = tmp_path / 'own.py', tmp_path / 'dump.py'
    own.write_text(
        f"_base_ = {SEGMENTOR!r}\noptimizer = dict(type='AdamW', lr=1.0)\noptim_wrapper = dict(optimizer=optimizer)\n"
        'custom_hook = []\ncustom_hooks = [*custom_hook]\ntotal_epochs = 3\nmax_epochs = total_epochs\n'
    )
    load_config(str(own), {'optim_wrapper.optimizer.lr': 2.0}).dump(dump)
    assert 'total_epochs' in dump.read_text()
    loaded = load_config(str(dump), {})
    assert [(p.level, p.kind) for p in check_old_keys(loaded)] == [('warning', "nothing reads 'total_epochs'")]
    own.write_text(f'_base_ = {str(dump)!r}\noptimizer = dict(lr=3.0)\n')
    assert 'error' in [p.level for p in check_old_keys(load_config(str(own), {}))]


def test_classes_in_capitals_and_a_second_normalization_are_reported(tmp_path: Path) -> None:
    path = tmp_path / 'own.py'
    path.write_text(
        f'_base_ = {DETECTOR!r}\n'
        "train_dataloader = dict(dataset=dict(metainfo=dict(_delete_=True, CLASSES=('cat', ))))\n"
        "val_dataloader = dict(dataset=dict(pipeline=[dict(type='Normalize', mean=[1.0], std=[1.0])]))\n"
    )
    classes, normalized = check_old_keys(Config.fromfile(path))
    assert (classes.level, classes.loader) == ('error', 'train_dataloader')
    assert 'CLASSES' in classes.kind
    assert (normalized.level, normalized.loader) == ('warning', 'val_dataloader')
    path.write_text(path.read_text() + 'model = dict(data_preprocessor=dict(mean=[0.0], std=[1.0]))\n')
    assert len(list(check_old_keys(Config.fromfile(path)))) == 1


def test_old_transforms_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'own.py'
    path.write_text(
        f"_base_ = {DETECTOR!r}\ntrain_dataloader = dict(dataset=dict(pipeline=[dict(type='DefaultFormatBundle')]))\n"
    )
    (problem,) = check_old_keys(Config.fromfile(path))
    assert (problem.level, problem.loader) == ('error', 'train_dataloader')
    assert 'PackDetInputs' in problem.detail


def test_parts_of_a_model_outside_of_it_are_named(tmp_path: Path) -> None:
    problems = found(tmp_path / 'own.py', 'train_cfg = dict(rpn=dict(), rcnn=dict())\ntest_cfg = dict(score_thr=0.1)')
    assert set(problems) == {'rpn', 'rcnn', 'score_thr'}
    assert problems['score_thr'] == 'error: set model.test_cfg.score_thr'
    assert not found(tmp_path / 'own.py', "train_cfg = dict(type='OwnLoop', mode='fast')")


@pytest.mark.parametrize(
    ('line', 'new'),
    [
        ("train_dataloader = dict(dataset=dict(classes=('cat', )))", 'metainfo=dict(classes'),
        ("train_dataloader = dict(dataset=dict(img_prefix='train/'))", "data_prefix=dict(img='"),
        ('train_dataloader = dict(samples_per_gpu=2)', 'batch_size'),
        ('val_dataloader = dict(workers_per_gpu=2)', 'num_workers'),
        ("model = dict(pretrained='a.pth')", 'init_cfg'),
    ],
)
def test_old_arguments_are_refused_with_todays_name(tmp_path: Path, line: str, new: str) -> None:
    path = tmp_path / 'own.py'
    path.write_text(f'_base_ = {DETECTOR!r}\n{line}\n')
    with pytest.raises(UserError) as caught:
        load_config(str(path), {})
    assert new in str(caught.value)
    assert '\n' not in str(caught.value)


def test_mmseg_still_takes_pretrained(tmp_path: Path) -> None:
    path = tmp_path / 'own.py'
    path.write_text(f"_base_ = {SEGMENTOR!r}\nmodel = dict(pretrained='a.pth')\n")
    assert load_config(str(path), {}).model.pretrained == 'a.pth'


def test_own_variables_like_a_key_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / 'own.py'
    text = f'_base_ = {DETECTOR!r}\ntrain_dataloader_old = dict()\nmy_train_cfg = 1\ncustom_hook = []\n'
    path.write_text(text + 'custom_hooks = [*custom_hook]\n')
    assert load_config(str(path), {}).my_train_cfg == 1
    assert {'train_dataloader_old', 'my_train_cfg'} <= set(unread_variables(Config.fromfile(path)))
    path.write_text(text)
    with pytest.raises(UserError, match="'custom_hook'; did you mean 'custom_hooks'"):
        load_config(str(path), {})
