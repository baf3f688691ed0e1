"""Run mmengine's ``Runner`` on what the machine has: several GPUs, one, or none."""

import logging
import os
from typing import Any, Literal

import torch
from mmcv.ops import get_compiling_cuda_version
from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.fx.proxy import TraceError

from ..checkpoints import CheckpointError, shown
from ..checks import check, check_model, warmup_warning
from .cli import TRACEBACK, UserError, first_line, is_first_process
from .config import check_checkpoint, keep_previous_run
from .guard import guarded, take_policy
from .progress import PROGRESS, ProgressHook
from .protection import Protection
from .resume_checks import CheckpointContentHook
from .space import check_space

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


def quick_check(config: Config, path: str) -> None:
    """Check some of the data of a training, in the main process only.

    Raises:
        UserError: Something would stop or spoil training.
    """
    report = check(config, quick=True, loaders=_LOADERS[:2]) if is_first_process() else []
    errors = [problem for problem in report if problem.level == 'error']
    advice = f'python tools/check_data.py {path} lists all problems'
    if errors:
        more = f', and {len(errors) - 1} more' if len(errors) > 1 else ''
        raise UserError(f'{errors[0].loader}: {errors[0]}{more}; {advice}, --no-check trains anyway')
    if report:
        print_log(f'data: {len(report)} warnings, the first: {report[0]}; {advice}', 'current', logging.WARNING)


def _replace_type(node: Any, old: str, new: str) -> int:
    """Replace a ``type`` everywhere below ``node`` and return how often."""
    if isinstance(node, dict):
        found = node.get('type') == old
        if found:
            node['type'] = new
        return found + sum(_replace_type(value, old, new) for value in node.values())
    if isinstance(node, (list, tuple)):
        return sum(_replace_type(value, old, new) for value in node)
    return 0


class _StartHook(Hook):
    """Accept bare state dicts, keep an earlier run's checkpoints, log what a run uses, and record the start.

    A training has started after its first iteration, which is the first to use the losses; a test when all weights are
    loaded.
    """

    started = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if 'state_dict' not in checkpoint:  # a bare state dict, which Runner takes and FlexibleRunner does not
            weights = dict(checkpoint)
            checkpoint.clear()
            checkpoint['state_dict'] = weights

    def before_train(self, runner: Runner) -> None:
        check_space(runner)
        if runner.cfg.get('resume'):
            return
        barrier()  # all processes have read the checkpoint that they start from
        if previous := keep_previous_run(runner.work_dir, runner.timestamp):
            print_log(f'the checkpoints of an earlier run in {runner.work_dir} were moved to {previous}', 'current')
        if warning := warmup_warning(runner):
            print_log(warning, 'current', logging.WARNING)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        self.started = True

    def before_test(self, runner: Runner) -> None:
        self.started = True


def bare_model(model: nn.Module) -> nn.Module:
    """Return a model without the wrappers of distributed training and test-time augmentation."""
    inner: Any = model.module if is_model_wrapper(model) else model
    return inner.module if isinstance(inner, BaseTTAModel) else inner


def run(config: Config, path: str, task: Literal['train', 'test'], grace: float = 30.0) -> None:
    """Build the runner, then train or test.

    An error up to the first batch (a wrong key, a missing annotation file, a checkpoint of another model) is an error
    in the config and becomes one line; later errors keep their traceback. :class:`.protection.Protection` keeps the
    work of a training, :func:`.guard.guarded` names bad samples and numbers.

    Args:
        config: As :func:`.config.load_config` returns it, with a work directory.
        path: The file of the config, for messages.
        task: What to do.
        grace: Seconds to end an iteration of training and save a checkpoint after Ctrl-C or SIGTERM.

    Raises:
        UserError: Something in the config does not fit, or the work directory cannot be used or written any more.
        CheckpointError: A checkpoint cannot be read.
        Interrupted: A signal has ended the training.
    """
    hook = _StartHook()
    try:
        policy = take_policy(config)
        if task == 'test':
            runner = _build(config, hook, task)
            with guarded(runner, policy, task):
                runner.test()
            return
        protection = Protection(config, grace)
        with protection.active():
            runner = _build(config, hook, task)
            # FlexibleRunner builds the model later, and FSDP has no whole parameters.
            if isinstance(runner.model, nn.Module) and not isinstance(runner.model, FullyShardedDataParallel):
                check_model(bare_model(runner.model), config.default_scope)
            protection.prepare(runner)
            with guarded(runner, policy, task):
                runner.train()
    except Exception as error:
        if hook.started or os.environ.get(TRACEBACK) or isinstance(error, (UserError, CheckpointError)):
            raise
        if isinstance(error, TraceError):
            raise UserError(
                f'efficient_conv_bn_eval={config.get("efficient_conv_bn_eval")!r}: torch.fx cannot trace this model; '
                'remove it from the config (the backbones have no batch norm that it could fuse)'
            ) from error
        raise UserError(f'config {path}: {first_line(error)} ({TRACEBACK}=1 shows the traceback)') from error


def _build(config: Config, hook: Hook, task: Literal['train', 'test']) -> Runner | FlexibleRunner:
    runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    runner.register_hook(hook, priority='VERY_LOW')
    runner.register_hook(CheckpointContentHook(), priority='LOWEST')
    if file := os.environ.get(PROGRESS):
        runner.register_hook(ProgressHook(file))
    if config.get('load_from'):
        _check_load_from(runner, config, task)
    return runner


def _check_load_from(runner: Runner | FlexibleRunner, config: Config, task: Literal['train', 'test']) -> None:
    """Compare the checkpoint of ``load_from`` with the model, and log what matches."""
    if isinstance(runner, FlexibleRunner):  # it would build the model later; its strategy then keeps this one
        runner.model = runner.strategy.build_model(runner.model)
    strict = task == 'test' or config.get('resume', False)
    found = check_checkpoint(bare_model(runner.model), config.load_from, strict=strict)
    print_log(f'{shown(config.load_from)}: {found}', 'current')
