"""Checks of image and mask files."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..cli import first_line
from .report import Problem

# Tag of EXIF that turns an image; 5 to 8 exchange width and height.
_ORIENTATION = 0x0112
_SUFFIXES = {
    'JPEG': ('.jpg', '.jpeg', '.jpe', '.jfif'),
    'MPO': ('.jpg', '.jpeg', '.mpo'),
    'PNG': ('.png',),
    'BMP': ('.bmp',),
    'TIFF': ('.tif', '.tiff'),
    'WEBP': ('.webp',),
    'GIF': ('.gif',),
    'PPM': ('.ppm', '.pgm', '.pbm', '.pnm'),
}


def open_problem(path: Path) -> Problem | None:
    """Return why a file cannot be opened as an image, or None."""
    name = str(path)
    if not path.is_file():
        return Problem('the image does not exist' if not path.exists() else 'not a file', name)
    if path.stat().st_size == 0:
        return Problem('the file is empty', name)
    return None


def check_image(path: Path, size: tuple[int, int] | None, record: str = '', decode: bool = True) -> Iterator[Problem]:
    """Yield the problems of an image.

    Args:
        path: Its file.
        size: (width, height) that the annotation file says, if it does.
        record: The image in the annotation file.
        decode: Whether to read all of the file; else only the header.
    """
    if problem := open_problem(path):
        yield problem
        return
    name = str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of Pillow, about huge images and broken metadata
            with Image.open(path) as image:
                found, turned = image.size, image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                kind = image.format or ''
                if decode:
                    image.draft('RGB', (max(found[0] // 8, 1), max(found[1] // 8, 1)))  # JPEG: an eighth of the time
                    image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        # OpenCV, with which OpenMMLab reads images, knows other formats, and larger images.
        if not cv2.haveImageReader(name):
            yield Problem('not an image', name, record, f'begins with {_head(path)!r}')
        elif decode and cv2.imread(name) is None:
            if _head(path).startswith((b'II*\0', b'MM\0*')):
                detail = "load it with imdecode_backend='tifffile'"
                yield Problem('a TIFF that OpenCV cannot read', name, record, detail, 'warning')
            else:
                yield Problem('the image is truncated or broken', name, record, 'OpenCV cannot read it')
        return
    except Exception as error:  # a damaged file can raise anything
        yield Problem('the image is truncated or broken', name, record, first_line(error))
        return
    if kind == 'JPEG' and decode and _ends_with_zeros(path):  # which libjpeg takes for pixels
        yield Problem('the image is truncated or broken', name, record, 'its end is filled with zeros')
        return
    yield from _suffix_problem(path, kind, record)
    # OpenMMLab reads images turned as EXIF says.
    shown = found[::-1] if turned else found
    if size is not None and tuple(size) != shown:
        detail = f'{size[0]} x {size[1]} in the annotation file, {shown[0]} x {shown[1]} in the image'
        if turned and tuple(size) == found:
            detail += ', which EXIF turns: save it turned, or annotate it as shown'
        yield Problem('the annotation file has another size than the image', name, record, detail)


def image_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) of an image as OpenMMLab reads it, turned as EXIF says, or None if it is not readable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path) as image:
                turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                return (image.height, image.width) if turned else image.size
    except Exception:  # check_image says which
        return None


def check_mask(path: Path, image: Path, lowest: int, highest: int) -> Iterator[Problem]:
    """Yield the problems of the mask of a segmentation dataset, whose values are ``lowest`` to ``highest``, or 255."""
    if problem := open_problem(path):
        yield Problem(problem.kind.replace('image', 'mask'), problem.file)
        return
    name = str(path)
    try:
        with Image.open(path) as mask:
            mask.load()
            mode, size, kind = mask.mode, mask.size, mask.format or ''
            values = np.asarray(ImageOps.exif_transpose(mask))
    except Exception as error:
        yield Problem('the mask is truncated or broken', name, '', first_line(error))
        return
    yield from _suffix_problem(path, kind)
    if values.ndim != 2:
        yield Problem('the mask does not have one channel', name, '', f'{mode}; save the class of each pixel as gray')
        return
    if values.dtype != np.uint8:
        small = values.astype(np.uint8)  # as mmseg does
        if not np.array_equal(small, values):
            kind = 'the mask has more than 8 bits, which mmseg cuts off'
            yield Problem(kind, name, '', f'{mode}, values up to {values.max()}')
            return
        values = small
    shown = image_size(image)
    if shown is not None and size != shown:
        detail = f'{size[0]} x {size[1]}, the image is {shown[0]} x {shown[1]}'
        yield Problem('the mask has another size than the image', name, '', detail)
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    wrong = [int(value) for value in present if not (value <= highest or value == 255)]
    if wrong:
        detail = f'{wrong[:10]}; expected {lowest} to {highest}, and 255 for ignored pixels'
        yield Problem('the mask has values of no class', name, '', detail)
    elif not any(lowest <= value <= highest for value in present):
        yield Problem('the mask has no pixel of a class', name, '', '', 'warning')


def _suffix_problem(path: Path, kind: str, record: str = '') -> Iterator[Problem]:
    if path.suffix.lower() not in _SUFFIXES.get(kind, (path.suffix.lower(),)):
        yield Problem('the suffix is that of another format', str(path), record, f'the file is {kind}', 'warning')


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
