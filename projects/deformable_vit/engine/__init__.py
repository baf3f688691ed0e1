"""Hooks, loops and samplers of mmengine for trainings that survive faults, and continue as if nothing had happened.

All of them are registered and can be named in a config, such as ``dict(type='deformable_vit.engine.StopHook')``; this
also works in the tools of mmdet, mmseg and mmpretrain. ``configs/_base_/reliable_runtime.py`` names the hooks.
"""

from .hooks import (
    CheckpointMatchHook,
    DurationHook,
    FiniteLossHook,
    LabelMapHook,
    SampleErrorHook,
    SeedHook,
    StopHook,
    ValidationLossHook,
    WorkDirHook,
    write_label_map,
)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .loops import ResumableEpochBasedTrainLoop, ResumableIterBasedTrainLoop
from .resuming import resumable_checkpoints
from .samples import SeededBatchSampler

__all__ = [
    'CheckpointMatchHook',
    'DurationHook',
    'FiniteLossHook',
    'LabelMapHook',
    'LayerDecayOptimWrapperConstructor',
    'ResumableEpochBasedTrainLoop',
    'ResumableIterBasedTrainLoop',
    'SampleErrorHook',
    'SeedHook',
    'SeededBatchSampler',
    'StopHook',
    'ValidationLossHook',
    'WorkDirHook',
    'resumable_checkpoints',
    'write_label_map',
]
