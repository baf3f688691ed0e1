"""Checks of image files, as the pipeline of a dataset reads them."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
from PIL import Image, UnidentifiedImageError

from ..errors import first_line
from .datasets import Data
from .problem import Problem

# Tag of EXIF that turns an image; 5 to 8 exchange width and height.
_ORIENTATION = 0x0112


def missing_file(data: Data, path: Path, what: str, record: str = '') -> Problem | None:
    """Return why a file of a kind, ``what``, cannot be opened, or None."""
    if not path.is_file():
        return data.error(f'the {what} does not exist' if not path.exists() else 'not a file', path, record)
    return None if path.stat().st_size else data.error('the file is empty', path, record)


def check_image(
    data: Data, path: Path, size: tuple[float, float] | None = None, record: str = '', decode: bool = True
) -> Iterator[Problem]:
    """Yield the problems of an image.

    Args:
        size: (width, height) that the annotation file says, if it does.
        record: The image in the annotation file.
        decode: Whether to read all of the file; else only the header.
    """
    if problem := missing_file(data, path, 'image', record):
        yield problem
        return
    load = data.step('LoadImageFromFile')
    is_opencv = bool(load) and load.get('imdecode_backend', 'cv2') == 'cv2'
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter('ignore')  # of Pillow, about broken metadata
            stored, shown = image.size, _turned(data, image)
            if decode:
                image.draft('RGB', (max(stored[0] // 8, 1), max(stored[1] // 8, 1)))  # an eighth of the time
                image.load()
            if decode and image.format == 'JPEG' and _ends_with_zeros(path):  # which libjpeg takes for pixels
                raise OSError('its end is filled with zeros')
    except (UnidentifiedImageError, Image.DecompressionBombError):
        # OpenCV knows other formats, and larger images; so may another loader.
        if is_opencv and not cv2.haveImageReader(str(path)):
            with path.open('rb') as file:
                yield data.error('not an image file', path, record, f'begins with {file.read(16)!r}')
        elif is_opencv and decode and cv2.imread(str(path)) is None:
            hint = "set imdecode_backend='tifffile' and pip install tifffile" if 'tif' in path.suffix.lower() else ''
            yield data.error('OpenCV cannot read the image', path, record, hint)
        return
    except Exception as error:  # a damaged file can raise anything
        yield data.error('the image is truncated or broken', path, record, first_line(error))
        return
    if size is not None and tuple(size) != shown:
        detail = f'{size[0]:g} x {size[1]:g} in the annotation file, {shown[0]} x {shown[1]} in the image'
        if tuple(size) == stored:
            detail += ", which EXIF turns: set color_type='color_ignore_orientation' in LoadImageFromFile"
        # mmdet takes the size of a VOC file for its filter only, and another loader may resize.
        level = data.error if load and data.base('mmdet.CocoDataset') else data.warning
        yield level('the annotation file has another size than the image', path, record, detail)


def image_size(data: Data, path: Path) -> tuple[int, int] | None:
    """Return (width, height) of an image as the pipeline reads it, or None if it is not readable."""
    try:
        with Image.open(path) as image:
            return _turned(data, image)
    except Exception:  # check_image says which
        return None


def _turned(data: Data, image: Image.Image) -> tuple[int, int]:
    """Return (width, height) of an image, turned as EXIF says if the pipeline turns it."""
    load = data.step('LoadImageFromFile')
    color = load.get('color_type', 'color')
    is_kept = color == 'unchanged' or color.endswith('ignore_orientation')
    can_turn = load.get('imdecode_backend', 'cv2') in ('cv2', 'pillow') and not is_kept
    is_turned = can_turn and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return image.size[::-1] if is_turned else image.size


def _ends_with_zeros(path: Path) -> bool:
    """Return whether a JPEG has zeros in place of its last part, as after a crash; zeros behind its end do no harm."""
    with path.open('rb') as file:
        file.seek(-min(path.stat().st_size, 32), os.SEEK_END)
        if file.read().strip(b'\0'):
            return False
    # Behind the end of the last scan may be anything, such as data of a camera.
    content = path.read_bytes()
    return b'\xff\xd9' not in content[content.rfind(b'\xff\xda') :]
