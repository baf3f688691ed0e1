"""Checks of image files, as the pipeline of a dataset reads them."""

import io
import os
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import first_line
from .datasets import Data

# Tag of EXIF that turns an image; 5 to 8 exchange width and height.
_ORIENTATION = 0x0112
# Of the files that Pillow reads, in lower case.
IMAGE_SUFFIXES = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
# What each backend of mmcv needs, and a format that it reads.
_PACKAGES = {'tifffile': 'tifffile', 'turbojpeg': 'PyTurboJPEG'}
_FORMATS = {'tifffile': 'TIFF', 'turbojpeg': 'JPEG'}
# Pillow and the other backends agree on where a file of these formats ends.
_CERTAIN = ('JPEG', 'PNG')


def check_readers(data: Data) -> bool:
    """Read a small image with the backends that the pipeline names; return whether they work."""
    for name in ('LoadImageFromFile', 'LoadAnnotations'):
        backend = data.step(name).get('imdecode_backend') or 'cv2'
        content = io.BytesIO()
        Image.new('RGB', (8, 8)).save(content, _FORMATS.get(backend, 'PNG'))
        try:
            mmcv.imfrombytes(content.getvalue(), backend=backend)
        except Exception as error:  # mmcv calls None where a package is missing
            package = _PACKAGES.get(backend)
            fix = f"pip install {package}, or set imdecode_backend='cv2'" if package else first_line(error)
            data.error('the pipeline cannot read images', '', name, f'imdecode_backend={backend!r}: {fix}')
            return False
    return True


def is_missing(data: Data, path: Path, what: str, record: str = '', key: str = '') -> bool:
    """Report a file of a kind, ``what``, that does not exist or is empty; ``key`` is the setting of its suffix."""
    if not path.exists():
        hints = [f'{name} exists{key and f", but {key}"}' for name in data.names_like(path)[:1]]
        if path.is_symlink():
            hints = [f'a link to {os.readlink(path)}']
        data.error(f'the {what} does not exist', path, record, *hints)
    elif not path.is_file():
        data.error('not a file', path, record)
    elif not path.stat().st_size:
        data.error('the file is empty', path, record)
    else:
        return False
    return True


def check_image(
    data: Data, path: Path, size: tuple[float, float] | None = None, record: str = '', key: str = ''
) -> tuple[int, int] | None:
    """Check an image, in the quick form only its header; return (width, height) as the pipeline reads it.

    ``size`` is the (width, height) that the annotation file says, ``record`` the image's name there, and ``key`` the
    setting of its suffix.
    """
    if is_missing(data, path, 'image', record, key):
        return None
    kind, is_turned = '', False
    stored: Any = None
    try:
        with Image.open(path) as image:
            kind, stored = image.format or '', image.size
            is_turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            if not data.quick:
                image.draft('RGB', (max(stored[0] // 8, 1), max(stored[1] // 8, 1)))  # an eighth of the time
                image.load()
            if not data.quick and kind == 'JPEG':
                # libjpeg takes zeros in place of the last part, as after a crash, for pixels; behind the end of the
                # last scan may be anything, such as data of a camera.
                content = path.read_bytes()
                if content.endswith(bytes(32)) and b'\xff\xd9' not in content[content.rfind(b'\xff\xda') :]:
                    raise OSError('its end is filled with zeros')
    except Exception as error:  # a damaged file can raise anything
        if isinstance(error, OSError) and not isinstance(error, UnidentifiedImageError) and kind in _CERTAIN:
            data.error('the image is truncated or broken', path, record, first_line(error))
            return None
        stored = None
    # The backends differ in what they read and turn.
    shown = _read(data, path, record) if stored is None or is_turned else stored
    if size is not None and shown is not None and size != shown:
        detail = f'{size[0]:g} x {size[1]:g} in the annotation file, {shown[0]} x {shown[1]} in the image'
        if size == shown[::-1] and is_turned:
            detail += ", which EXIF turns: set color_type='color_ignore_orientation' in LoadImageFromFile"
        # mmdet takes the size of a VOC file for its filter only, and another loader may resize.
        level = data.error if data.step('LoadImageFromFile') and data.base('mmdet.CocoDataset') else data.warning
        level('the annotation file has another size than the image', path, record, detail)
    return shown


def _read(data: Data, path: Path, record: str) -> tuple[int, int] | None:
    """Return (width, height) of an image that the pipeline reads; None for a loader that is not mmcv's."""
    if not (load := data.step('LoadImageFromFile')):
        return None
    color, backend = load.get('color_type', 'color'), load.get('imdecode_backend', 'cv2')
    try:
        array: Any = mmcv.imread(path, color, backend=backend)
        height, width = np.shape(array)[:2]  # None has no shape
    except Exception:  # a damaged file can raise anything
        with path.open('rb') as file:
            detail = f'it begins with {file.read(16)!r}; read with imdecode_backend={backend!r}, color_type={color!r}'
        data.error('not an image file', path, record, detail)
        return None
    return width, height
