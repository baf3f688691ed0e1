"""Checks of annotation files in Pascal VOC's format."""

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from .images import check_image
from .report import Problem


def check_voc(file: Path, image: Path, decode: bool = True) -> Iterator[Problem]:
    """Yield the problems of the annotation file of an image, and of the image."""
    name = str(file)
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, ValueError) as error:
        yield Problem('the annotation file cannot be read', name, '', ' '.join(str(error).split()))
        return
    size = _values(root.find('size'), ('width', 'height'))
    yield from check_image(image, (int(size[0]), int(size[1])) if size else None, name, decode)
    for i, instance in enumerate(root.findall('object')):
        record = f'object {i}'
        if not instance.findtext('name'):
            yield Problem('an object has no name', name, record)
        box = _values(instance.find('bndbox'), ('xmin', 'ymin', 'xmax', 'ymax'))
        if box is None:
            yield Problem('a box is not four finite numbers', name, record)
        elif box[2] < box[0] or box[3] < box[1]:
            yield Problem('an inverted box: a maximum is below its minimum', name, record, f'{box}')
        elif max(box) <= 1 and size and max(size) > 2:
            yield Problem('the box is normalized (0 to 1); VOC has pixels', name, record, f'{box}')
        elif size and (box[0] > size[0] or box[1] > size[1] or box[2] < 0 or box[3] < 0):
            yield Problem('a box is outside of its image', name, record, f'{box} in {size[0]:g} x {size[1]:g}')
        elif size and (box[2] > size[0] + 2 or box[3] > size[1] + 2 or min(box) < -2):
            yield Problem('a box leaves its image', name, record, f'{box} in {size[0]:g} x {size[1]:g}', 'warning')


def _values(node: ElementTree.Element | None, names: tuple[str, ...]) -> list[float] | None:
    """Return finite numbers of the children with these names, or None."""
    try:
        values = [float((node.findtext(name) if node is not None else None) or 'nan') for name in names]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None
