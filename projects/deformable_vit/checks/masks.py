"""Checks of the label maps of segmentation datasets."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.fileio import list_dir_or_file
from mmengine.registry import DATASETS

from .._nested import walk
from ..errors import first_line
from .datasets import Data, Job, check_heads, listed
from .images import check_image, image_size, missing_file
from .problem import Problem, Report


def check_segmentation(data: Data, report: Report) -> Iterator[Job]:
    """Report the problems of the lists of files, as mmseg finds them, and yield a job for each image."""
    with DATASETS.switch_scope_and_registry(data.scope) as registry:
        dataset = registry.build({**data.settings, 'pipeline': [], 'lazy_init': True})
    classes = tuple(dataset.metainfo.get('classes') or ())
    report.extend(check_heads(data, classes))
    images = Path(dataset.data_prefix.get('img_path') or '')
    for directory in filter(None, dataset.data_prefix.values()):
        if not Path(directory).is_dir():
            report.append(data.error('the directory does not exist; set data_root and data_prefix', directory))
            return
    pairs = dataset.load_data_list()
    if not pairs:
        kind = f'no file ends with {dataset.img_suffix!r}; set data_root, data_prefix and img_suffix'
        report.append(data.error(kind, images))
    directory = dataset.data_prefix.get('seg_map_path')
    if directory and not dataset.ann_file:
        suffix = dataset.seg_map_suffix
        found = {str(Path(directory, f)) for f in list_dir_or_file(directory, False, True, suffix, recursive=True)}
        for mask in sorted(found - {pair['seg_map_path'] for pair in pairs}):
            stem = Path(mask).relative_to(directory).as_posix().removesuffix(suffix)
            other = next((f.name for f in (images / stem).parent.glob(f'{Path(stem).name}.*')), '')
            detail = f'there is {other}; img_suffix is {dataset.img_suffix!r}' if other else ''
            report.append(data.warning('the mask has no image', mask, '', detail))
    labels = _Labels(data, dataset, classes)
    for pair in pairs:
        yield partial(_pair, labels, Path(pair['img_path']), pair.get('seg_map_path'))


def _pair(labels: '_Labels', image: Path, mask: str | None) -> Iterator[Problem]:
    yield from check_image(labels.data, image, decode=not labels.data.quick)
    if mask:
        yield from labels.check(Path(mask), image)


class _Labels:
    """The labels of a dataset, and what the heads do with them.

    Args:
        dataset: Of mmseg, as built.
    """

    def __init__(self, data: Data, dataset: Any, classes: tuple[str, ...]) -> None:
        self.data, self.classes, self.zero = data, classes, dataset.reduce_zero_label
        self.label_map: dict[int, int] = dataset.label_map or {}
        self.backend = data.step('LoadAnnotations').get('imdecode_backend', 'pillow')
        # (key, number of outputs, ignored label) of the heads with a softmax, which stops at another label.
        self.heads: list[tuple[str, int, int]] = []
        self.ignored = {255, dataset.ignore_index}
        for key, head in walk(data.config.model.get('decode_head'), 'model.decode_head'):
            if isinstance(head, dict) and isinstance(number := head.get('num_classes'), int):
                ignored = head.get('ignore_index', 255)
                self.ignored.add(ignored)
                if not any(k.endswith('.use_sigmoid') and v for k, v in walk(head, key)) and 'num_queries' not in head:
                    self.heads.append((key, number, ignored))

    def check(self, file: Path, image: Path) -> Iterator[Problem]:
        """Yield the problems of the label map of an image, with the labels that training gets."""
        data = self.data
        if problem := missing_file(data, file, 'mask'):
            yield problem
            return
        try:
            values = mmcv.imread(file, flag='unchanged', backend=self.backend).squeeze()
        except Exception as error:  # a damaged file can raise anything
            yield data.error('the mask is truncated or broken', file, '', first_line(error))
            return
        if self.data.has_own_steps:  # which may read the file in another way
            return
        if values.ndim != 2:
            detail = f'{values.shape[2:]} channels; save the class of each pixel as a gray value'
            yield data.error('the mask does not have one channel', file, '', detail)
            return
        if values.max(initial=0) > 255:
            detail = f'values up to {values.max()}'
            yield data.error('the mask has more than 8 bits, which mmseg cuts off', file, '', detail)
            return
        shown, size = image_size(data, image), values.shape[::-1]
        if shown is not None and size != shown:
            # Resizing to one scale helps in training; an evaluation compares with the image.
            is_scaled = data.is_train and abs(size[0] * shown[1] - size[1] * shown[0]) < max(*size, *shown)
            level = data.warning if is_scaled else data.error
            detail = f'{size[0]} x {size[1]}, the image is {shown[0]} x {shown[1]}'
            yield level('the mask has another size than the image', file, '', detail)
        yield from self._labels(file, np.flatnonzero(np.bincount(values.astype(np.uint8).ravel(), minlength=256)))

    def _labels(self, file: Path, present: np.ndarray) -> Iterator[Problem]:
        raw = {int(value): int(value) for value in present}
        if self.zero:
            raw = {value: 255 if value in (0, 255) else value - 1 for value in raw}
        labels = {value: self.label_map.get(label, label) for value, label in raw.items()}
        first, last = int(self.zero), len(self.label_map or self.classes) - (not self.zero)
        expected = f'expected {first} to {last} for the classes {listed(self.classes)}'
        for key, number, ignored in self.heads:
            wrong = [value for value, label in labels.items() if label != ignored and label >= max(number, 2)]
            if wrong and self.data.is_train:
                detail = f'{wrong[:10]}; {expected}, and {ignored} for ignored pixels ({key}.ignore_index)'
                yield self.data.error('the mask has values of no class', file, '', detail)
                break
        else:
            wrong = [v for v, label in labels.items() if label >= len(self.classes) and label not in self.ignored]
            if wrong:
                yield self.data.warning('the mask has values of no class', file, '', f'{wrong[:10]}; {expected}')
        found = {label for label in labels.values() if label < len(self.classes) and label not in self.ignored}
        self.data.counts.update(self.classes[label] for label in found)
        if not found:
            yield self.data.warning('the mask has no pixel of a class', file)
