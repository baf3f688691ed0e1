"""Many pictures on one sheet."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def contact_sheet(
    files: Sequence[str | Path], out: str | Path, columns: int = 3, cell: tuple[int, int] = (480, 260)
) -> None:
    """Put pictures side by side, each scaled to fit its cell.

    Args:
        files: Pictures, in reading order.
        out: PNG to write.
        columns: Pictures in a row.
        cell: (width, height) of a cell in pixels.

    Raises:
        ValueError: There are no pictures, or one cannot be read.
    """
    if not files:
        raise ValueError('a contact sheet needs at least one picture, got none')
    width, height = cell
    rows = -(-len(files) // columns)
    sheet = np.full((rows * height, min(columns, len(files)) * width, 3), 255, np.uint8)
    for i, file in enumerate(files):
        picture = cv2.imread(str(file))
        if picture is None:
            raise ValueError(f'{file} cannot be read as a picture')
        scale = min((width - 8) / picture.shape[1], (height - 8) / picture.shape[0])
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        x, y = i % columns * width + (width - size[0]) // 2, i // columns * height + (height - size[1]) // 2
        sheet[y : y + size[1], x : x + size[0]] = picture
    if not cv2.imwrite(str(out), sheet):
        raise ValueError(f'{out} cannot be written')
