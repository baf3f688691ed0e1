"""Test a checkpoint or an exported file with the metrics of its config: COCO mAP, ADE20K mIoU or ImageNet accuracy."""

import argparse
from pathlib import Path

from deformable_vit.apis.command_line import common_arguments, one_line_errors, set_local_rank
from deformable_vit.apis.config import load_config, set_work_dir
from deformable_vit.apis.device import adapt_to_device
from deformable_vit.apis.test import add_out, add_show, add_tta, test
from deformable_vit.errors import UserError
from deformable_vit.export.evaluation import use_exported
from deformable_vit.export.running import is_exported


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file; its default_scope says whether it is for mmdet, mmseg or mmpretrain'
    )
    parser.add_argument('checkpoint', help="checkpoint of the config's model, or a file of tools/export.py")
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='save the predictions: a .pkl file for detection and classification, a directory of label maps (PNG) for '
        'segmentation',
    )
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='save images of predictions beside the ground truth')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows an image')
    parser.add_argument(
        '--tta', action='store_true', help="test-time augmentation: the config's tta_model and tta_pipeline, else flips"
    )
    common_arguments(parser)
    return parser.parse_args()


@one_line_errors
def main() -> None:
    args = parse_args()
    set_local_rank(args)
    config = load_config(args.config, args.cfg_options)
    set_work_dir(config, args.config, args.work_dir)
    if not config.get('test_dataloader') or not config.get('test_evaluator'):
        raise UserError(f'config {args.config} has no test_dataloader and test_evaluator')

    config.load_from, config.resume = args.checkpoint, False
    if is_exported(args.checkpoint):
        if args.launcher != 'none':
            raise UserError(f'--launcher {args.launcher}: an exported file is tested in one process')
        use_exported(config, args.checkpoint)
        config.load_from = None
    if args.out:
        if Path(args.out).exists():
            raise UserError(f'--out {args.out} exists already; choose another path or remove it')
        add_out(config, args.out)
    if args.show or args.show_dir:
        add_show(config, args.show, args.show_dir, args.wait_time)
    if args.tta:
        add_tta(config)

    adapt_to_device(config, args.launcher)
    test(config, args.config)


if __name__ == '__main__':
    main()
