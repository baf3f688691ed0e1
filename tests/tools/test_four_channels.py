"""Images of four channels: trained, tested, predicted and drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.slow


def add_channel(source: Path, target: Path) -> Path:
    """Copy images as PNG files with a fourth channel, the negative of the first, and everything else as it is."""
    for file in source.rglob('*'):
        out = target / file.relative_to(source)
        out.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == '.jpg':
            image = cv2.imread(str(file))
            cv2.imwrite(str(out.with_suffix('.png')), np.dstack([image, 255 - image[..., :1]]))
        elif file.is_file():
            out.write_bytes(file.read_bytes())
    return target


def test_four_channels_of_a_segmentor(call, tool, config, shapes: Path, tmp_path: Path) -> None:
    root = add_channel(shapes / 'ade', tmp_path / 'ade')
    lines = [
        'model = dict(backbone=dict(in_channels=4))',
        'model["data_preprocessor"] = dict(mean=[110.0] * 4, std=[50.0] * 4)',
        f'for loader in (train_dataloader, val_dataloader): loader["dataset"].update(data_root={str(root)!r},'
        ' img_suffix=".png")',
    ]
    path = config('fpn_pvt_shapes.py', '\n'.join(lines))
    options = ['--cfg-options']
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options.append(f'{key}.dataset.pipeline.0.color_type=unchanged')
    work_dir = tmp_path / 'work'
    checkpoint, image = work_dir / 'iter_4.pth', next((root / 'images').rglob('*.png'))
    for name, *args in (
        ('train.py', '--work-dir', work_dir),
        ('predict.py', checkpoint, image, '--out', tmp_path / 'out'),
    ):
        code, _, err = call(name, path, *args, *options)
        assert code == 0, err
    # In a process of its own: mmengine keeps one visualizer of each name.
    tool('test.py', path, checkpoint, '--work-dir', work_dir, '--show-dir', tmp_path / 'shown', *options)
    shown = {file.name.split('.')[0]: cv2.imread(str(file)).shape for file in (tmp_path / 'shown').rglob('*.png')}
    sizes = {file.stem: cv2.imread(str(file)).shape for file in (root / 'images' / 'validation').glob('*.png')}
    assert shown == {f'test_{name}': (height, 2 * width, 3) for name, (height, width, _) in sizes.items()}
    drawn = cv2.imread(str(tmp_path / 'out' / 'vis' / f'{image.stem}.jpg'))
    assert drawn.shape == cv2.imread(str(image)).shape
