"""Starting mmengine's ``Runner`` on whatever the machine has: many GPUs, one, or none."""

import logging
import os
import sys
from typing import Any, Literal

import torch
from mmcv.ops import get_compiling_cuda_version
from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from ..checkpoints import CheckpointError
from .cli import TRACEBACK, UserError, first_line
from .config import check_checkpoint, keep_previous_run
from .data import check_data

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def adapt_to_device(config: Config, launcher: str) -> None:
    """Change in a config what the hosts write for GPUs and a machine without any cannot do.

    Without CUDA, processes talk through gloo instead of NCCL, and SyncBN becomes BN: they have the same parameters, and
    torch has no SyncBN for the CPU.

    Raises:
        UserError: ``--launcher pytorch`` without torchrun; ``slurm`` or ``mpi`` without a GPU (mmengine counts GPUs to
            place its processes); a GPU and an mmcv without CUDA ops.
    """
    config.launcher = launcher
    if config.default_scope == 'mmpretrain':
        # What mmpretrain's own tools add to its configs.
        for loader in _LOADERS:
            if config.get(loader):
                config[loader].setdefault('collate_fn', dict(type='default_collate'))
                config[loader].setdefault('pin_memory', True)
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if launcher == 'pytorch' and missing:
        raise UserError(f'--launcher pytorch expects torchrun to set {", ".join(missing)}; use tools/dist_train.sh')
    if torch.cuda.is_available():
        if get_compiling_cuda_version() == 'not available':
            raise UserError(
                'there is a GPU, but mmcv was built without CUDA ops; install a CUDA toolkit and run make setup, '
                'or set CUDA_VISIBLE_DEVICES= to work on the CPU'
            )
        return
    if replaced := _replace_type(config.model, 'SyncBN', 'BN'):
        print_log(f'no GPU: SyncBN, named {replaced} times in the config, becomes BN')
    for loader in _LOADERS:
        if config.get(loader):
            config[loader].pin_memory = False
    if launcher == 'none':
        return
    if launcher != 'pytorch':
        raise UserError(f'--launcher {launcher} needs GPUs, and there are none here; use --launcher pytorch (torchrun)')
    config.env_cfg = dict(config.get('env_cfg') or {}, dist_cfg=dict(backend='gloo'))
    config.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=config.get('find_unused_parameters', False),
    )
    if not torch.distributed.is_initialized():  # mmengine's own way calls torch.cuda.set_device
        torch.distributed.init_process_group('gloo')


def _replace_type(node: Any, old: str, new: str) -> int:
    """Replace a ``type`` wherever it stands below ``node``; returns how often."""
    if isinstance(node, dict):
        found = node.get('type') == old
        if found:
            node['type'] = new
        return found + sum(_replace_type(value, old, new) for value in node.values())
    if isinstance(node, (list, tuple)):
        return sum(_replace_type(value, old, new) for value in node)
    return 0


class _Started(Hook):
    """Knows whether the work itself has begun, when configuration is over and all weights are loaded."""

    yes = False

    def before_train(self, runner: Runner) -> None:
        self.yes = True
        if not runner.cfg.get('resume'):
            barrier()  # every process has read the checkpoint that it starts from
            if previous := keep_previous_run(runner.work_dir, runner.timestamp):
                print_log(f'the checkpoints of an earlier run in {runner.work_dir} are kept in {previous}', 'current')

    def before_test(self, runner: Runner) -> None:
        self.yes = True


def bare_model(model: nn.Module) -> nn.Module:
    """Without the wrappers of distributed training and test-time augmentation."""
    if is_model_wrapper(model):
        model = model.module
    return model.module if isinstance(model, BaseTTAModel) else model


def _leave_gloo() -> None:
    """End a process whose work is done, without what the interpreter does on its way out.

    On a busy machine a thread of gloo now and then outlives the process group, also a destroyed one, and C++ aborts the
    process ("terminate called without an active exception"), which torchrun takes for a failure of the training.
    """
    barrier()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run(config: Config, path: str, task: Literal['train', 'test']) -> None:
    """Build the runner and train or test.

    Whatever goes wrong before the first batch (a misspelt key, a missing annotation file, a checkpoint of another
    model) is the config's, and becomes one line; what goes wrong later keeps its traceback.

    Raises:
        UserError: Something in the config does not fit.
        CheckpointError: A checkpoint cannot be read.
    """
    started = _Started()
    try:
        check_data(config, task)
        runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
        runner.register_hook(started, priority='VERY_LOW')
        if config.get('load_from'):
            strict = task == 'test' or config.get('resume', False)
            found = check_checkpoint(bare_model(runner.model), config.load_from, strict=strict)
            print_log(f'{config.load_from}: {found}', 'current')
        runner.train() if task == 'train' else runner.test()
        if torch.distributed.is_initialized() and torch.distributed.get_backend() == 'gloo':
            _leave_gloo()
    except Exception as error:
        if started.yes or os.environ.get(TRACEBACK) or isinstance(error, (UserError, CheckpointError)):
            raise
        raise UserError(f'config {path}: {first_line(error)} ({TRACEBACK}=1 shows the traceback)') from error
