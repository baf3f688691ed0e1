"""Writing drawn scenes to disk in three layouts.

::

    ROOT/shapes.json                                  the settings that it was made with
    ROOT/coco/annotations/instances_train2017.json    boxes, and masks as run lengths; also _val2017
    ROOT/coco/train2017/000001.jpg                    also val2017/
    ROOT/ade/images/training/ADE_train_00000001.jpg   the same scenes; also validation/
    ROOT/ade/annotations/training/....png             0 = unlabelled (clutter), 1 = ground, 2 and up = the shapes
    ROOT/imagenet/train/disc/000001.jpg               one shape a picture, a folder a class; also val/
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from .scenes import CLASSES, Scene, draw_portrait, draw_scene

ADE_CLASSES = ('ground', *CLASSES)
_MARK = 'shapes.json'
# What each layout calls the two splits.
_SPLITS = (('train', 'train2017', 'training'), ('val', 'val2017', 'validation'))


@dataclass(frozen=True)
class ShapesSettings:
    """What determines the data set, to the last pixel.

    Attributes:
        seed: Another seed, other pictures.
        train: Scenes to train on.
        val: Scenes to test on.
        portraits: Classification pictures per class to train on; a quarter of that is there to test on.
        size: Mean edge of a scene in pixels; each scene is between 0.85 and 1.15 of it in either direction.
        max_shapes: Most shapes in a scene.
    """

    seed: int = 0
    train: int = 600
    val: int = 100
    portraits: int = 200
    size: int = 128
    max_shapes: int = 5

    def __post_init__(self) -> None:
        for name in ('train', 'val', 'portraits', 'max_shapes'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}')
        if self.size < 48:
            raise ValueError(f'size must be at least 48 pixels, for shapes to be told apart, got {self.size}')
        if self.seed < 0:
            raise ValueError(f'seed must not be negative, got {self.seed}')


def write_shapes(root: str | Path, settings: ShapesSettings | None = None, overwrite: bool = False) -> bool:
    """Write the data set in all three layouts.

    Args:
        root: The folder to make.
        settings: The default settings when left out.
        overwrite: Replace a shapes data set that was made with other settings. Nothing else is ever replaced.

    Returns:
        False where ``root`` holds this very data set already, else True.

    Raises:
        FileExistsError: ``root`` holds something else.
    """
    root, settings = Path(root), settings or ShapesSettings()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        mark = root / _MARK
        if not mark.is_file():
            raise FileExistsError(f'{root} exists and is not a shapes data set; choose another folder')
        found = json.loads(mark.read_text())
        if found == _mark(settings):
            return False
        if not overwrite:
            raise FileExistsError(f'{root} holds shapes made with {found}; --overwrite replaces them')

    # Made beside its place and moved there when it is whole, so that a run that is cut short leaves nothing half done.
    part = root.with_name(root.name + '.part')
    if part.exists():
        if not (part / _MARK).is_file():
            raise FileExistsError(f'{part} is in the way and is not a left-over of this program; remove it')
        shutil.rmtree(part)
    part.mkdir(parents=True)
    (part / _MARK).write_text(json.dumps(_mark(settings), indent=1) + '\n')

    total = settings.train + settings.val + len(CLASSES) * (settings.portraits + _val_portraits(settings))
    with tqdm(total=total, desc='shapes', unit='picture') as bar:
        for split in range(2):
            _write_scenes(part, settings, split, bar)
            _write_portraits(part, settings, split, bar)
    if root.exists():
        shutil.rmtree(root)
    part.rename(root)
    return True


def _mark(settings: ShapesSettings) -> dict[str, int]:
    return {'format': 1, **asdict(settings)}


def _val_portraits(settings: ShapesSettings) -> int:
    return max(1, settings.portraits // 4)


def _rng(settings: ShapesSettings, *place: int) -> np.random.Generator:
    """Each picture has a stream of its own, so that it does not depend on how many there are."""
    return np.random.default_rng([settings.seed, *place])


def _scenes(settings: ShapesSettings, split: int) -> Iterator[Scene]:
    for i in range((settings.train, settings.val)[split]):
        rng = _rng(settings, split, i)
        height, width = (int(settings.size * rng.uniform(0.85, 1.15)) for _ in range(2))
        yield draw_scene(rng, height, width, settings.max_shapes)


def _write_scenes(root: Path, settings: ShapesSettings, split: int, bar: tqdm) -> None:
    name, coco_name, ade_name = _SPLITS[split]
    coco_images = _folder(root / 'coco' / coco_name)
    ade_images = _folder(root / 'ade' / 'images' / ade_name)
    ade_maps = _folder(root / 'ade' / 'annotations' / ade_name)
    images, annotations = [], []
    for i, scene in enumerate(_scenes(settings, split), start=1):
        height, width = scene.image.shape[:2]
        file = coco_images / f'{i:06d}.jpg'
        _write_image(file, scene.image)
        images.append(dict(id=i, file_name=file.name, height=height, width=width))
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            annotations.append(dict(id=len(annotations) + 1, image_id=i, category_id=label + 1, **_coco_shape(mask)))
        ade_name_i = f'ADE_{name}_{i:08d}'
        shutil.copyfile(file, ade_images / f'{ade_name_i}.jpg')
        _write_image(ade_maps / f'{ade_name_i}.png', ade_map(scene))
        bar.update()
    content = dict(
        info=dict(description='drawn shapes', version='1', settings=asdict(settings)),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=[dict(id=i, name=name, supercategory='shape') for i, name in enumerate(CLASSES, start=1)],
    )
    (_folder(root / 'coco' / 'annotations') / f'instances_{coco_name}.json').write_text(json.dumps(content))


def ade_map(scene: Scene) -> np.ndarray:
    """(H, W) uint8 in ADE20K's convention: 0 = unlabelled, i + 1 = ``ADE_CLASSES[i]``."""
    out = np.ones(scene.clutter.shape, np.uint8)
    out[scene.clutter] = 0
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        out[mask] = label + 2
    return out


def _coco_shape(mask: np.ndarray) -> dict:
    """Box (x, y, width, height), area and run lengths of a mask, as COCO stores them."""
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(
        bbox=[float(v) for v in coco_mask.toBbox(encoded)],
        area=int(coco_mask.area(encoded)),
        segmentation=dict(size=encoded['size'], counts=encoded['counts'].decode()),
        iscrowd=0,
    )


def _write_portraits(root: Path, settings: ShapesSettings, split: int, bar: tqdm) -> None:
    count = (settings.portraits, _val_portraits(settings))[split]
    for label, name in enumerate(CLASSES):
        folder = _folder(root / 'imagenet' / _SPLITS[split][0] / name)
        for i in range(1, count + 1):
            rng = _rng(settings, 2 + split, label, i)
            _write_image(folder / f'{i:06d}.jpg', draw_portrait(rng, label, max(64, settings.size // 2)))
            bar.update()


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _write_image(path: Path, image: np.ndarray) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == '.jpg' else []
    if not cv2.imwrite(str(path), image, options):
        raise OSError(f'{path} could not be written')
