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
# OpenMMLab's loader, which OpenCV serves by default.
_LOADER = 'LoadImageFromFile'


def missing_file(data: Data, path: Path, what: str, record: str = '') -> Problem | None:
    """Return why a file cannot be opened, or None.

    Args:
        what: Kind of the file, for the message.
    """
    if not path.is_file():
        return data.error(f'the {what} does not exist' if not path.exists() else 'not a file', path, record)
    if path.stat().st_size == 0:
        return data.error('the file is empty', path, record)
    return None


def check_image(
    data: Data, path: Path, size: tuple[int, int] | None = None, record: str = '', decode: bool = True
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
    load = data.step(_LOADER)
    is_opencv = bool(load) and load.get('imdecode_backend', 'cv2') == 'cv2'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of Pillow, about huge images and broken metadata
            with Image.open(path) as image:
                stored, is_jpeg = image.size, image.format == 'JPEG'
                is_turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                if decode:
                    image.draft('RGB', (max(stored[0] // 8, 1), max(stored[1] // 8, 1)))  # an eighth of the time
                    image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        # OpenCV knows other formats, and larger images; so may another loader.
        if is_opencv and not cv2.haveImageReader(str(path)):
            yield data.error('not an image file', path, record, f'begins with {_head(path)!r}')
        elif is_opencv and decode and cv2.imread(str(path)) is None:
            hint = "set imdecode_backend='tifffile' and pip install tifffile" if 'tif' in path.suffix.lower() else ''
            yield data.error('OpenCV cannot read the image', path, record, hint)
        return
    except Exception as error:  # a damaged file can raise anything
        yield data.error('the image is truncated or broken', path, record, first_line(error))
        return
    if is_jpeg and decode and _ends_with_zeros(path):  # which libjpeg takes for pixels
        yield data.error('the image is truncated or broken', path, record, 'its end is filled with zeros')
        return
    shown = stored[::-1] if is_turned and turns_images(data) else stored
    if size is not None and tuple(size) != shown:
        detail = f'{size[0]} x {size[1]} in the annotation file, {shown[0]} x {shown[1]} in the image'
        if is_turned and shown != stored and tuple(size) == stored:
            detail += f", which EXIF turns: set color_type='color_ignore_orientation' in {_LOADER}"
        # mmdet takes the size of a VOC file for its filter only, and another loader may resize.
        level = data.error if load and data.base('mmdet.CocoDataset') else data.warning
        yield level('the annotation file has another size than the image', path, record, detail)


def turns_images(data: Data) -> bool:
    """Return whether the pipeline turns images as EXIF says."""
    load = data.step(_LOADER)
    color = load.get('color_type', 'color')
    is_kept = color == 'unchanged' or color.endswith('ignore_orientation')
    return load.get('imdecode_backend', 'cv2') in ('cv2', 'pillow') and not is_kept


def image_size(data: Data, path: Path) -> tuple[int, int] | None:
    """Return (width, height) of an image as the pipeline reads it, or None if it is not readable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path) as image:
                is_turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) and turns_images(data)
                return (image.height, image.width) if is_turned else image.size
    except Exception:  # check_image says which
        return None


def _ends_with_zeros(path: Path) -> bool:
    """Return whether a JPEG has zeros in place of its last part, as after a crash; zeros behind its end do no harm."""
    with path.open('rb') as file:
        file.seek(-min(path.stat().st_size, 32), os.SEEK_END)
        if file.read().strip(b'\0'):
            return False
    # Behind the end of the last scan may be anything, such as data of a camera.
    content = path.read_bytes()
    return b'\xff\xd9' not in content[content.rfind(b'\xff\xda') :]


def _head(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(16)
