"""What a config says about its datasets and heads."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from .._nested import walk
from .counts import ClassCounts
from .problem import Problem, Report
from .types import find_type

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
Job = Callable[[], object]
# Heads whose labels are certainly those of the dataset.
_MAIN_HEADS = re.compile(r'model(\.detector)?(\.roi_head)?\.(bbox_head|mask_head|panoptic_head|head)(\.\d+)?')
# Heads with labels of their own: region proposals, stuff and re-identification.
_OTHER_HEADS = re.compile(r'rpn|semantic_head|\breid\b')


def leaf_datasets(node: Any) -> Iterator[dict[str, Any]]:
    """Yield a dataset, or those within a wrapper such as ``RepeatDataset`` or ``ConcatDataset``."""
    if isinstance(node, Sequence):
        for item in node:
            yield from leaf_datasets(item)
    elif isinstance(node, dict):
        inner = node.get('dataset', node.get('datasets'))
        yield from [node] if inner is None else leaf_datasets(inner)


@dataclass(eq=False)
class Data:
    """A dataset of a config; its checks add problems to the report."""

    settings: dict[str, Any]
    loader: str
    config: Config
    report: Report
    quick: bool = False
    is_part: bool = False  # other datasets of the loader may have the classes that this one lacks
    is_counted: bool = True  # all files are read, and say how often each class was found
    causes: dict[str, str] = field(default_factory=dict)  # why a class never occurs
    at_end: list[Callable[[], object]] = field(default_factory=list)  # called after all jobs
    _names: dict[Path, dict[str, list[str]]] = field(default_factory=dict)

    def error(self, kind: str, file: object = '', record: str = '', detail: str = '') -> None:
        self.report.append(Problem('error', self.loader, kind, str(file), record, detail))

    def warning(self, kind: str, file: object = '', record: str = '', detail: str = '') -> None:
        self.report.append(Problem('warning', self.loader, kind, str(file), record, detail))

    @property
    def is_train(self) -> bool:
        return self.loader == 'train_dataloader'

    @property
    def scope(self) -> str:
        return self.settings.get('_scope_') or self.config.get('default_scope') or 'mmengine'

    @cached_property
    def type(self) -> Any:
        return find_type(self.settings.get('type'), self.scope)

    def base(self, name: str) -> Any:
        """Return the base class with a name such as ``mmdet.CocoDataset``, or None."""
        bases = getattr(self.type, '__mro__', ())
        return next((b for b in bases if f'{b.__module__.partition(".")[0]}.{b.__name__}' == name), None)

    @cached_property
    def dataset(self) -> Any:
        """The dataset, with classes and paths as OpenMMLab finds them; it has read no file."""
        with DATASETS.switch_scope_and_registry(self.scope) as registry:
            return registry.build({**self.settings, 'pipeline': [], 'lazy_init': True})

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of ``metainfo`` or, without it, of the type of the dataset."""
        return tuple(self.dataset.metainfo.get('classes') or ())

    @cached_property
    def counts(self) -> ClassCounts:
        """How often each class occurs in what the dataset gives."""
        return ClassCounts(self.classes)

    @property
    def is_local(self) -> bool:
        """Whether the files are on a disk."""
        names = [self.settings.get(key) for key in ('data_root', 'ann_file', 'data_prefix')]
        backend = (self.settings.get('backend_args') or {}).get('backend', 'local')
        return backend == 'local' and '://' not in str(names)

    def step(self, name: str) -> dict[str, Any]:
        """Return the first transform of the pipeline whose type has a name, or an empty dict."""
        steps = [node for _, node in walk(self.settings.get('pipeline') or (), '') if isinstance(node, dict)]
        return next((s for s in steps if name == str(getattr(k := s.get('type'), '__name__', k)).split('.')[-1]), {})

    def is_own(self, kind: Any) -> bool:
        """Return whether a type is a class of neither OpenMMLab nor this package: it may do anything."""
        found = find_type(kind, self.scope)
        return found is not None and not str(getattr(found, '__module__', '')).startswith(('mm', 'deformable_vit.'))

    @cached_property
    def has_own_steps(self) -> bool:
        """Whether a transform of the pipeline is not one of OpenMMLab, and may do anything with annotations."""
        steps = self.settings.get('pipeline') or ()
        kinds = [node.get('type') for _, node in walk(steps, '') if isinstance(node, dict)]
        return any(self.is_own(k) for k in kinds) or not all(isinstance(step, dict) for step in steps)

    def names_like(self, path: Path) -> list[str]:
        """Return the names of files beside one that does not exist, which have its name but for the suffix or case."""
        if path.with_suffix('').is_file():
            return [path.stem]
        if path.parent not in self._names:
            found = defaultdict(list)
            for name in sorted(os.listdir(path.parent)) if path.parent.is_dir() else ():
                found[Path(name).stem.lower()].append(name)
            self._names[path.parent] = found
        return self._names[path.parent].get(path.stem.lower(), [])

    def evaluators(self) -> list[dict[str, Any]]:
        found = None if self.is_train else self.config.get(self.loader.replace('dataloader', 'evaluator'))
        return [e for e in (found if isinstance(found, (list, tuple)) else [found]) if isinstance(e, dict)]


def trains_masks(model: Any) -> bool:
    """Return whether a detector of mmdet trains on masks: that of Mask R-CNN and its like, or Mask2Former."""
    # A config removes a head of its base with None.
    return any(name.endswith(('.mask_head', '.panoptic_head')) and head is not None for name, head in walk(model, ''))


def numbers_of_classes(model: Any) -> Iterator[tuple[str, int]]:
    """Yield key and value of the settings of a model that should be the number of the dataset's classes.

    Heads that have other labels are left out: region proposals, stuff, a binary auxiliary head such as STDC's, and
    heads that are the same for all classes. In mmdet's Mask2Former the key is ``num_things_classes``.
    """
    for key, node in walk(model, 'model'):
        if not isinstance(node, dict) or 'head' not in key or node.get('class_agnostic') or _OTHER_HEADS.search(key):
            continue
        # mmdet's default of stuff classes is 53, for panoptic segmentation.
        names = ('num_classes', 'num_things_classes') if node.get('num_stuff_classes') == 0 else ('num_classes',)
        for name in names:
            number = node.get(name)
            if isinstance(number, int) and not (number <= 2 and 'auxiliary_head' in key):
                yield f'{key}.{name}', number


def check_heads(data: Data, classes: Sequence[str]) -> None:
    """Compare the heads with the number of classes: labels above it stop training, a spare output does no harm."""
    model = data.config.get('model') or {}
    if data.has_own_steps or any(str(key).startswith(('language_', 'text_')) for key in model):
        return
    nodes, is_segmentor = dict(walk(model, 'model')), data.base('mmseg.BaseSegDataset')
    # DETR's detections have every class that its head has.
    is_detr = bool(data.evaluators()) and any(key.endswith('num_queries') for key in nodes)
    for key, number in numbers_of_classes(model):
        head = key.rpartition('.')[0]
        if number == len(classes) or (is_segmentor and (number, len(classes)) == (1, 2)):  # one output and a sigmoid
            continue
        # The label maps say which labels a segmentor gets; another class may count in another way.
        is_main = _MAIN_HEADS.fullmatch(head) and not is_segmentor and not data.is_own(nodes[head].get('type'))
        level = data.error if is_main and (number < len(classes) or is_detr) else data.warning
        detail = f'{data.loader} has {len(classes)} classes: {listed(classes)}; set {key}={len(classes)}'
        level(f'{key} is {number}', detail=detail)


def report_dropped(data: Data, loaded: list[dict[str, Any]], kept: list[dict[str, Any]]) -> None:
    """Say how many images the filters of a dataset of mmdet drop, and why."""
    left = {id(image) for image in kept}
    gone = [image for image in loaded if id(image) not in left]
    if not gone:
        return
    filters = data.dataset.filter_cfg or {}
    least = filters.get('min_size', 0)
    small = [image for image in gone if min(image['width'], image['height']) < least]
    reasons = [f'{len(small)} below min_size={least}'] if small else []
    if others := [image for image in gone if min(image['width'], image['height']) >= least]:
        why = 'without an annotation of the classes' if filters.get('filter_empty_gt') else 'by the dataset'
        reasons.append(f'{len(others)} {why}')
    detail = f'{len(gone)} of {len(loaded)}: {", ".join(reasons)}; the first is {gone[0]["img_path"]}'
    (data.warning if kept else data.error)('filter_cfg drops images', data.dataset.ann_file, '', detail)


def listed(names: Sequence[str]) -> str:
    """Return up to 20 names as text."""
    shown = ', '.join(map(repr, names[:20]))
    return f'{shown} and {len(names) - 20} more' if len(names) > 20 else shown or 'none'
