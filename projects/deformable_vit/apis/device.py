"""Adapt a config to what the machine has: several GPUs, one, or none."""

import os
from typing import Any

import torch
from mmcv.ops import get_compiling_cuda_version
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from ..errors import UserError

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def adapt_to_device(config: Config, launcher: str) -> None:
    """Change a config that is written for GPUs so that it runs on a machine without one.

    Without CUDA, processes communicate by gloo instead of NCCL, and SyncBN becomes BN: both have the same parameters,
    and torch has no SyncBN for the CPU.

    Raises:
        UserError: ``--launcher pytorch`` without torchrun; ``slurm`` or ``mpi`` without a GPU (mmengine counts GPUs to
            place its processes); a GPU and an mmcv without CUDA ops.
    """
    config.launcher = launcher
    if config.default_scope == 'mmpretrain':
        # mmpretrain's own tools add these to its configs.
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
    if replaced := _replace_type(config.model, ('SyncBN', nn.SyncBatchNorm), 'BN'):
        print_log(f'no GPU: SyncBN, named {replaced} times in the config, becomes BN')
    for loader in _LOADERS:
        if config.get(loader):
            config[loader].pin_memory = False
    if launcher == 'none':
        return
    if launcher != 'pytorch':
        raise UserError(f'--launcher {launcher} needs GPUs, and there are none here; use --launcher pytorch (torchrun)')
    config.env_cfg = dict(config.get('env_cfg') or {}, dist_cfg=dict(backend='gloo'))
    wrapper = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=config.get('find_unused_parameters', False),
    )
    if config.get('runner_type') == 'FlexibleRunner':
        config.setdefault('strategy', dict(type='DDPStrategy', model_wrapper=wrapper))
    else:
        config.model_wrapper_cfg = wrapper
    if not torch.distributed.is_initialized():  # mmengine would call torch.cuda.set_device
        torch.distributed.init_process_group('gloo')


def _replace_type(node: Any, old: tuple[Any, ...], new: str) -> int:
    """Replace a ``type`` everywhere below ``node`` and return how often."""
    if isinstance(node, dict):
        found = node.get('type') in old
        if found:
            node['type'] = new
        return found + sum(_replace_type(value, old, new) for value in node.values())
    if isinstance(node, (list, tuple)):
        return sum(_replace_type(value, old, new) for value in node)
    return 0
