"""Train a detector, segmentor or classifier from a config."""

import argparse

import torch
from _processes import exit_distributed
from mmengine.logging import print_log

from deformable_vit.engine import (
    UserError,
    adapt_to_device,
    common_arguments,
    latest_checkpoint,
    load_config,
    one_line_errors,
    quick_check,
    quiet_console,
    run,
    set_local_rank,
    set_work_dir,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file; its default_scope says whether it is for mmdet, mmseg or mmpretrain'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help="resume from a checkpoint; without a path (or with 'auto') from the last one in the work directory",
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate to the batch size, by the config's auto_scale_lr.base_batch_size",
    )
    parser.add_argument(
        '--grace',
        type=float,
        default=30,
        metavar='SECONDS',
        help='time to end the iteration and save a checkpoint after Ctrl-C or SIGTERM (default: 30)',
    )
    parser.add_argument(
        '--on-bad-sample',
        choices=['raise', 'skip'],
        help='after an error in a sample: stop after saving a checkpoint (default), or take another sample',
    )
    parser.add_argument(
        '--no-check', action='store_true', help='do not read some images and the annotation files before training'
    )
    common_arguments(parser)
    return parser.parse_args()


@one_line_errors
@quiet_console()
def main() -> None:
    args = parse_args()
    set_local_rank(args)
    config = load_config(args.config, args.cfg_options)
    set_work_dir(config, args.config, args.work_dir)

    if args.amp:
        if not torch.cuda.is_available():
            raise UserError('--amp needs a GPU, and torch.cuda.is_available() is False here; train without it')
        kind = config.optim_wrapper.get('type', 'OptimWrapper')
        if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise UserError(f'--amp works with OptimWrapper; config {args.config} has {kind}')
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.setdefault('loss_scale', 'dynamic')

    if args.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise UserError(f'--auto-scale-lr: config {args.config} has no auto_scale_lr.base_batch_size to scale from')
        config.auto_scale_lr.enable = True

    if args.resume or (config.get('resume') and not config.get('load_from')):
        checkpoint = latest_checkpoint(config.work_dir) if args.resume in (None, 'auto') else args.resume
        if checkpoint:
            config.load_from, config.resume = checkpoint, True
        else:
            config.resume = False
            print_log(f'--resume: no checkpoint in {config.work_dir}; starting from the beginning')

    if args.on_bad_sample:
        config.merge_from_dict({'default_hooks.guard.on_bad_sample': args.on_bad_sample})
    if not args.no_check:
        quick_check(config, args.config)
    adapt_to_device(config, args.launcher)
    run(config, args.config, 'train', args.grace)
    exit_distributed()


if __name__ == '__main__':
    main()
