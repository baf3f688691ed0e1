"""Save checkpoints that any program can load with ``torch.load(weights_only=True)``, without this package.

mmengine saves the history of the log as ``HistoryBuffer`` objects with numpy arrays, which torch refuses since 2.6, in
mmdet's ``publish_model.py``, too.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

_HISTORY = {'log_history', 'count_history', 'max_length'}


def plain(value: Any) -> Any:
    """Return a copy of a value made of tensors, plain containers, numbers and strings.

    numpy's numbers become Python's, and its arrays tensors. A ``HistoryBuffer`` becomes a dict of its constructor's
    arguments. Tensors are not copied. Objects of other classes stay as they are.
    """
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(log_history=plain(log), count_history=plain(count), max_length=value.max_length)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in 'biuf' else plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return str(value) if isinstance(value, PurePath) else value


class PlainCheckpointHook(Hook):
    """Make checkpoints plain before they are saved, and restore the history of the log after they are loaded."""

    priority = 'VERY_LOW'  # after the hooks that add to the checkpoint

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        for key in checkpoint:
            if not key.endswith('state_dict'):  # tensors, with versions in an attribute of the dict
                checkpoint[key] = plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        scalars = (checkpoint.get('message_hub') or {}).get('log_scalars') or {}
        for key, value in scalars.items():
            if isinstance(value, dict) and set(value) == _HISTORY:
                log, count = value['log_history'].numpy(), value['count_history'].numpy()
                scalars[key] = HistoryBuffer(log, count, value['max_length'])
