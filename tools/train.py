"""Train a detector, segmentor or classifier from a config."""

import argparse

import torch

from deformable_vit.apis.command_line import common_arguments, one_line_errors, set_local_rank
from deformable_vit.apis.config import load_config, set_work_dir
from deformable_vit.apis.device import adapt_to_device
from deformable_vit.apis.train import check_before_training, make_reliable, train
from deformable_vit.errors import UserError


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
    parser.add_argument('--plain', action='store_true', help="without this project's hooks, loop and batch sampler")
    parser.add_argument(
        '--grace',
        type=float,
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
def main() -> None:
    args = parse_args()
    set_local_rank(args)
    config = load_config(args.config, args.cfg_options)
    set_work_dir(config, args.config, args.work_dir)
    if args.amp:
        if not torch.cuda.is_available():
            raise UserError('--amp needs a GPU, and torch.cuda.is_available() is False here; train without it')
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (config.get('auto_scale_lr') or {}):
            raise UserError(f'--auto-scale-lr: config {args.config} has no auto_scale_lr.base_batch_size to scale from')
        config.auto_scale_lr.enable = True
    if args.resume:
        config.resume, config.load_from = True, None if args.resume == 'auto' else args.resume
    if not args.no_check:
        check_before_training(config, args.config)
    if not args.plain:
        make_reliable(config, args.grace, args.on_bad_sample)
    adapt_to_device(config, args.launcher)
    train(config, args.config)


if __name__ == '__main__':
    main()
