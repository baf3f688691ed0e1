"""Checks of annotation files in Pascal VOC's format."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from .datasets import Data, Job, check_heads, report_dropped
from .images import check_image, is_missing


def check_voc(data: Data) -> Iterator[Job]:
    """Check the heads, and yield a job for each name of the list."""
    dataset = data.dataset
    check_heads(data, data.classes)
    annotations, images = (Path(dataset.sub_data_root, name) for name in (dataset.ann_subdir, dataset.img_subdir))
    for name in Path(dataset.ann_file).read_text().splitlines():
        yield partial(_check, data, annotations / f'{name}.xml', images / f'{name}.jpg')
    data.at_end.append(partial(_check_filters, data))


def _check_filters(data: Data) -> None:
    """Let mmdet load the annotation files, if they have no errors, and say what it leaves out."""
    is_right = data.is_counted and not any(problem.loader == data.loader for problem in data.report.errors)
    if is_right and len(data.counts.missing()) < len(data.counts.classes):  # otherwise the classes are the cause
        loaded = data.dataset.data_list = data.dataset.load_data_list()
        report_dropped(data, loaded, data.dataset.filter_data())


def _check(data: Data, file: Path, image: Path) -> None:
    """Check the annotation file of an image, and the image."""
    if is_missing(data, file, f'annotation file, which {data.dataset.ann_file} lists,'):
        return
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, ValueError) as error:
        data.error('the annotation file cannot be read', file, '', ' '.join(str(error).split()))
        return
    size, node = None, root.find('size')
    if node is not None:
        size = _values(node, 'width', 'height')
        if size is None or not all((node.findtext(key) or '').strip().isdigit() for key in ('width', 'height')):
            data.error('<size> has no whole width and height', file)
    others = [] if image.exists() else sorted(image.parent.glob(f'{_escaped(image.stem)}.*'))
    if others:
        data.error(f'{data.type.__name__} reads .jpg files only', others[0], '', f'{image.name} does not exist')
    else:
        check_image(data, image, (size[0], size[1]) if size else None, str(file))
    for i, instance in enumerate(root.findall('object')):
        _check_object(data, file, f'object {i}', instance, size)


def _check_object(data: Data, file: Path, record: str, instance: ElementTree.Element, size: list[float] | None) -> None:
    """Follow mmdet's ``XMLDataset._parse_instance_info`` for an object in an image of (width, height)."""
    name = instance.findtext('name')
    box = _values(instance.find('bndbox'), 'xmin', 'ymin', 'xmax', 'ymax')
    width, height = (box[2] - box[0], box[3] - box[1]) if box else (0.0, 0.0)
    if name not in data.counts.classes:  # mmdet leaves it out
        data.counts.add_box(str(name), file, width, height)
        return
    difficult = instance.findtext('difficult', '0')
    if not difficult.strip().isdigit():
        data.error('<difficult> is not a whole number', file, record, repr(difficult))
    elif int(difficult):
        data.causes.setdefault(str(name), 'all of its boxes are difficult or too small, which trains nothing')
    if box is None:
        data.error('a box is not four finite numbers', file, record)
    elif width < 0 or height < 0:
        data.error('an inverted box: a maximum is below its minimum', file, record, f'{box}')
    elif max(box) <= 1 and min(box[2:]) < 1 and size and max(size) > 2:
        data.error('the box is normalized (0 to 1); VOC has pixels', file, record, f'{box}')
    else:
        if size and (box[2] > size[0] + 2 or box[3] > size[1] + 2 or min(box) < -2):
            data.warning('a box leaves its image', file, record, f'{box} in {size[0]:g} x {size[1]:g}')
        if not difficult.strip().strip('0'):
            data.counts.add_box(str(name), file, width, height)


def _escaped(stem: str) -> str:
    """Return a pattern of :mod:`fnmatch` for a name."""
    return ''.join(f'[{letter}]' if letter in '*?[' else letter for letter in stem)


def _values(node: ElementTree.Element | None, *names: str) -> list[float] | None:
    """Return finite numbers of the children with these names, or None."""
    try:
        values = [float((node.findtext(name) if node is not None else None) or 'nan') for name in names]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None
