"""Checks of annotation files in Pascal VOC's format."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from .datasets import Data, Job, check_heads
from .images import check_image, missing_file
from .problem import Problem, Report


def check_voc(data: Data, report: Report) -> Iterator[Job]:
    """Report a missing list of names, and yield a job for each of them."""
    listing = data.path(data.settings.get('ann_file'))
    if problem := missing_file(data, listing, 'annotation file'):
        report.append(problem)
        return
    report.extend(check_heads(data, data.classes))
    report.checked['annotation files'] += 1
    root = data.prefix('sub_data_root')
    annotations = root / data.settings.get('ann_subdir', 'Annotations')
    images = root / data.settings.get('img_subdir', 'JPEGImages')
    for name in listing.read_text().splitlines():
        yield partial(_check, data, annotations / f'{name}.xml', images / f'{name}.jpg', listing)


def _check(data: Data, file: Path, image: Path, listing: Path) -> Iterator[Problem]:
    """Yield the problems of the annotation file of an image, and of the image."""
    if problem := missing_file(data, file, f'annotation file, which {listing} lists,'):
        yield problem
        return
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, ValueError) as error:
        yield data.error('the annotation file cannot be read', file, '', ' '.join(str(error).split()))
        return
    size = _values(root.find('size'), 'width', 'height')
    if root.find('size') is not None and (size is None or not all(value.is_integer() for value in size)):
        yield data.error('<size> has no whole width and height', file)
    yield from check_image(data, image, (size[0], size[1]) if size else None, str(file), not data.quick)
    for i, instance in enumerate(root.findall('object')):
        record, name = f'object {i}', instance.findtext('name')
        if name is None:
            yield data.error('an object has no name', file, record)
        if name not in data.classes:  # mmdet leaves it out
            continue
        data.counts[str(name)] += 1
        box = _values(instance.find('bndbox'), 'xmin', 'ymin', 'xmax', 'ymax')
        if box is None:
            yield data.error('a box is not four finite numbers', file, record)
        elif box[2] < box[0] or box[3] < box[1]:
            yield data.error('an inverted box: a maximum is below its minimum', file, record, f'{box}')
        elif max(box) <= 1 and min(box[2:]) < 1 and size and max(size) > 2:
            yield data.error('the box is normalized (0 to 1); VOC has pixels', file, record, f'{box}')
        elif size and (box[2] > size[0] + 2 or box[3] > size[1] + 2 or min(box) < -2):
            yield data.warning('a box leaves its image', file, record, f'{box} in {size[0]:g} x {size[1]:g}')


def _values(node: ElementTree.Element | None, *names: str) -> list[float] | None:
    """Return finite numbers of the children with these names, or None."""
    try:
        values = [float((node.findtext(name) if node is not None else None) or 'nan') for name in names]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None
