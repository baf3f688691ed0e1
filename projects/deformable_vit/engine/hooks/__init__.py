"""Hooks of mmengine for trainings that survive kills, signals, bad samples and diverging losses, and say their time."""

from .checkpoints import CheckpointMatchHook
from .duration import DurationHook
from .label_maps import LabelMapHook, write_label_map
from .losses import FiniteLossHook
from .samples import SampleErrorHook
from .seed import SeedHook
from .stop import StopHook
from .validation_loss import ValidationLossHook
from .work_dir import WorkDirHook

__all__ = [
    'CheckpointMatchHook',
    'DurationHook',
    'FiniteLossHook',
    'LabelMapHook',
    'SampleErrorHook',
    'SeedHook',
    'StopHook',
    'ValidationLossHook',
    'WorkDirHook',
    'write_label_map',
]
