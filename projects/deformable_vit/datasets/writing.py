"""Write synthetic images to disk as three datasets.

::

    ROOT/shapes.json                                  the settings
    ROOT/coco/annotations/instances_train2017.json    boxes, and masks as run lengths; also _val2017
    ROOT/coco/train2017/000001.jpg                    also val2017/
    ROOT/ade/images/training/ADE_train_00000001.jpg   the same images; also validation/
    ROOT/ade/annotations/training/....png             0: unlabeled (clutter), 1: ground, from 2: the shapes
    ROOT/imagenet/train/disc/000001.jpg               one object per image, one directory per class; also val/
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from tqdm import tqdm

from .shapes import CLASSES, SyntheticImage, draw_image, draw_object

SEG_CLASSES = ('ground', *CLASSES)
_SETTINGS_FILE = 'shapes.json'
# The names of the two splits in the layouts of ImageNet, COCO and ADE20K.
_SPLITS = (('train', 'train2017', 'training'), ('val', 'val2017', 'validation'))


@dataclass(frozen=True)
class ShapesSettings:
    """Settings that determine every pixel of the dataset.

    Attributes:
        seed: Random seed.
        train: Training images.
        val: Validation images.
        objects: Single-object training images per class, for classification; a quarter as many for validation.
        size: Mean height and width in pixels; each is drawn between 0.85 and 1.15 times this.
        max_shapes: Maximum number of shapes in an image.
    """

    seed: int = 0
    train: int = 600
    val: int = 100
    objects: int = 200
    size: int = 128
    max_shapes: int = 5

    def __post_init__(self) -> None:
        for name in ('train', 'val', 'objects', 'max_shapes'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}')
        if self.size < 48:
            raise ValueError(f'size must be at least 48 pixels, for shapes to be distinguishable, got {self.size}')
        if self.seed < 0:
            raise ValueError(f'seed must not be negative, got {self.seed}')


def write_shapes(root: str | Path, settings: ShapesSettings | None = None, overwrite: bool = False) -> bool:
    """Write the three datasets.

    Args:
        root: The directory to create.
        settings: Default: ``ShapesSettings()``.
        overwrite: Replace shapes that were made with other settings. Anything else is never replaced.

    Returns:
        Whether files were written: False if ``root`` already holds shapes of these settings.

    Raises:
        FileExistsError: ``root`` holds something else.
    """
    root, settings = Path(root), settings or ShapesSettings()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        found = _read_settings(root)
        if found is None:
            raise FileExistsError(f'{root} exists and is not a shapes dataset; choose another directory')
        if found == asdict(settings):
            return False
        if not overwrite:
            raise FileExistsError(f'{root} holds shapes made with {found}; --overwrite replaces them')

    # Written to another directory and renamed at the end: an interrupted run leaves no incomplete dataset.
    part = root.with_name(root.name + '.part')
    if part.exists():
        if not (part / _SETTINGS_FILE).is_file():
            raise FileExistsError(f'{part} exists and was not written by this program; remove it')
        shutil.rmtree(part)
    part.mkdir(parents=True)
    (part / _SETTINGS_FILE).write_text(json.dumps({'format': 2, **asdict(settings)}, indent=1) + '\n')

    total = settings.train + settings.val + len(CLASSES) * (settings.objects + _val_objects(settings))
    with tqdm(total=total, desc='shapes', unit='image') as bar:
        for split in range(2):
            _write_images(part, settings, split, bar.update)
            _write_objects(part, settings, split, bar.update)
    if root.exists():
        shutil.rmtree(root)
    part.rename(root)
    return True


def _read_settings(root: Path) -> dict[str, Any] | None:
    """Return the settings that the shapes in ``root`` were made with, or ``None`` if it holds no shapes."""
    file = root / _SETTINGS_FILE
    if not file.is_file():
        return None
    found = json.loads(file.read_text())
    found.pop('format', None)
    return found


def _val_objects(settings: ShapesSettings) -> int:
    return max(1, settings.objects // 4)


def _rng(settings: ShapesSettings, *key: int) -> np.random.Generator:
    """Return the random generator of one image: images do not depend on how many there are."""
    return np.random.default_rng([settings.seed, *key])


def _images(settings: ShapesSettings, split: int) -> Iterator[SyntheticImage]:
    for i in range((settings.train, settings.val)[split]):
        rng = _rng(settings, split, i)
        height, width = (int(settings.size * rng.uniform(0.85, 1.15)) for _ in range(2))
        yield draw_image(rng, height, width, settings.max_shapes)


def _write_images(root: Path, settings: ShapesSettings, split: int, done: Callable[[], object]) -> None:
    """Write one split in the layouts of COCO and ADE20K; call ``done`` after every image."""
    name, coco_name, ade_name = _SPLITS[split]
    coco_images = _make_dir(root / 'coco' / coco_name)
    ade_images = _make_dir(root / 'ade' / 'images' / ade_name)
    ade_maps = _make_dir(root / 'ade' / 'annotations' / ade_name)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, drawn in enumerate(_images(settings, split), start=1):
        height, width = drawn.image.shape[:2]
        file = coco_images / f'{i:06d}.jpg'
        _write_image(file, drawn.image)
        images.append(dict(id=i, file_name=file.name, height=height, width=width))
        for label, mask in zip(drawn.labels, drawn.masks, strict=True):
            annotations.append(dict(id=len(annotations) + 1, image_id=i, category_id=label + 1, **_coco_shape(mask)))
        stem = f'ADE_{name}_{i:08d}'
        shutil.copyfile(file, ade_images / f'{stem}.jpg')
        _write_image(ade_maps / f'{stem}.png', segmentation_map(drawn))
        done()
    content = dict(
        info=dict(description='synthetic shapes', version='2', settings=asdict(settings)),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=[dict(id=i, name=name, supercategory='shape') for i, name in enumerate(CLASSES, start=1)],
    )
    (_make_dir(root / 'coco' / 'annotations') / f'instances_{coco_name}.json').write_text(json.dumps(content))


def segmentation_map(drawn: SyntheticImage) -> NDArray[Any]:
    """Return the label map, (H, W) uint8, in ADE20K's convention: 0: unlabeled, i + 1: ``SEG_CLASSES[i]``."""
    out = np.ones(drawn.clutter.shape, np.uint8)
    out[drawn.clutter] = 0
    for label, mask in zip(drawn.labels, drawn.masks, strict=True):
        out[mask] = label + 2
    return out


def _coco_shape(mask: NDArray[Any]) -> dict[str, Any]:
    """Return box (x, y, width, height), area and run lengths of a mask in COCO's format."""
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(
        bbox=[float(v) for v in coco_mask.toBbox(encoded)],
        area=int(coco_mask.area(encoded)),
        segmentation=dict(size=encoded['size'], counts=encoded['counts'].decode()),
        iscrowd=0,
    )


def _write_objects(root: Path, settings: ShapesSettings, split: int, done: Callable[[], object]) -> None:
    """Write one split in ImageNet's layout; call ``done`` after every image."""
    count = (settings.objects, _val_objects(settings))[split]
    for label, name in enumerate(CLASSES):
        directory = _make_dir(root / 'imagenet' / _SPLITS[split][0] / name)
        for i in range(1, count + 1):
            rng = _rng(settings, 2 + split, label, i)
            _write_image(directory / f'{i:06d}.jpg', draw_object(rng, label, max(64, settings.size // 2)))
            done()


def _make_dir(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _write_image(path: Path, image: NDArray[Any]) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == '.jpg' else []
    if not cv2.imwrite(str(path), image, options):
        raise OSError(f'{path} could not be written')
