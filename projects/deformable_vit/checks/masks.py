"""Checks of the label maps of segmentation datasets."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.fileio import list_dir_or_file

from .._nested import walk
from ..errors import first_line
from .datasets import Data, Job, check_heads, listed
from .images import check_image, image_size, missing_file
from .problem import Problem, Report


def check_segmentation(data: Data, report: Report) -> Iterator[Job]:
    """Report the problems of the lists of files, as mmseg finds them, and yield a job for each image."""
    dataset = data.build()
    labels = _Labels(data, dataset)
    report.extend(check_heads(data, labels.classes))
    for directory in filter(None, dataset.data_prefix.values()):
        if not Path(directory).is_dir():
            report.append(data.error('the directory does not exist; set data_root and data_prefix', directory))
            return
    pairs, directory = dataset.load_data_list(), dataset.data_prefix.get('seg_map_path')
    if not pairs:
        kind = f'no file ends with {dataset.img_suffix!r}; set data_root, data_prefix and img_suffix'
        report.append(data.error(kind, dataset.data_prefix.get('img_path')))
    if directory and not dataset.ann_file:
        names = list_dir_or_file(directory, list_dir=False, suffix=dataset.seg_map_suffix, recursive=True)
        for mask in sorted({str(Path(directory, name)) for name in names} - {pair['seg_map_path'] for pair in pairs}):
            report.append(data.warning('the mask has no image', mask, '', f'img_suffix is {dataset.img_suffix!r}'))
    for pair in pairs:
        yield partial(labels.check_pair, Path(pair['img_path']), pair.get('seg_map_path'))


class _Labels:
    """The labels of a dataset of mmseg, and what the heads do with them."""

    def __init__(self, data: Data, dataset: Any) -> None:
        self.data, self.zero = data, dataset.reduce_zero_label
        self.classes = tuple(dataset.metainfo.get('classes') or ())
        self.label_map: dict[int, int] = dataset.label_map or {}
        self.backend = data.step('LoadAnnotations').get('imdecode_backend', 'pillow')
        # (number of outputs, ignored label) by key, of the heads with a softmax, which stops at another label.
        self.heads: dict[str, tuple[int, int]] = {}
        self.ignored = {255, dataset.ignore_index}
        for key, head in walk(data.config.model.get('decode_head'), 'model.decode_head'):
            if isinstance(head, dict) and isinstance(number := head.get('num_classes'), int):
                self.ignored.add(ignored := head.get('ignore_index', 255))
                if 'num_queries' not in head and not any(k.endswith('.use_sigmoid') and v for k, v in walk(head, key)):
                    self.heads[key] = max(number, 2), ignored

    def check_pair(self, image: Path, mask: str | None) -> Iterator[Problem]:
        """Yield the problems of an image and its label map."""
        yield from check_image(self.data, image, decode=not self.data.quick)
        if mask:
            yield from self._check(Path(mask), image)

    def _check(self, file: Path, image: Path) -> Iterator[Problem]:
        data = self.data
        if problem := missing_file(data, file, 'mask'):
            yield problem
            return
        try:
            values = mmcv.imread(file, flag='unchanged', backend=self.backend).squeeze()
        except Exception as error:  # a damaged file can raise anything
            yield data.error('the mask is truncated or broken', file, '', first_line(error))
            return
        if data.has_own_steps:  # which may read the file in another way
            return
        if values.ndim != 2:
            detail = f'{values.shape[-1]}; save the class of each pixel as a gray value'
            yield data.error('the mask does not have one channel', file, '', detail)
        elif values.max(initial=0) > 255:
            detail = f'values up to {values.max()}'
            yield data.error('the mask has more than 8 bits, which mmseg cuts off', file, '', detail)
        else:
            shown, size = image_size(data, image), values.shape[::-1]
            if shown is not None and size != shown:
                # Resizing to one scale helps in training; an evaluation compares with the image.
                is_scaled = data.is_train and abs(size[0] * shown[1] - size[1] * shown[0]) < max(*size, *shown)
                level = data.warning if is_scaled else data.error
                detail = f'{size[0]} x {size[1]}, the image is {shown[0]} x {shown[1]}'
                yield level('the mask has another size than the image', file, '', detail)
            yield from self._check_values(file, np.unique(values.astype(np.uint8)).tolist())

    def _check_values(self, file: Path, values: list[int]) -> Iterator[Problem]:
        """Compare the labels that training gets with the classes and the heads."""
        labels = {value: (255 if value in (0, 255) else value - 1) if self.zero else value for value in values}
        labels = {value: self.label_map.get(label, label) for value, label in labels.items()}
        found = {label for label in labels.values() if label < len(self.classes) and label not in self.ignored}
        self.data.counts.update(self.classes[label] for label in found)
        if not found:
            yield self.data.warning('the mask has no pixel of a class', file)
        if wrong := [v for v, label in labels.items() if label not in found and label not in self.ignored]:
            first, last = int(self.zero), len(self.label_map or self.classes) - (not self.zero)
            kind, detail = 'the mask has values of no class', f'{wrong[:10]}; expected {first} to {last}'
            yield self.data.warning(kind, file, '', f'{detail} for the classes {listed(self.classes)}')
        for key, (number, ignored) in self.heads.items():
            fatal = [v for v, label in labels.items() if label >= number and label != ignored]
            if fatal and self.data.is_train:
                detail = f'{fatal[:10]}; {key} has {number} outputs and ignores {ignored} (ignore_index)'
                yield self.data.error('the mask has values that the head cannot learn', file, '', detail)
