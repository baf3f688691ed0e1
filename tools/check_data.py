"""Check the datasets of a config: annotation files, images and masks. The exit status is 1 if training would suffer."""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deformable_vit.checks import LOADERS, check
from deformable_vit.engine import UserError, add_config_options, load_config, one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of MMDetection, MMSegmentation or MMPreTrain')
    parser.add_argument('--quick', action='store_true', help='every hundredth image, for at most 10 s')
    parser.add_argument(
        '--only',
        choices=[loader.removesuffix('_dataloader') for loader in LOADERS],
        nargs='+',
        help='datasets to check (default: all)',
    )
    parser.add_argument('--json', metavar='FILE', help='write all problems with file and record')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='threads (default: one per core)')
    add_config_options(parser)
    return parser.parse_args()


@one_line_errors
def main() -> None:
    args = parse_args()
    if args.workers < 1:
        raise UserError(f'--workers must be at least 1, got {args.workers}')
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise UserError(f'--json {args.json}: the directory does not exist')
    config = load_config(args.config, args.cfg_options)
    loaders = [f'{name}_dataloader' for name in args.only] if args.only else LOADERS
    console = Console(stderr=True)
    bar = Progress(
        TextColumn('checking images'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task('', total=None)
        report = check(
            config,
            quick=args.quick,
            loaders=loaders,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            workers=args.workers,
        )
    print(report.table())
    if args.json:
        report.write_json(args.json)
    sys.exit(1 if report.errors else 0)


if __name__ == '__main__':
    main()
