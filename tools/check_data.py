"""Check the datasets of a config: annotation files, images and masks. The exit status is 1 if training would suffer."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from deformable_vit.apis.command_line import add_config_options, one_line_errors
from deformable_vit.apis.config import load_config
from deformable_vit.checks import LOADERS, Problem, check
from deformable_vit.errors import UserError

# Examples of a kind of problem in the table.
EXAMPLES = 3


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of MMDetection, MMSegmentation or MMPreTrain')
    parser.add_argument('--quick', action='store_true', help='every hundredth image, for at most 10 s')
    parser.add_argument('--only', choices=('train', 'val', 'test'), nargs='+', help='datasets to check (default: all)')
    parser.add_argument('--json', metavar='FILE', help='write all problems with file and record')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='threads (default: one per core)')
    add_config_options(parser)
    return parser.parse_args()


def table(problems: Sequence[Problem]) -> str:
    """Return one row for each kind of problem, with its first examples below it."""
    lines = [f'{"level":<7}  {"number":>7}  {"dataset":<16}  problem']
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.level, problem.loader, problem.kind), []).append(problem)
    for (level, loader, kind), found in sorted(groups.items()):
        lines.append(f'{level:<7}  {len(found):>7}  {loader:<16}  {kind}')
        for problem in found[:EXAMPLES]:
            where = ', '.join(filter(None, (problem.file, problem.record)))
            lines.append(f'{"":37}' + ': '.join(filter(None, (where, problem.detail))))
        if len(found) > EXAMPLES:
            lines.append(f'{"":37}and {len(found) - EXAMPLES} more')
    return '\n'.join(lines)


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
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task('checking images', total=None)
        report = check(
            config,
            quick=args.quick,
            loaders=loaders,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            workers=args.workers,
        )
    if report:
        print(table(report))
    print(report.summary())
    if args.json:
        numbers = dict(errors=len(report.errors), warnings=len(report) - len(report.errors))
        content = dict(checked=report.checked, **numbers, problems=[asdict(problem) for problem in report])
        Path(args.json).write_text(json.dumps(content, indent=1) + '\n')
    sys.exit(1 if report.errors else 0)


if __name__ == '__main__':
    main()
