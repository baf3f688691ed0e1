"""Checks of annotation files in Pascal VOC's format."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from .datasets import Data, Job, check_heads
from .images import check_image, is_missing


def check_voc(data: Data) -> Iterator[Job]:
    """Check the heads, and yield a job for each name of the list."""
    dataset = data.dataset
    check_heads(data, data.classes)
    annotations, images = (Path(dataset.sub_data_root, name) for name in (dataset.ann_subdir, dataset.img_subdir))
    for name in Path(dataset.ann_file).read_text().splitlines():
        yield partial(_check, data, annotations / f'{name}.xml', images / f'{name}.jpg')


def _check(data: Data, file: Path, image: Path) -> None:
    """Check the annotation file of an image, and the image."""
    if is_missing(data, file, f'annotation file, which {data.dataset.ann_file} lists,'):
        return
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, ValueError) as error:
        data.error('the annotation file cannot be read', file, '', ' '.join(str(error).split()))
        return
    size = _values(root.find('size'), 'width', 'height')
    if root.find('size') is not None and (size is None or not all(value.is_integer() for value in size)):
        data.error('<size> has no whole width and height', file)
    check_image(data, image, (size[0], size[1]) if size else None, str(file))
    for i, instance in enumerate(root.findall('object')):
        record, name = f'object {i}', instance.findtext('name')
        if name not in data.classes:  # mmdet leaves it out
            continue
        data.counts[str(name)] += 1
        box = _values(instance.find('bndbox'), 'xmin', 'ymin', 'xmax', 'ymax')
        if box is None:
            data.error('a box is not four finite numbers', file, record)
        elif box[2] < box[0] or box[3] < box[1]:
            data.error('an inverted box: a maximum is below its minimum', file, record, f'{box}')
        elif max(box) <= 1 and min(box[2:]) < 1 and size and max(size) > 2:
            data.error('the box is normalized (0 to 1); VOC has pixels', file, record, f'{box}')
        elif size and (box[2] > size[0] + 2 or box[3] > size[1] + 2 or min(box) < -2):
            data.warning('a box leaves its image', file, record, f'{box} in {size[0]:g} x {size[1]:g}')


def _values(node: ElementTree.Element | None, *names: str) -> list[float] | None:
    """Return finite numbers of the children with these names, or None."""
    try:
        values = [float((node.findtext(name) if node is not None else None) or 'nan') for name in names]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None
