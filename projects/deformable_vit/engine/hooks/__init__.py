"""Hooks of mmengine for trainings that survive kills, signals, bad samples and diverging losses."""

from .checkpoints import CheckpointMatchHook
from .losses import FiniteLossHook
from .samples import SampleErrorHook
from .seed import SeedHook
from .stop import StopHook
from .work_dir import WorkDirHook

__all__ = ['CheckpointMatchHook', 'FiniteLossHook', 'SampleErrorHook', 'SeedHook', 'StopHook', 'WorkDirHook']
