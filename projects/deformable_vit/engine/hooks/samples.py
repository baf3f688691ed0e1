"""Name the file and the record of a sample that cannot be read."""

import logging
from collections.abc import Iterator
from typing import Any, Literal

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...errors import TrainingError, UserError, first_line
from ..workers import restart_workers

_FILES = ('img_path', 'seg_map_path', 'xml_path')


class SampleError(TrainingError):
    """An error in a sample, with its file and record."""


class NamingPipeline:
    """Run a pipeline of transforms, and name the sample in their errors.

    Args:
        pipeline: Of a dataset of mmengine.
        skip: Return None instead of raising an error; mmengine's datasets then take another sample.
    """

    def __init__(self, pipeline: Any, skip: bool) -> None:
        self.pipeline = pipeline
        self.skip = skip

    def __getattr__(self, name: str) -> Any:
        if name == 'pipeline':  # not yet set, while unpickling
            raise AttributeError(name)
        return getattr(self.pipeline, name)

    def __call__(self, data: dict[str, Any]) -> Any:
        name = _describe(data)  # before transforms change it
        try:
            return self.pipeline(data)
        except Exception as error:  # transforms are anybody's code
            line = f'{name}: {first_line(error)}'
            if not self.skip:
                raise SampleError(line) from error
            print_log(f'skipped: {line}', 'current', logging.WARNING)
        return None


def _describe(data: dict[str, Any]) -> str:
    parts = [f'{key} {data[key]}' for key in _FILES if data.get(key)]
    parts += [f'image id {data["img_id"]!r}'] if 'img_id' in data else []
    return f'sample {data.get("sample_idx", "")} ({", ".join(parts)})'


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield the datasets within wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    inner = [dataset.dataset] if hasattr(dataset, 'dataset') else getattr(dataset, 'datasets', None)
    if inner is None:
        yield dataset
    for one in inner or ():
        yield from _leaves(one)


@HOOKS.register_module()
class SampleErrorHook(Hook):
    """Name a sample that cannot be read by its file and record, or leave it out.

    Like mmdet's ``PipelineSwitchHook``, and after it, the hook replaces the pipelines of the datasets.

    Args:
        on_error: ``raise`` stops the training; ``skip`` logs the sample and takes another one, in training only:
            metrics need every sample.
    """

    priority = 'LOW'

    def __init__(self, on_error: Literal['raise', 'skip'] = 'raise') -> None:
        if on_error not in ('raise', 'skip'):
            raise UserError(f"on_error of SampleErrorHook must be 'raise' or 'skip', got {on_error!r}")
        self.skip = on_error == 'skip'

    def before_train(self, runner: Runner) -> None:
        self._name(runner.train_dataloader.dataset, self.skip)
        restart_workers(runner.train_loop)  # they have copies of the dataset

    def before_train_epoch(self, runner: Runner) -> None:
        self._name(runner.train_dataloader.dataset, self.skip)

    def before_val(self, runner: Runner) -> None:
        self._name(runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        self._name(runner.test_dataloader.dataset)

    def _name(self, dataset: Any, skip: bool = False) -> None:
        for leaf in _leaves(dataset):
            if callable(getattr(leaf, 'pipeline', None)) and not isinstance(leaf.pipeline, NamingPipeline):
                leaf.pipeline = NamingPipeline(leaf.pipeline, skip)
