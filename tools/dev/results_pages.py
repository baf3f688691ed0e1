"""Write the tables of configs/*/README.md and the model zoo of README.md from configs/*/metafile.yml."""

import argparse
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
FAMILIES = ('pvt', 'pvtv2', 'dpt', 'dat', 'baselines')
BEGIN, END = '<!-- tables: written by tools/dev/results_pages.py -->', '<!-- end of tables -->'
# Title, image size of the FLOPs and published metrics of each dataset.
DATASETS = {
    'COCO': ('COCO val2017', '1280 x 800', ('box AP', 'mask AP')),
    'ADE20K': ('ADE20K val', '512 x 2048', ('mIoU', 'mIoU(ms+flip)')),
    'ImageNet-1k': ('ImageNet-1K', 'test size', ('Top 1 Accuracy',)),
}
TYPES = {'pvt': 'PVT', 'pvtv2': 'PVTv2', 'dpt': 'DPT', 'dat': 'DAT'}
# A classifier: family, size, plus signs, input size. The ablations of DAT-T, whose names end with digits, do not match.
CLASSIFIER = re.compile(r'(pvtv2|pvt|dpt|dat)-(b\d(?:-li)?|[a-z]+)((?:-pp?)?)_\d+xb\d+_in1k(-384px)?')
# Title, metric, and pattern of the config's name, for the columns of the model zoo.
HEADS = (
    ('RetinaNet 1x', 'box AP', r'retinanet_{}_fpn_(?:.*-)?1x_coco'),
    ('Mask R-CNN 1x', 'box AP', r'mask-rcnn_{}_fpn_(?:.*-)?1x_coco'),
    ('Mask R-CNN 3x', 'box AP', r'mask-rcnn_{}_fpn_.*-3x_coco'),
    ('Cascade 3x', 'box AP', r'cascade-mask-rcnn_{}_fpn_.*-3x_coco'),
    ('Semantic FPN', 'mIoU', r'fpn_{}_.*_ade20k-.*'),
    ('UPerNet', 'mIoU', r'upernet_{}_.*_ade20k-.*'),
)


def table(head: list[str], rows: list[list[str]]) -> str:
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in [head, ['---'] * len(head), *rows])


def published(model: dict) -> dict[str, float]:
    return {k: v for result in model.get('Results', ()) for k, v in result['Metrics'].items()}


def family_tables(models: list[dict]) -> str:
    """Return the models of a metafile as Markdown, one table per dataset."""
    parts = []
    for dataset, (title, size, metrics) in DATASETS.items():
        rows = []
        for model in models:
            data = model['Metadata']
            if data['Training Data'] != dataset:
                continue
            recipe, results = data['Training Recipe'], published(model)
            rows.append(
                [
                    f'[{model["Name"]}]({Path(model["Config"]).name})',
                    f'{data["Parameters"] / 1e6:.2f}',
                    f'{data["FLOPs"] / 1e9:.1f}',
                    f'[{recipe["Batch"]}]({recipe["Source"]})' if 'Source' in recipe else recipe['Batch'],
                    recipe['Learning Rate'],
                    recipe.get('Precision', ''),
                    *(str(results.get(metric, '')) for metric in metrics),
                    f'[official]({model["Weights"]})' if 'Weights' in model else '',
                ]
            )
        if rows:
            head = ['config', 'params (M)', f'FLOPs (G), {size}', 'batch', 'lr', 'precision']
            head += [*(f'{metric}, published' for metric in metrics), 'weights']
            parts.append(f'## {title}\n\n{table(head, rows)}')
    return '\n\n'.join(parts)


def cell(model: dict | None, metric: str) -> str:
    """Return a published result with a link to its weights, or a link to the config where none is published."""
    if model is None:
        return ''
    result = published(model).get(metric)
    if result is None:
        return f'[config]({model["Config"]})'
    return f'[{result}]({model["Weights"]})' if 'Weights' in model else str(result)


def zoo(models: list[dict]) -> str:
    """Return the models as Markdown: a row for each backbone, a column for each head."""
    rows = []
    for model in models:
        if not (name := CLASSIFIER.fullmatch(model['Name'])):
            continue
        family, size, plus, large = name.groups(default='')
        arch = size + '+' * plus.count('p')
        short = f'{family}-{size if family == "pvtv2" else size[0]}{plus}'
        found = []
        for _, metric, pattern in HEADS:
            named = [m for m in models if re.fullmatch(pattern.format(re.escape(short)), m['Name']) and not large]
            found.append(cell(named[0] if named else None, metric))
        rows.append(
            [
                f'`{TYPES[family]}`, `{arch}`' + (', 384 x 384' if large else ''),
                f'{model["Metadata"]["Parameters"] / 1e6:.1f}',
                f'{model["Metadata"]["FLOPs"] / 1e9:.1f}',
                cell(model, 'Top 1 Accuracy'),
                *found,
            ]
        )
    rows.sort(key=lambda row: (row[0].split(',')[0], '+' in row[0], float(row[1])))
    return table(['backbone', 'params (M)', 'FLOPs (G)', 'ImageNet', *(title for title, *_ in HEADS)], rows)


def filled(page: Path, tables: str) -> str:
    """Return the text of a page with other tables."""
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f'{page}: expected {BEGIN!r} and {END!r} once each')
    before, rest = text.split(BEGIN)
    return f'{before}{BEGIN}\n\n{tables}\n\n{END}{rest.split(END)[1]}'


def pages() -> dict[Path, str]:
    """Return the text that each page should have."""
    models = {f: yaml.safe_load((ROOT / 'configs' / f / 'metafile.yml').read_text())['Models'] for f in FAMILIES}
    texts = {
        page: family_tables(models[page.parent.name]) for f in FAMILIES if (page := ROOT / f'configs/{f}/README.md')
    }
    texts[ROOT / 'README.md'] = zoo([model for f in FAMILIES for model in models[f]])
    return {page: filled(page, tables) for page, tables in texts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; exit with 1 if a page is outdated')
    check = parser.parse_args().check
    outdated = {page: text for page, text in pages().items() if text != page.read_text()}
    for page, text in outdated.items():
        if not check:
            page.write_text(text)
        print(page.relative_to(ROOT), 'is outdated' if check else 'written')
    sys.exit(check and bool(outdated))


if __name__ == '__main__':
    main()
