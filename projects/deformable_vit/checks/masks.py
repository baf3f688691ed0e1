"""Checks of the label maps of segmentation datasets."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mmcv
import numpy as np
from mmengine.fileio import list_dir_or_file

from .._nested import walk
from ..errors import first_line
from .datasets import Data, Job, check_heads, listed
from .images import check_image, is_missing

# Number of outputs and ignored label of each head; a softmax stops at any other label.
_Heads = dict[str, tuple[float, int]]


def check_segmentation(data: Data) -> Iterator[Job]:
    """Check the lists of files, as mmseg finds them, and yield a job for each image."""
    dataset = data.dataset
    check_heads(data, data.classes)
    for directory in filter(None, dataset.data_prefix.values()):
        if not Path(directory).is_dir():
            data.error('the directory does not exist; set data_root and data_prefix', directory)
            return
    pairs, directory = dataset.load_data_list(), dataset.data_prefix.get('seg_map_path')
    if not pairs:
        kind = f'no file ends with {dataset.img_suffix!r}; set data_root, data_prefix and img_suffix'
        data.error(kind, dataset.data_prefix.get('img_path'))
    if directory and not dataset.ann_file:
        names = list_dir_or_file(directory, list_dir=False, suffix=dataset.seg_map_suffix, recursive=True)
        for mask in {str(Path(directory, name)) for name in names} - {pair['seg_map_path'] for pair in pairs}:
            data.warning('the mask has no image', mask, '', f'img_suffix is {dataset.img_suffix!r}')
    heads: _Heads = {}
    for key, head in walk(data.config.model.get('decode_head'), 'model.decode_head'):
        if isinstance(head, dict) and isinstance(number := head.get('num_classes'), int):
            is_softmax = 'num_queries' not in head and not any(
                k.endswith('.use_sigmoid') and v for k, v in walk(head, key)
            )
            heads[key] = max(number, 2) if is_softmax else math.inf, head.get('ignore_index', 255)
    for pair in pairs:
        yield partial(_check_pair, data, heads, Path(pair['img_path']), pair.get('seg_map_path'))


def _check_pair(data: Data, heads: _Heads, image: Path, mask: str | None) -> None:
    """Check an image and its label map."""
    shown = check_image(data, image)
    if not mask or is_missing(data, Path(mask), 'mask'):
        return
    try:
        backend = data.step('LoadAnnotations').get('imdecode_backend', 'pillow')
        values = mmcv.imread(mask, flag='unchanged', backend=backend).squeeze()
    except Exception as error:  # a damaged file can raise anything
        data.error('the mask is truncated or broken', mask, '', first_line(error))
        return
    if data.has_own_steps:  # which may read the file in another way
        return
    if values.ndim != 2:
        detail = f'{values.shape[-1]}; save the class of each pixel as a gray value'
        data.error('the mask does not have one channel', mask, '', detail)
    elif (highest := values.max(initial=0)) > 255:
        data.error('the mask has more than 8 bits, which mmseg cuts off', mask, '', f'values up to {highest}')
    else:
        size = values.shape[::-1]
        if shown is not None and size != shown:
            # Resizing to one scale helps in training; an evaluation compares with the image.
            is_scaled = data.is_train and abs(size[0] * shown[1] - size[1] * shown[0]) < max(*size, *shown)
            detail = f'{size[0]} x {size[1]}, the image is {shown[0]} x {shown[1]}'
            (data.warning if is_scaled else data.error)('the mask has another size than the image', mask, '', detail)
        found, pixels = np.unique(values.astype(np.uint8), return_counts=True)
        _check_values(data, heads, mask, dict(zip(found.tolist(), pixels.tolist(), strict=True)))


def _check_values(data: Data, heads: _Heads, mask: str, values: dict[int, int]) -> None:
    """Compare the labels that training gets, and the number of pixels of each value, with the classes and the heads."""
    zero, label_map = data.dataset.reduce_zero_label, data.dataset.label_map or {}
    labels = {value: (255 if value in (0, 255) else value - 1) if zero else value for value in values}
    labels = {value: label_map.get(label, label) for value, label in labels.items()}
    ignored = {255, data.dataset.ignore_index, *(label for _, label in heads.values())}
    found = {label for label in labels.values() if label < len(data.classes) and label not in ignored}
    for value, label in labels.items():
        if label in found:
            data.counts.add_pixels(data.classes[label], mask, values[value])
    if wrong := [value for value, label in labels.items() if label not in found | ignored]:
        expected = f'{int(zero)} to {len(label_map or data.classes) - (not zero)}'
        detail = f'{wrong[:10]}; expected {expected} for the classes {listed(data.classes)}'
        data.warning('the mask has values of no class', mask, '', detail)
    for key, (number, own) in heads.items():
        fatal = [value for value, label in labels.items() if label >= number and label != own]
        if fatal and data.is_train:
            detail = f'{fatal[:10]}; {key} has {number} outputs and ignores {own} (ignore_index)'
            data.error('the mask has values that the head cannot learn', mask, '', detail)
