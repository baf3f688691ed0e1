"""Checks of image files, as the pipeline of a dataset reads them."""

from pathlib import Path
from typing import Any

import cv2
from PIL import Image, UnidentifiedImageError

from ..errors import first_line
from .datasets import Data

# Tag of EXIF that turns an image; 5 to 8 exchange width and height.
_ORIENTATION = 0x0112


def is_missing(data: Data, path: Path, what: str, record: str = '') -> bool:
    """Report a file of a kind, ``what``, that does not exist or is empty."""
    if not path.is_file():
        data.error(f'the {what} does not exist' if not path.exists() else 'not a file', path, record)
    elif not path.stat().st_size:
        data.error('the file is empty', path, record)
    else:
        return False
    return True


def check_image(
    data: Data, path: Path, size: tuple[float, float] | None = None, record: str = ''
) -> tuple[int, int] | None:
    """Check an image, in the quick form only its header; return (width, height) as the pipeline reads it.

    ``size`` is the (width, height) that the annotation file says, and ``record`` the image's name there.
    """
    if is_missing(data, path, 'image', record):
        return None
    load, decode = data.step('LoadImageFromFile'), not data.quick
    backend, color = load.get('imdecode_backend', 'cv2'), load.get('color_type', 'color')
    try:
        with Image.open(path) as image:
            stored: Any = image.size
            can_turn = backend in ('cv2', 'pillow') and color != 'unchanged' and not color.endswith('orientation')
            is_turned = can_turn and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            if decode:
                image.draft('RGB', (max(stored[0] // 8, 1), max(stored[1] // 8, 1)))  # an eighth of the time
                image.load()
            if decode and image.format == 'JPEG':
                # libjpeg takes zeros in place of the last part, as after a crash, for pixels; behind the end of the
                # last scan may be anything, such as data of a camera.
                content = path.read_bytes()
                if content.endswith(bytes(32)) and b'\xff\xd9' not in content[content.rfind(b'\xff\xda') :]:
                    raise OSError('its end is filled with zeros')
    except (UnidentifiedImageError, Image.DecompressionBombError):
        # OpenCV knows other formats, and larger images; so may another loader.
        is_read = cv2.haveImageReader(str(path)) and (not decode or cv2.imread(str(path)) is not None)
        if load and backend == 'cv2' and not is_read:
            with path.open('rb') as file:
                data.error('not an image file', path, record, f'it begins with {file.read(16)!r}')
        return None
    except Exception as error:  # a damaged file can raise anything
        data.error('the image is truncated or broken', path, record, first_line(error))
        return None
    width, height = stored[::-1] if is_turned else stored
    if size is not None and size != (width, height):
        detail = f'{size[0]:g} x {size[1]:g} in the annotation file, {width} x {height} in the image'
        if size == stored:
            detail += ", which EXIF turns: set color_type='color_ignore_orientation' in LoadImageFromFile"
        # mmdet takes the size of a VOC file for its filter only, and another loader may resize.
        level = data.error if load and data.base('mmdet.CocoDataset') else data.warning
        level('the annotation file has another size than the image', path, record, detail)
    return width, height
