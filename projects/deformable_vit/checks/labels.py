"""Checks of the values of label maps: of each one, and of all of a dataset."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .._nested import walk
from .datasets import Data, listed

# mmseg's label of ignored pixels, unless a config says otherwise; those of reduce_zero_label always have it.
_IGNORED = 255
_HIGHEST = (-1, 2**16 - 1, 2**31 - 1)


@dataclass
class _Head:
    """A head that trains on label maps; a softmax stops at a label of at least ``outputs`` that it does not ignore."""

    key: str
    outputs: float
    ignored: int | None


class Labels:
    """The values of a dataset's label maps, and what they are to the heads that train and the metrics that evaluate."""

    def __init__(self, data: Data) -> None:
        dataset, self.data = data.dataset, data
        self.zero, self.label_map = bool(dataset.reduce_zero_label), dataset.label_map or {}
        self.heads = _heads(data) if data.is_train else []
        used = [e.get('ignore_index', _IGNORED) for e in data.evaluators()]
        self.ignored = {head.ignored for head in self.heads} if data.is_train else {*used}
        self.ignored = self.ignored or {_IGNORED}
        self.values: set[int] = set()  # of all label maps
        if data.is_train:
            self._check_padding()

    def _check_padding(self) -> None:
        """Find that small images are padded with a label that a head does not ignore."""
        config = self.data.config
        settings = config.model.get('data_preprocessor') or config.get('data_preprocessor')
        if not settings:
            return
        pad = settings.get('seg_pad_val', _IGNORED)
        for head in self.heads:
            if head.outputs <= pad != head.ignored:
                detail = f'seg_pad_val={pad}, and {head.key} ignores {head.ignored}'
                self.data.warning('data_preprocessor pads small images with a label of no class', '', '', detail)

    def label(self, value: int) -> int:
        """Return the label that mmseg's ``LoadAnnotations`` makes of a value."""
        label = (_IGNORED if value in (0, 255) else value - 1) if self.zero else value
        return self.label_map.get(label, label)

    def check(self, mask: str, values: NDArray[Any]) -> None:
        """Compare the values of a label map, (H, W), with the classes and the heads, and count its pixels."""
        data = self.data
        cut = values.astype(np.uint8)
        # -1 and the highest value of 16 and 32 bits become the label that is ignored.
        if (is_cut := values != cut).any() and (is_cut := is_cut & ~np.isin(values, _HIGHEST)).any():
            shown = np.unique(values[is_cut])[:5].tolist()
            data.error('the mask has values that are not of 8 bits, which mmseg cuts off', mask, '', f'such as {shown}')
            return
        pixels = np.bincount(cut.ravel(), minlength=256)
        labels = {value: self.label(value) for value in np.flatnonzero(pixels).tolist()}
        self.values.update(labels)
        wrong = []
        for value, label in labels.items():
            if label in self.ignored:
                continue
            if label < len(data.classes):
                data.counts.add_pixels(data.classes[label], mask, int(pixels[value]))
            else:
                wrong.append(value)
        fatal = {h.key: [v for v, label in labels.items() if h.outputs <= label != h.ignored] for h in self.heads}
        if wrong or any(fatal.values()):
            with Image.open(mask) as image:
                lossy = '; JPEG changes values: save label maps as PNG' if image.format == 'JPEG' else ''
        if wrong:
            expected = f'{int(self.zero)} to {len(self.label_map or data.classes) - (not self.zero)}'
            detail = f'{wrong[:10]}; expected {expected} for the classes {listed(data.classes)}{lossy}'
            data.warning('the mask has values of no class', mask, '', detail)
        for head in self.heads:
            if found := fatal[head.key]:
                detail = (
                    f'{found[:10]}; {head.key} has {head.outputs} outputs and ignores {head.ignored} (ignore_index)'
                )
                data.error('the mask has values that the head cannot learn', mask, '', f'{detail}{lossy}')

    def check_all(self) -> None:
        """Find that the values of all label maps together mean something else than their labels."""
        data, values, names = self.data, self.values, self.data.classes
        others, last = values - {_IGNORED}, len(names) - 1
        if _IGNORED in values and len(others) < 2 <= len(names) and self.label(_IGNORED) in self.ignored:
            kind, detail = 'the masks have 255, which is ignored, and no more than one other value', f'{sorted(values)}'
            never = [name for name in names if not data.counts[name].images]
            fix = f'save an object as 1, not as 255; never found: {listed(never)}'
            # A part of a dataset, or of its files, may be without objects; so may the images of an evaluation.
            if data.is_train and data.is_counted and not data.is_part:
                data.error(kind, detail=f'{detail}; {fix}')
            elif data.is_counted:
                data.causes.update(dict.fromkeys(never, f'{kind} ({detail})'))
            else:
                data.warning(kind, detail=f'{detail}; {fix}')
        elif others and (min(others), max(others)) == (1, last + 1) and not self.zero and not self.label_map:
            detail = f'values 1 to {last + 1} for {last + 1} classes; set reduce_zero_label=True in the dataset'
            data.warning('the masks count classes from 1', detail=detail)
        elif others and (min(others), max(others)) == (0, last) and self.zero:
            data.causes[names[-1]] = f'the values are 0 to {last}; if 0 is a class, set reduce_zero_label=False'


def _heads(data: Data) -> list[_Head]:
    """Return the heads of OpenMMLab that train on a label map as it is."""
    found = []
    for name in ('decode_head', 'auxiliary_head'):
        for key, head in walk(data.config.model.get(name), f'model.{name}'):
            number = head.get('num_classes') if isinstance(head, dict) else None
            # A binary auxiliary head, such as STDC's, makes its own labels.
            is_binary = name == 'auxiliary_head' and isinstance(number, int) and number <= 2
            if not isinstance(number, int) or is_binary or data.is_own(head.get('type')):
                continue
            is_softmax = 'num_queries' not in head and not any(
                k.endswith('.use_sigmoid') and v for k, v in walk(head, key)
            )
            found.append(_Head(key, max(number, 2) if is_softmax else math.inf, head.get('ignore_index', _IGNORED)))
    return found
