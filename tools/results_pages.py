"""Update the tables in configs/<family>/README.md from configs/<family>/metafile.yml."""

import argparse
from pathlib import Path

import yaml
from _processes import ROOT

from deformable_vit.engine import UserError, one_line_errors

BEGIN, END = '<!-- tables: written by tools/results_pages.py -->', '<!-- end of tables -->'
# Title, image size of the FLOPs and published metrics of each dataset.
DATASETS = {
    'COCO': ('COCO val2017', '1280 x 800', ('box AP', 'mask AP')),
    'ADE20K': ('ADE20K val', '512 x 2048', ('mIoU', 'mIoU(ms+flip)')),
    'ImageNet-1k': ('ImageNet-1K', 'test size', ('Top 1 Accuracy',)),
}


def tables(models: list[dict]) -> str:
    """Return the models of a metafile as Markdown, one table per dataset."""
    parts = []
    for dataset, (title, size, metrics) in DATASETS.items():
        rows = [m for m in models if m['Metadata']['Training Data'] == dataset]
        if not rows:
            continue
        head = [
            'config',
            'params (M)',
            f'FLOPs (G), {size}',
            'batch',
            'lr',
            'precision',
            *(f'{metric}, published' for metric in metrics),
            'weights',
        ]
        lines = [f'## {title}', '', '| ' + ' | '.join(head) + ' |', '| ' + ' | '.join('---' for _ in head) + ' |']
        for model in rows:
            if missing := {'Parameters', 'FLOPs', 'Training Recipe'} - set(model['Metadata']):
                raise UserError(
                    f'{model["Name"]} has no {" and no ".join(sorted(missing))}; count parameters and FLOPs with '
                    'tools/get_flops.py, take batch and learning rate from the config'
                )
            recipe = model['Metadata']['Training Recipe']
            batch = f'[{recipe["Batch"]}]({recipe["Source"]})' if 'Source' in recipe else recipe['Batch']
            published = {k: v for result in model.get('Results', ()) for k, v in result['Metrics'].items()}
            weights = f'[official]({model["Weights"]})' if 'Weights' in model else ''
            cells = [
                f'[{model["Name"]}]({Path(model["Config"]).name})',
                f'{model["Metadata"]["Parameters"] / 1e6:.2f}',
                f'{model["Metadata"]["FLOPs"] / 1e9:.1f}',
                batch,
                recipe['Learning Rate'],
                recipe.get('Precision', ''),
                *(str(published.get(metric, '')) for metric in metrics),
                weights,
            ]
            lines.append('| ' + ' | '.join(cells) + ' |')
        parts.append('\n'.join(lines))
    return '\n\n'.join(parts)


def page(directory: Path) -> str:
    """Return the README of a config directory with the tables of its metafile."""
    readme = (directory / 'README.md').read_text()
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise UserError(f'{directory / "README.md"} must contain the lines {BEGIN!r} and {END!r} once each')
    models = yaml.safe_load((directory / 'metafile.yml').read_text())['Models']
    before, rest = readme.split(BEGIN)
    return f'{before}{BEGIN}\n\n{tables(models)}\n\n{END}{rest.split(END)[1]}'


@one_line_errors
def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for metafile in sorted((ROOT / 'configs').glob('*/metafile.yml')):
        text = page(metafile.parent)
        (metafile.parent / 'README.md').write_text(text)
        print(f'{metafile.parent.relative_to(ROOT)}/README.md')


if __name__ == '__main__':
    main()
