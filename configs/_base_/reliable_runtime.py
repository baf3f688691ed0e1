# Hooks for trainings that are killed, stopped and resumed. tools/train.py adds them by itself; with this base they also
# work in the tools of mmdet, mmseg and mmpretrain. See docs/interruptions.md for the loop and the batch sampler.
custom_hooks = [
    dict(type='deformable_vit.engine.WorkDirHook'),
    dict(type='deformable_vit.engine.CheckpointMatchHook'),
    dict(type='deformable_vit.engine.SeedHook'),
    dict(type='deformable_vit.engine.SampleErrorHook'),
    dict(type='deformable_vit.engine.FiniteLossHook'),
    dict(type='deformable_vit.engine.StopHook'),
    dict(type='deformable_vit.engine.DurationHook'),
]
