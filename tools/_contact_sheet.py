"""Combine many images into one."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

_MARGIN = 4


def contact_sheet(
    files: Sequence[str | Path], out: str | Path, columns: int = 3, cell: tuple[int, int] = (480, 260)
) -> None:
    """Write images in a grid of equal cells, each scaled to fit its cell.

    Args:
        files: Images, row by row.
        out: Image to write.
        columns: Images per row.
        cell: (width, height) of a cell in pixels.

    Raises:
        ValueError: There are no images, one cannot be read, or ``out`` cannot be written.
    """
    if not files:
        raise ValueError('a contact sheet needs at least one image, got none')
    width, height = cell
    rows = -(-len(files) // columns)
    sheet = np.full((rows * height, min(columns, len(files)) * width, 3), 255, np.uint8)
    for i, file in enumerate(files):
        image = cv2.imread(str(file))
        if image is None:
            raise ValueError(f'{file} cannot be read as an image')
        scale = min((width - 2 * _MARGIN) / image.shape[1], (height - 2 * _MARGIN) / image.shape[0])
        size = round(image.shape[1] * scale), round(image.shape[0] * scale)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        x = i % columns * width + (width - size[0]) // 2
        y = i // columns * height + (height - size[1]) // 2
        sheet[y : y + size[1], x : x + size[0]] = image
    if not cv2.imwrite(str(out), sheet):
        raise ValueError(f'{out} cannot be written')
