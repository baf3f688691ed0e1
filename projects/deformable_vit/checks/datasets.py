"""What a config says about its datasets and heads."""

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS

from .._nested import walk
from .problem import Level, Problem

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
Job = Callable[[], Iterable[Problem]]
# Heads whose labels are certainly those of the dataset.
_MAIN_HEADS = re.compile(
    r'model(\.detector)?(\.roi_head)?\.(bbox_head|mask_head|decode_head|panoptic_head|head)(\.\d+)?'
)


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
    """A dataset of a config.

    Attributes:
        settings: Its dict in the config.
        loader: The dataloader, a key of the config.
        quick: Whether to read only a part of the files.
        counts: How often each class was found, in annotations or images.
        is_counted: Whether they are all; None if the images say it.
        unlisted: Classes that its annotation file does not list, and what to say if no other dataset does.
    """

    settings: dict[str, Any]
    loader: str
    config: Config
    quick: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    is_counted: bool | None = None
    unlisted: dict[str, str] = field(default_factory=dict)

    def problem(self, level: Level, kind: str, file: object = '', record: str = '', detail: str = '') -> Problem:
        return Problem(level, self.loader, kind, str(file), record, detail)

    def error(self, kind: str, file: object = '', record: str = '', detail: str = '') -> Problem:
        return self.problem('error', kind, file, record, detail)

    def warning(self, kind: str, file: object = '', record: str = '', detail: str = '') -> Problem:
        return self.problem('warning', kind, file, record, detail)

    @property
    def is_train(self) -> bool:
        return self.loader == 'train_dataloader'

    @property
    def scope(self) -> str:
        return self.settings.get('_scope_') or self.config.get('default_scope') or 'mmengine'

    @cached_property
    def type(self) -> Any:
        """The class of the dataset; None for an unknown name."""
        kind = self.settings.get('type')
        if isinstance(kind, str):
            with DATASETS.switch_scope_and_registry(self.scope) as registry:
                kind = registry.get(kind)
        return kind if inspect.isclass(kind) else None

    def base(self, name: str) -> Any:
        """Return the base class with a name such as ``mmdet.CocoDataset``, or None."""
        package, _, last = name.partition('.')
        bases = inspect.getmro(self.type) if self.type else ()
        return next((b for b in bases if b.__name__ == last and b.__module__.split('.')[0] == package), None)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of ``metainfo`` or, without it, of the type of the dataset."""
        names = (self.settings.get('metainfo') or {}).get('classes') or self.type.METAINFO.get('classes') or ()
        return (names,) if isinstance(names, str) else tuple(names)

    @property
    def is_local(self) -> bool:
        """Whether the files are on a disk."""
        prefix = self.settings.get('data_prefix') or ''
        names = [*(prefix.values() if isinstance(prefix, dict) else [prefix])]
        names += [self.settings.get('data_root'), self.settings.get('ann_file')]
        backend = (self.settings.get('backend_args') or {}).get('backend', 'local')
        return backend == 'local' and not any('://' in str(name) for name in names)

    def path(self, name: str | None) -> Path:
        """Return the path of a file or directory, whose name may be relative to ``data_root``."""
        return Path(self.settings.get('data_root') or '', name or '')

    def prefix(self, key: str) -> Path:
        """Return a directory of ``data_prefix``."""
        prefix = self.settings.get('data_prefix') or ''
        return self.path(prefix.get(key) if isinstance(prefix, dict) else prefix)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The transforms of the pipeline."""
        return [step for step in self.settings.get('pipeline') or () if isinstance(step, dict)]

    def step(self, name: str) -> dict[str, Any]:
        """Return the first transform whose type ends so, or an empty dict."""
        return next((step for step in self.steps if _name(step.get('type')).endswith(name)), {})

    @cached_property
    def has_own_steps(self) -> bool:
        """Whether a transform of the pipeline is not one of OpenMMLab, and may do anything with annotations."""
        with TRANSFORMS.switch_scope_and_registry(self.scope) as registry:
            kinds = [registry.get(k) if isinstance(k := step.get('type'), str) else k for step in self.steps]
        return any(not getattr(kind, '__module__', '').startswith('mm') for kind in kinds)

    def build(self) -> Any:
        """Return the dataset, with the paths as OpenMMLab resolves them; no file is read."""
        with DATASETS.switch_scope_and_registry(self.scope) as registry:
            return registry.build({**self.settings, 'pipeline': [], 'lazy_init': True})

    def evaluators(self) -> list[dict[str, Any]]:
        """Return the evaluators of the loader."""
        found = None if self.is_train else self.config.get(self.loader.replace('dataloader', 'evaluator'))
        return [e for e in (found if isinstance(found, (list, tuple)) else [found]) if isinstance(e, dict)]


def _name(kind: Any) -> str:
    return kind if isinstance(kind, str) else getattr(kind, '__name__', '')


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
        if not isinstance(node, dict) or node.get('class_agnostic') or re.search('rpn|semantic_head', key):
            continue
        # mmdet's default of stuff classes is 53, for panoptic segmentation.
        names = ('num_classes', 'num_things_classes') if node.get('num_stuff_classes') == 0 else ('num_classes',)
        for name in names:
            number = node.get(name)
            if isinstance(number, int) and not (number <= 2 and 'auxiliary_head' in key):
                yield f'{key}.{name}', number


def check_heads(data: Data, classes: Sequence[str]) -> Iterator[Problem]:
    """Compare the heads with the number of classes: labels above it stop training, a spare output does no harm."""
    if 'language_model' in data.config.model or data.has_own_steps:
        return
    text = f'{data.loader} has {len(classes)} classes: {listed(classes)}'
    for key, number in numbers_of_classes(data.config.model):
        if number == len(classes):
            continue
        # The label maps say which labels a segmentor gets; DETR's detections have every class that its head has.
        is_detr = bool(data.evaluators()) and any(k.endswith('num_queries') for k, _ in walk(data.config.model, ''))
        is_main = bool(_MAIN_HEADS.fullmatch(key.rpartition('.')[0])) and data.scope != 'mmseg'
        level: Level = 'error' if is_main and (number < len(classes) or is_detr) else 'warning'
        yield data.problem(level, f'{key} is {number}', detail=f'{text}; set {key}={len(classes)}')


def listed(names: Sequence[str]) -> str:
    """Return up to 20 names as text."""
    shown = ', '.join(map(repr, names[:20]))
    return f'{shown} and {len(names) - 20} more' if len(names) > 20 else shown or 'none'
