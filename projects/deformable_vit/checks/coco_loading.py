"""Reading of an annotation file in COCO's format, and what mmdet's own loading drops of it."""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import first_line
from .datasets import Data, report_dropped


def read_json(file: Path) -> Any:
    """Read a file as pycocotools does, in the encoding of the system.

    Raises:
        ValueError: It is not JSON.
        OSError: It cannot be read.
    """
    with file.open('rb') as binary:
        if binary.read(2) == b'\x1f\x8b':
            raise ValueError('it is compressed; unpack it')
    try:
        return json.loads(file.read_text())
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error


def check_loading(data: Data, content: dict[str, Any], dropped: Mapping[str, Counter[str]]) -> set[Any]:
    """Let mmdet load the content of the annotation file, say what it leaves out, and count the classes.

    Args:
        data: A dataset that reads COCO's format.
        content: Of its annotation file.
        dropped: How many annotations the dataset drops, or ignores in training, by name of the category and reason.

    Returns:
        The ids of the images that are left.
    """
    dataset, classes = data.dataset, data.classes
    with contextlib.redirect_stdout(io.StringIO()):  # the progress of pycocotools
        api = dataset.COCOAPI()
        api.dataset = content
        api.createIndex()
        api.img_ann_map, api.cat_img_map = api.imgToAnns, api.catToImgs
    dataset.COCOAPI = lambda _: api  # the file has been read
    try:
        dataset.data_list = dataset.load_data_list()
        kept = dataset.filter_data()
    except Exception as error:
        data.error(f'{data.type.__name__} cannot load the annotation file', dataset.ann_file, '', first_line(error))
        data.is_counted = False
        return set(api.imgs)
    report_dropped(data, dataset.data_list, kept)
    for image in kept:
        for instance in image['instances']:
            if not instance['ignore_flag']:
                x0, y0, x1, y1 = instance['bbox']
                data.counts.add_box(classes[instance['bbox_label']], image['img_id'], x1 - x0, y1 - y0)
    listed = Counter(str(api.cats.get(a['category_id'], {}).get('name')) for a in content.get('annotations') or ())
    for name in data.counts.missing():
        if number := listed[name]:
            reasons = [f'{count} {reason}' for reason, count in dropped.get(name, Counter()).items()]
            data.causes[name] = f'{number} annotations, {", ".join(reasons) or "on images that are dropped"}'
    dataset.data_list = []  # of much memory
    return {image['img_id'] for image in kept}
