"""Write the tables of configs/*/README.md and the model zoo of README.md from configs/*/metafile.yml."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BEGIN, END = '<!-- tables: written by tools/dev/results_pages.py -->', '<!-- end of tables -->'
# Title, image size of the FLOPs and published metrics of each dataset.
DATASETS = {
    'COCO': ('COCO val2017', '1280 x 800', ('box AP', 'mask AP')),
    'ADE20K': ('ADE20K val', '512 x 2048', ('mIoU', 'mIoU(ms+flip)')),
    'ImageNet-1k': ('ImageNet-1K', 'test size', ('Top 1 Accuracy',)),
}
TYPES = {'pvt': 'PVT', 'pvtv2': 'PVTv2', 'dpt': 'DPT', 'dat': 'DAT'}  # by family
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


def published(model: dict[str, Any]) -> dict[str, float]:
    return {k: v for result in model.get('Results', ()) for k, v in result['Metrics'].items()}


def family_tables(models: list[dict[str, Any]]) -> str:
    """Return the models of a metafile as Markdown, one table per dataset."""
    parts = []
    for dataset, (title, size, metrics) in DATASETS.items():
        head = ['config', 'params (M)', f'FLOPs (G), {size}', 'batch', 'lr', 'precision']
        head += [*(f'{metric}, published' for metric in metrics), 'published by', 'weights']
        listed = [model for model in models if model['Metadata']['Training Data'] == dataset]
        if listed:
            rows = [row(model, metrics) for model in listed]
            parts.append(f'## {title}\n\n{table(head, rows)}\n\n{commands(listed, metrics)}')
    return '\n\n'.join(parts)


def commands(models: list[dict[str, Any]], metrics: tuple[str, ...]) -> str:
    """Return the command of each recipe, beside the published result, as Markdown: a block for each number of GPUs."""
    blocks: dict[tuple[int, int], list[str]] = {}
    for model in models:
        recipe, results = model['Metadata']['Training Recipe'], published(model)
        gpus = int(recipe['Batch'].split(' x ')[0])
        nodes, per_node = max(1, gpus // 8), min(8, gpus)
        amp = ' --amp' if recipe.get('Precision') == 'fp16' else ''
        shown = ', '.join(f'{metric} {results[metric]}' for metric in metrics if metric in results)
        command = f'{f"NNODES={nodes} " if nodes > 1 else ""}bash tools/dist_train.sh {model["Config"]} {per_node}{amp}'
        blocks.setdefault((nodes, per_node), []).append(command + (f'    # {shown}' if shown else ''))
    parts = ['<details><summary>Commands</summary>']
    for (nodes, per_node), lines in sorted(blocks.items()):
        where = f'{nodes} nodes of {per_node} GPUs, on each with its NODE_RANK and the MASTER_ADDR of the first'
        title = where if nodes > 1 else f'{per_node} GPUs'
        parts.append(f'{title}:\n\n```bash\n' + '\n'.join(lines) + '\n```')
    return '\n\n'.join([*parts, '</details>'])


def publisher(model: dict[str, Any]) -> str:
    """Return who published the results: the official code's tables, if the metafile does not say otherwise."""
    return ', '.join(dict.fromkeys(result.get('Source', 'code') for result in model.get('Results', ())))


def row(model: dict[str, Any], metrics: tuple[str, ...]) -> list[str]:
    data = model['Metadata']
    recipe, results = data['Training Recipe'], published(model)
    return [
        f'[{model["Name"]}]({Path(model["Config"]).name})',
        f'{data["Parameters"] / 1e6:.2f}',
        f'{data["FLOPs"] / 1e9:.1f}',
        f'[{recipe["Batch"]}]({recipe["Source"]})' if 'Source' in recipe else recipe['Batch'],
        recipe['Learning Rate'],
        recipe.get('Precision', ''),
        *(str(results.get(metric, '')) for metric in metrics),
        publisher(model),
        f'[official]({model["Weights"]})' if 'Weights' in model else '',
    ]


def cell(model: dict[str, Any], metric: str) -> str:
    """Return a published result with a link to its weights, or a link to the config where none is published."""
    result = published(model).get(metric)
    if result is None:
        return f'[config]({model["Config"]})'
    return f'[{result}]({model["Weights"]})' if 'Weights' in model else str(result)


def zoo(models: list[dict[str, Any]]) -> str:
    """Return the models as Markdown: a row for each backbone, a column for each head."""
    rows = []
    for model in models:
        if not (name := CLASSIFIER.fullmatch(model['Name'])):
            continue
        family, size, plus, large = name.groups(default='')
        arch = f'`{TYPES[family]}`, `{size}{"+" * plus.count("p")}`' + (', 384 x 384' if large else '')
        short = f'{family}-{size if family == "pvtv2" else size[0]}{plus}'
        cells = [cell(model, 'Top 1 Accuracy')]
        for _, metric, pattern in HEADS:
            named = [m for m in models if re.fullmatch(pattern.format(re.escape(short)), m['Name']) and not large]
            cells.append(cell(named[0], metric) if named else '')
        data = model['Metadata']
        rows.append([arch, f'{data["Parameters"] / 1e6:.1f}', f'{data["FLOPs"] / 1e9:.1f}', *cells])
    rows.sort(key=lambda row: (row[0].split(',')[0], '+' in row[0], float(row[1])))
    return table(['backbone', 'params (M)', 'FLOPs (G)', 'ImageNet', *(title for title, *_ in HEADS)], rows)


def pages() -> dict[Path, str]:
    """Return the text that each page should have."""
    models = {}
    for family in (*TYPES, 'baselines'):
        models[family] = yaml.safe_load((ROOT / f'configs/{family}/metafile.yml').read_text())['Models']
    tables = {ROOT / f'configs/{family}/README.md': family_tables(models[family]) for family in models}
    tables[ROOT / 'README.md'] = zoo([model for family in models.values() for model in family])
    texts = {}
    for page, written in tables.items():
        before, rest = page.read_text().split(BEGIN)
        texts[page] = f'{before}{BEGIN}\n\n{written}\n\n{END}{rest.split(END)[1]}'
    return texts


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
