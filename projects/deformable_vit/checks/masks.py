"""Checks of segmentation datasets: which images and label maps they read, and whether the two fit together."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.fileio import list_dir_or_file
from numpy.typing import NDArray
from PIL import Image

from ..errors import first_line
from .datasets import Data, Job, check_heads
from .images import IMAGE_SUFFIXES, check_image, is_missing
from .labels import Labels


def check_segmentation(data: Data) -> Iterator[Job]:
    """Check the lists of files, as mmseg finds them, and yield a job for each image."""
    dataset = data.dataset
    check_heads(data, data.classes)
    for key in ('img_suffix', 'seg_map_suffix'):
        if not isinstance(suffix := getattr(dataset, key), str):
            fix = 'a dataset reads one; ConcatDataset takes one dataset for each'
            data.error('a suffix is not text', '', key, f'{suffix!r}; {fix}')
            return
    # mmseg's LoadAnnotations refuses the first sample.
    zero = None if data.has_own_steps else data.step('LoadAnnotations').get('reduce_zero_label')
    if zero is not None and zero != dataset.reduce_zero_label:
        detail = (
            f'reduce_zero_label={zero} there, {dataset.reduce_zero_label} in the dataset; set it in one, the dataset'
        )
        data.error('LoadAnnotations does not fit the dataset', detail=detail)
    is_base = data.type.load_data_list is data.base('mmseg.BaseSegDataset').load_data_list
    if is_base and not dataset.data_prefix.get('img_path'):
        data.error('data_prefix has no img_path', '', '', f'{dataset.data_prefix}')
        return
    # Images without masks, such as those of a test, may have a pipeline that reads none.
    if not data.step('LoadAnnotations') and not data.has_own_steps:
        dataset.data_prefix.pop('seg_map_path', None)
    for directory in filter(None, dataset.data_prefix.values()):
        if not Path(directory).is_dir():
            data.error('the directory does not exist; set data_root and data_prefix', directory)
            return
    dataset.serialize_data = False
    dataset.full_init()
    pairs, labels = dataset.data_list, Labels(data)
    if is_base and (not dataset.ann_file or Path(dataset.ann_file).is_dir()):
        _check_left_out(data, pairs)
    elif not pairs:
        data.error('the dataset reads no image', dataset.ann_file)
    data.is_counted &= any('seg_map_path' in pair for pair in pairs) and not data.has_own_steps
    data.at_end.append(labels.check_all)
    for pair in pairs:
        yield partial(_check_pair, data, labels, pair)


def _check_left_out(data: Data, pairs: Sequence[dict[str, Any]]) -> None:
    """Find images and masks in the directories that the dataset does not read."""
    dataset = data.dataset
    images, masks = (dataset.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
    suffix, mask_suffix = dataset.img_suffix, dataset.seg_map_suffix
    names = list(list_dir_or_file(images, list_dir=False, recursive=True))
    if not pairs:
        has = f'files there end with {_suffixes(names)}' if names else 'the directory has no files'
        data.error('the dataset reads no image', images, '', f'img_suffix is {suffix!r}; {has}')
        return
    stems = {name.removesuffix(suffix) for name in names if name.endswith(suffix)}
    found = list_dir_or_file(masks, list_dir=False, suffix=mask_suffix, recursive=True) if masks else ()
    mask_of = {name.removesuffix(mask_suffix): os.path.join(masks, name) for name in found}
    others, left = {*mask_of.values()}, dict[str, str]()
    for name in names:
        start, end = os.path.splitext(name)
        stem = start.removesuffix(suffix.rpartition('.')[0])
        is_image = end.lower() in IMAGE_SUFFIXES and os.path.join(images, name) not in others
        if is_image and stem not in stems and (stem in mask_of or not masks):
            left[stem] = name
    if left:
        shown = f'{len(left)} of {len(left) + len(stems)} end with {_suffixes(left.values())}'
        fix = 'convert or rename them, or read them with a second dataset in ConcatDataset'
        data.warning('images are left out', images, '', f'{shown}, and img_suffix is {suffix!r}; {fix}')
    if len(pairs) < len(stems) and data.settings.get('indices') is None:
        data.warning('the dataset drops images', images, '', f'{len(stems) - len(pairs)} of {len(stems)}')
    if mask_of and not left and not mask_of.keys() & stems:
        detail = f'such as {next(iter(mask_of.values()))}; a mask has the name of its image with {mask_suffix!r}'
        data.error('no mask has the name of an image; set seg_map_suffix', masks, '', f'{detail} for {suffix!r}')
        return
    for stem in mask_of.keys() - stems:
        exists = f'{left[stem]} exists, but ' if stem in left else ''
        if os.path.islink(os.path.join(images, stem + suffix)):
            exists = 'its image is a link to a file that does not exist; '
        data.warning('the mask has no image', mask_of[stem], '', f'{exists}img_suffix is {suffix!r}')


def _suffixes(names: Iterable[str]) -> str:
    """Return the most frequent suffixes of files, with their numbers."""
    found = Counter(os.path.splitext(name)[1] for name in names)
    return ', '.join(f'{suffix!r} ({number})' for suffix, number in found.most_common(5))


def _check_pair(data: Data, labels: Labels, pair: dict[str, Any]) -> None:
    """Check an image and its label map."""
    shown = check_image(data, Path(pair['img_path']), key=f'img_suffix is {data.dataset.img_suffix!r}')
    mask = pair.get('seg_map_path')
    if not mask or is_missing(data, Path(mask), 'mask', key=f'seg_map_suffix is {data.dataset.seg_map_suffix!r}'):
        return
    if data.has_own_steps:  # which may read the file in another way
        return
    backend = data.step('LoadAnnotations').get('imdecode_backend', 'pillow')
    try:
        values = mmcv.imread(mask, flag='unchanged', backend=backend).squeeze()
    except Exception as error:  # a damaged file can raise anything
        data.error('the mask is truncated or broken', mask, '', first_line(error))
        return
    if values.ndim != 2:
        data.error('the mask does not have one channel', mask, '', _channels(mask, values, backend))
        return
    size = values.shape[::-1]
    if shown is not None and size != shown:
        # Resizing to one scale helps in training; an evaluation compares with the image.
        is_scaled = data.is_train and abs(size[0] * shown[1] - size[1] * shown[0]) < max(*size, *shown)
        detail = f'{size[0]} x {size[1]}, the image is {shown[0]} x {shown[1]}'
        (data.warning if is_scaled else data.error)('the mask has another size than the image', mask, '', detail)
    labels.check(mask, values)


def _channels(mask: str, values: NDArray[Any], backend: str) -> str:
    """Return how a label map with several channels may have been made, and what to do."""
    with Image.open(mask) as image:
        mode = image.mode
    if mode == 'P':
        return f"imdecode_backend={backend!r} reads the colors of a palette; 'pillow' reads its indices"
    colors = values[..., : 3 if mode in ('RGB', 'RGBA') else 1].reshape(-1, 3 if mode in ('RGB', 'RGBA') else 1)
    number = len(np.unique(colors, axis=0))
    is_gray = bool((colors == colors[:, :1]).all())
    cause = 'all channels are the same, or alpha: keep the first one' if is_gray else f'{number} colors'
    return f'{values.shape}, {mode}: {cause}; save the class of each pixel as a gray value'
