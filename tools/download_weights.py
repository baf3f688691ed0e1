"""Download official weights by name, such as dat-tiny_in1k, to where the configs look for them.

A download that breaks off continues when it is started again. A file gets its name when it is whole and fits the model.
"""

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from deformable_vit.apis.command_line import one_line_errors
from deformable_vit.apis.weights import download_weights, size
from deformable_vit.checkpoints import OfficialWeights, find_official, official_weights
from deformable_vit.errors import UserError

COLUMNS = ('name', 'model', 'data', 'published accuracy', 'size', 'source')
SHORT = {'Top 1 Accuracy': 'top-1', 'mIoU(ms+flip)': 'ms+flip'}  # with these, all but the source fit in 120 columns


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help="a name of --list, or a pattern such as 'dat-*_in1k'")
    parser.add_argument('--list', action='store_true', help='list the names (all, or those given) and download nothing')
    parser.add_argument('--out', type=Path, default=Path('checkpoints'), help='directory (default: checkpoints)')
    args = parser.parse_args()

    chosen = select(args.names or (['*'] if args.list else []))
    if args.list:
        print_table(chosen, args.out)
    elif not chosen:
        raise UserError('no NAME is given; --list shows the names')
    elif not download(chosen, args.out):
        sys.exit(1)


def select(names: list[str]) -> list[OfficialWeights]:
    """Return the weights of names and patterns, each once."""
    chosen = {}
    for name in names:
        is_pattern = any(character in name for character in '*?[')
        matches = [known for known in official_weights() if fnmatchcase(known, name)] if is_pattern else []
        for match in matches or [name]:
            chosen[match] = find_official(match)
    return list(chosen.values())


def download(chosen: list[OfficialWeights], directory: Path) -> bool:
    """Download weights one after the other, print a line about each, and return whether all are there."""
    failed = 0
    for weights in chosen:
        try:
            print(download_weights(weights, directory), flush=True)
        except UserError as error:
            failed += 1
            print(f'error: {error}', file=sys.stderr, flush=True)
    return not failed


def print_table(chosen: list[OfficialWeights], directory: Path) -> None:
    rows = [COLUMNS]
    for weights in chosen:
        path = directory / f'{weights.name}.pth'
        results = ', '.join(f'{SHORT.get(metric, metric)} {value}' for metric, value in weights.results.items())
        model = f'{weights.backbone} {weights.arch}'
        rows.append((weights.name, model, weights.data, results, size(path) if path.is_file() else '', weights.source))
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        print('  '.join(f'{cell:{width}}' for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == '__main__':
    main()
