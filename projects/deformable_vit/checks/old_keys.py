"""Keys of configs before mmengine (mmdet 2.x, mmseg 0.x, mmcls 0.x), which nothing reads today."""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from mmengine.config import Config

from .._nested import type_name, walk
from .datasets import LOADERS
from .problem import Problem
from .types import find_type

# What a key at the top level is called today.
_TRAINING = {
    'checkpoint_config': 'default_hooks.checkpoint',
    'data': 'train_dataloader, val_dataloader and test_dataloader, each with batch_size and dataset',
    'evaluation': 'val_evaluator and train_cfg.val_interval',
    'fp16': "optim_wrapper=dict(type='AmpOptimWrapper'), or tools/train.py --amp",
    'log_config': 'default_hooks.logger, and visualizer.vis_backends',
    'lr_config': 'param_scheduler',
    'momentum_config': 'param_scheduler',
    'optimizer': 'optim_wrapper.optimizer',
    'optimizer_config': 'optim_wrapper.clip_grad and optim_wrapper.accumulative_counts',
    'paramwise_cfg': 'optim_wrapper.paramwise_cfg',
    'resume_from': 'tools/train.py --resume FILE',
    'runner': 'train_cfg.max_epochs or train_cfg.max_iters',
    'seed': 'randomness.seed',
    'total_epochs': 'train_cfg.max_epochs',
    'total_iters': 'train_cfg.max_iters',
    'workflow': 'train_cfg.val_interval for validation',
}
# Without effect on what is trained.
_ENVIRONMENT = {
    'auto_resume': 'tools/train.py --resume',
    'cudnn_benchmark': 'env_cfg.cudnn_benchmark',
    'dist_params': 'env_cfg.dist_cfg',
    'gpu_ids': 'the environment variable CUDA_VISIBLE_DEVICES',
    'mp_start_method': 'env_cfg.mp_cfg.mp_start_method',
    'opencv_num_threads': 'env_cfg.mp_cfg.opencv_num_threads',
}
# Parts of model.train_cfg and model.test_cfg, which were once outside the model.
_OF_MODEL = {
    'assigner',
    'crop_size',
    'max_per_img',
    'mode',
    'nms',
    'rcnn',
    'rpn',
    'rpn_proposal',
    'score_thr',
    'stride',
}
_OLD_TRANSFORMS = {
    'Collect': 'PackDetInputs, PackSegInputs or PackInputs',
    'DefaultFormatBundle': 'PackDetInputs, PackSegInputs or PackInputs',
    'ImageToTensor': 'PackDetInputs, PackSegInputs or PackInputs',
    'MultiScaleFlipAug': 'TestTimeAug, in tta_pipeline',
}
_LOOPS = ('', 'EpochBasedTrainLoop', 'IterBasedTrainLoop', 'TestLoop')
# What an argument of a dataset, dataloader or model is called today.
RENAMED = {
    'ann_dir': "data_prefix=dict(seg_map_path='...')",
    'classes': "metainfo=dict(classes=('...', ))",
    'img_dir': "data_prefix=dict(img_path='...')",
    'img_prefix': "data_prefix=dict(img='...')",
    'palette': 'metainfo=dict(palette=[...])',
    'pretrained': "backbone.init_cfg=dict(type='Pretrained', checkpoint='...')",
    'samples_per_gpu': 'batch_size',
    'seg_prefix': "data_prefix=dict(seg='...')",
    'workers_per_gpu': 'num_workers',
}


def check_old_keys(config: Config, loaders: Sequence[str] = LOADERS) -> Iterator[Problem]:
    """Yield keys that trained something before mmengine, and that nothing reads today."""
    for key, beside in unread_variables(config).items():
        new = _TRAINING.get(key) or _ENVIRONMENT.get(key)
        if new is None or config[key] is None or config[key] is False:  # a setting that was off
            continue
        # The config of a work directory has all keys and the variables that they were made from, in one file.
        is_whole = '_base_' not in beside and re.split(r'\W', new)[0] in beside
        if not (is_whole and key == 'optimizer'):  # a variable of mmseg's schedules
            level: Literal['error', 'warning'] = 'error' if key in _TRAINING and not is_whole else 'warning'
            yield Problem(level, 'config', f'nothing reads {key!r}', detail=f'today it is {new}')
    for loop in ('train_cfg', 'test_cfg'):
        settings = config.get(loop) or {}
        # A loop of the user's own may take anything.
        for key in sorted(_OF_MODEL & set(settings)) if type_name(settings.get('type', '')) in _LOOPS else ():
            yield Problem('error', 'config', f'{loop} is of a loop, and has {key!r}', detail=f'set model.{loop}.{key}')
    yield from _old_data(config, loaders)


def _old_data(config: Config, loaders: Sequence[str]) -> Iterator[Problem]:
    """Yield what datasets and pipelines were once given."""
    scope = config.get('default_scope') or 'mmengine'
    for loader in loaders:
        for key, node in walk(config.get(loader), loader):
            kind = type_name(node.get('type')) if isinstance(node, dict) else ''
            if key.endswith('.metainfo') and isinstance(node, dict) and 'CLASSES' in node and 'classes' not in node:
                yield Problem('error', loader, f"nothing reads {key}['CLASSES']", detail="today it is 'classes'")
            elif kind in _OLD_TRANSFORMS and find_type(kind, scope) is None:
                yield Problem('error', loader, f'{key} is {kind}', detail=f'today it is {_OLD_TRANSFORMS[kind]}')
            elif kind == 'Normalize' and _normalizes(config):
                detail = 'leave out this transform, or mean and std of the data_preprocessor'
                yield Problem(
                    'warning', loader, f'{key} and the data_preprocessor normalize images twice', detail=detail
                )


def _normalizes(config: Config) -> bool:
    """Return whether the model subtracts a mean from the images of the pipeline."""
    model = config.get('model') or {}
    preprocessor = model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    return any(preprocessor.get('mean') or ())


def unread_variables(config: Config) -> dict[str, set[str]]:
    """Return the variables that a file of a config sets, and that neither it nor another of its files reads.

    A variable that its own file does not read may still be for the files that inherit from it, which read
    ``_base_.NAME`` or ``{{_base_.NAME}}``.

    Returns:
        Each variable with all that its file sets.
    """
    inherited = set(re.findall(r'_base_\.(\w+)', config.text))
    found: dict[str, set[str]] = {}
    # Config.text has the files one after the other, each below its absolute path; that of pure Python has one file.
    whole, *parts = re.split(r'^((?:/|[A-Za-z]:).*\.(?:py|json|ya?ml))$', config.text, flags=re.MULTILINE)
    for name, text in [('', whole), *zip(parts[::2], parts[1::2], strict=True)]:
        if '/.mim/configs/' in name:  # of OpenMMLab's packages, which have leftovers of their own
            continue
        try:
            tree = ast.parse(text)
        except SyntaxError:  # a file of YAML, which has no variables
            continue
        read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        targets = [target for line in tree.body if isinstance(line, ast.Assign) for target in line.targets]
        assigned = {target.id for target in targets if isinstance(target, ast.Name)}
        found |= dict.fromkeys((assigned - read - inherited) & set(config), assigned)
    return found
