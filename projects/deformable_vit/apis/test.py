"""Test the model of a config; mmdet, mmseg and mmpretrain have different names for the options."""

import os
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner

from .._nested import type_name
from ..checks import trains_masks
from ..errors import UserError
from .bands import loading_step
from .command_line import config_errors
from .console import quiet_log
from .inference import config_metainfo


class _StartHook(Hook):
    """Notice that the weights are loaded and the test begins."""

    has_started = False

    def before_test(self, runner: Runner) -> None:
        self.has_started = True


def test(config: Config, path: str) -> None:
    """Test the checkpoint of ``load_from`` with the evaluators of a config.

    Args:
        config: Complete, with a work directory.
        path: Its file, for messages.

    Raises:
        UserError: Something in the config does not fit, or the checkpoint belongs to another model.
    """
    start = _StartHook()
    hooks = [hook for hook in config.get('custom_hooks') or [] if 'CheckpointMatchHook' not in str(hook.get('type'))]
    config.custom_hooks = [*hooks, dict(type='deformable_vit.engine.CheckpointMatchHook', strict=True)]
    with config_errors(path, lambda: start.has_started):
        runner: Any = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
        quiet_log()
        runner.register_hook(start)
        if isinstance(runner, FlexibleRunner):  # it would build the model later, and then keeps this one
            runner.model = runner.strategy.build_model(runner.model)
        runner.test()


def add_out(config: Config, out: str) -> None:
    """Save predictions: a pickle for detection and classification, a directory of label maps for segmentation.

    Raises:
        UserError: The path does not fit the task.
    """
    scope = config.default_scope
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list) else [config.test_evaluator]
    if scope == 'mmseg':
        if Path(out).suffix:
            raise UserError(f'--out {out}: segmentation saves one label map per image, so name a directory')
        # A metric that would only write the same files is left out.
        config.test_evaluator = [e for e in evaluators if not e.get('format_only') or e.get('output_dir')]
        hook = dict(type='deformable_vit.engine.LabelMapHook', out_dir=out)
        config.custom_hooks = [*(config.get('custom_hooks') or []), hook]
        return
    if Path(out).suffix not in ('.pkl', '.pickle'):
        raise UserError(f'--out {out}: predictions are saved as a pickle, so name a .pkl file')
    dump = dict(type='DumpDetResults' if scope == 'mmdet' else 'DumpResults', out_file_path=out)
    config.test_evaluator = [*evaluators, dump]


def add_show(config: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Draw predictions beside the ground truth, in a window or to a directory.

    Raises:
        UserError: The config has no visualization hook, or there is no display.
    """
    displays = ('DISPLAY', 'WAYLAND_DISPLAY')
    if show and sys.platform.startswith('linux') and not any(os.environ.get(name) for name in displays):
        raise UserError('--show opens a window, and there is no display (DISPLAY is not set); use --show-dir DIR')
    hook = config.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError("--show and --show-dir need the config's default_hooks.visualization, and it has none")
    # An absolute path: OpenMMLab puts a relative one below the work directory, mmdet once more for each image.
    directory = str(Path(show_dir).absolute()) if show_dir else None
    if show:
        hook.update(show=True, wait_time=wait_time)
    if config.default_scope == 'mmpretrain':
        hook.update(enable=True, out_dir=directory, interval=1)
    else:
        # The hooks read images by themselves; what is not plain color is read as the pipeline does.
        if set(step := loading_step(config)) - {'type', 'backend_args'}:
            hook.update(backend_args=dict(backend='deformable_vit.drawn_image', step=step))
        hook.update(draw=True)
        if directory and config.default_scope == 'mmdet':
            hook.update(test_out_dir=directory)
        elif directory:
            hook.update(interval=1)
            config.visualizer.update(save_dir=directory)
    config.custom_hooks = [*(config.get('custom_hooks') or []), dict(type='deformable_vit.apis.fonts.FontHook')]
    names = ''.join(map(str, config_metainfo(config).get('classes') or ()))
    if type_name(config.get('visualizer', {}).get('type')) == 'SegLocalVisualizer' and not names.isascii():
        config.visualizer.type = 'deformable_vit.apis.seg_visualizer.LabeledSegVisualizer'


def add_tta(config: Config) -> None:
    """Turn on test-time augmentation: the config's ``tta_model`` and ``tta_pipeline``, by default horizontal flips.

    Raises:
        UserError: Segmentation without a ``tta_pipeline``, for which mmseg has no default, or a model with a mask head,
            whose masks mmdet cannot merge.
    """
    scope = config.default_scope
    if trains_masks(config.model):
        raise UserError(f'--tta: mmdet merges boxes only, and {config.model.type} also predicts masks; test without it')
    dataset = config.test_dataloader.dataset
    while 'dataset' in dataset:  # wrappers such as RepeatDataset
        dataset = dataset.dataset

    if 'tta_model' not in config:
        config.tta_model = {
            'mmdet': dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)),
            'mmseg': dict(type='SegTTAModel'),
            'mmpretrain': dict(type='AverageClsScoreTTA'),
        }[scope]
    if 'tta_pipeline' not in config:
        if scope == 'mmseg':
            raise UserError('--tta: this config has no tta_pipeline; mmseg::_base_/datasets/ade20k.py shows one')
        *before, pack = deepcopy(dataset.pipeline)
        if scope == 'mmdet':
            pack.meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        config.tta_pipeline = [*before, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    dataset.pipeline = config.tta_pipeline
    config.model = ConfigDict(**config.tta_model, module=config.model)
