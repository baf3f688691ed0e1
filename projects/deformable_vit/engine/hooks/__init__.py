"""Hooks of mmengine for trainings that survive kills, signals, bad samples and diverging losses, and say their time."""

from .checkpoints import CheckpointMatchHook
from .duration import DurationHook
from .losses import FiniteLossHook
from .samples import SampleErrorHook
from .seed import SeedHook
from .stop import StopHook
from .work_dir import WorkDirHook

__all__ = [
    'CheckpointMatchHook',
    'DurationHook',
    'FiniteLossHook',
    'SampleErrorHook',
    'SeedHook',
    'StopHook',
    'WorkDirHook',
]
