"""Fixtures: a few synthetic images, and configs that train on them in seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from running import ROOT

from deformable_vit.datasets import ShapesSettings, write_shapes


@pytest.fixture(scope='session')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a few synthetic images in all three layouts."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    write_shapes(root, ShapesSettings(train=8, val=4, objects=8, size=80))
    return root


@pytest.fixture
def config(tmp_path: Path, shapes: Path) -> Callable[..., Path]:
    """Write a demo config that trains on the few images: two epochs, no worker processes, no random augmentation."""

    def write(demo: str, extra: str = '') -> Path:
        task = {'mmdet': 'coco', 'mmseg': 'ade', 'mmpretrain': 'imagenet'}[_package(demo)]
        root = str(shapes / task) + ('/' if task == 'coco' else '')
        lines = [f'_base_ = {str(ROOT / "configs" / "demo" / demo)!r}', 'randomness = dict(seed=0)']
        if task == 'coco':
            lines.append(f'val_evaluator = dict(ann_file={root + "annotations/instances_val2017.json"!r})')
            lines.append('test_evaluator = val_evaluator')
            pipeline = [
                dict(type='LoadImageFromFile', backend_args=None),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='Resize', scale=(64, 64), keep_ratio=True),
                dict(type='PackDetInputs'),
            ]
            data = f'dataset=dict(data_root={root!r}, pipeline={pipeline!r})'
            lines.append('train_cfg = dict(max_epochs=2, val_interval=2)')
            lines.append('param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=3)]')
        else:
            data = f'dataset=dict(data_root={root!r})'
        if task == 'ade':
            lines.append('train_cfg = dict(max_iters=4, val_interval=4)')
            lines.append('default_hooks = dict(checkpoint=dict(interval=4))')
            lines.append('param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=3)]')
        workers = 'num_workers=0, persistent_workers=False'
        lines.append(f'train_dataloader = dict(batch_size=2, {workers}, {data})')
        # mmseg tests images of different sizes with a batch size of 1
        batch = '' if task == 'ade' else 'batch_size=2, '
        lines.append(f'val_dataloader = dict({batch}{workers}, dataset=dict(data_root={root!r}))')
        lines.append('test_dataloader = val_dataloader')
        path = tmp_path / f'few_{demo}'
        path.write_text('\n'.join([*lines, extra]) + '\n')
        return path

    return write


def _package(demo: str) -> str:
    if demo.startswith(('fpn_', 'mask2former-semantic_')):
        return 'mmseg'
    return 'mmdet' if demo.startswith(('dino_', 'mask-rcnn_', 'retinanet_')) else 'mmpretrain'
