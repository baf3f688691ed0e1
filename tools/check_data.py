"""Check the datasets of a config: annotation files, images and masks. The exit status is 1 if training would suffer."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.progress import Progress

from deformable_vit.apis.command_line import add_config_options, one_line_errors
from deformable_vit.apis.config import load_config
from deformable_vit.checks import LOADERS, ClassCounts, Problem, check, repair_file
from deformable_vit.errors import UserError
from deformable_vit.errors import shown as printable

# Examples of a kind of problem in the table.
EXAMPLES = 3
# Rows of a table of classes.
MOST_CLASSES = 40


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of MMDetection, MMSegmentation or MMPreTrain')
    parser.add_argument('--quick', action='store_true', help='every hundredth image, for at most 10 s')
    parser.add_argument('--only', choices=('train', 'val', 'test'), nargs='+', help='datasets to check (default: all)')
    parser.add_argument('--fix', metavar='FILE', help='write a repaired copy of the annotation file, and check nothing')
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


def count_tables(counts: Mapping[str, ClassCounts]) -> str:
    """Return a table for each loader with one row for each class; of many classes, the most frequent and the rarest."""
    lines = []
    for loader, rows in counts.items():
        names, many = list(rows), len(list(rows)) > MOST_CLASSES
        if many:
            names.sort(key=lambda name: -rows[name].images)
            names = names[: MOST_CLASSES // 2] + names[-MOST_CLASSES // 2 :]
        has_boxes, has_pixels = (any(getattr(row, key) for _, row in rows.items()) for key in ('boxes', 'pixels'))
        titles = [loader, 'images', *['pixels'] * has_pixels, *['boxes', 'smallest', 'largest'] * has_boxes]
        table = [titles]
        for name in names:
            row, shown = rows[name], name if name in rows.classes else f'{name} (no class)'
            sizes = [f'{size[0]:.6g} x {size[1]:.6g}' if size else '-' for size in (row.smallest, row.largest)]
            pixels, boxes = [str(row.pixels)] * has_pixels, [str(row.boxes), *sizes] * has_boxes
            table.append([printable(shown), str(row.images), *pixels, *boxes])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for first, *others in table:
            numbers = (value.rjust(width) for value, width in zip(others, widths[1:], strict=True))
            lines.append('  '.join([first.ljust(widths[0]), *numbers]))
        lines += [f'and {len(list(rows)) - len(names)} classes between them'] * many + ['']
    return '\n'.join(lines)


def fix(config: Config, loaders: Sequence[str], out: str) -> None:
    """Write a repaired copy of an annotation file, and say what has been changed."""
    done, file = repair_file(config, loaders, Path(out))
    for change, number in done.changes.items():
        print(f'{number:>7}  {change}')
    for line in done.left[:EXAMPLES]:
        print(f'not repaired: {printable(line)}')
    if len(done.left) > EXAMPLES:
        print(f'not repaired: {len(done.left) - EXAMPLES} more')
    if not done.changes:
        print(f'{file}: there is nothing to repair with certainty; no file is written')
        return
    names = [f'{loader}.dataset.ann_file' for loader in loaders]
    names += [f'{loader.replace("dataloader", "evaluator")}.ann_file' for loader in loaders if loader != LOADERS[0]]
    print(f'{out}: a repaired copy of {file}; set {", ".join(names)} to {str(Path(out).absolute())!r}')


@one_line_errors
def main() -> None:
    args = parse_args()
    if args.workers < 1:
        raise UserError(f'--workers must be at least 1, got {args.workers}')
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise UserError(f'--json {args.json}: the directory does not exist')
    config = load_config(args.config, args.cfg_options)
    loaders = [f'{name}_dataloader' for name in args.only] if args.only else LOADERS
    if args.fix:
        fix(config, loaders, args.fix)
        return
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
    if report.counts:
        print(count_tables(report.counts))
    if report:
        print(table(report))
    print(report.summary())
    if args.json:
        numbers = dict(errors=len(report.errors), warnings=len(report) - len(report.errors))
        counts = {
            loader: {name: row.numbers() | dict(is_class=name in rows.classes) for name, row in rows.items()}
            for loader, rows in report.counts.items()
        }
        content = dict(
            checked=report.checked, **numbers, counts=counts, problems=[asdict(problem) for problem in report]
        )
        Path(args.json).write_text(json.dumps(content, indent=1) + '\n')
    sys.exit(1 if report.errors else 0)


if __name__ == '__main__':
    main()
