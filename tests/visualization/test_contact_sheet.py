from pathlib import Path

import cv2
import numpy as np
import pytest

from deformable_vit.visualization import contact_sheet


def test_pictures_lie_in_reading_order_and_keep_their_shape(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    for i, (colour, size) in enumerate(zip(colours, [(20, 40), (60, 30), (50, 50)], strict=True)):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((*size, 3), colour, np.uint8))
    contact_sheet(sorted(tmp_path.glob('*.png')), tmp_path / 'sheet.png', columns=2, cell=(108, 88))
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))
    assert sheet.shape == (2 * 88, 2 * 108, 3)
    for (y, x), colour in zip([(44, 54), (44, 162), (132, 54)], colours, strict=True):
        assert tuple(sheet[y, x]) == colour
    assert tuple(sheet[132, 162]) == (255, 255, 255)
    assert (sheet[:88, :108] == colours[0]).all(axis=2).sum() == 100 * 50  # 40 x 20, two and a half times as large


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='at least one picture'):
        contact_sheet([], tmp_path / 'sheet.png')
    (tmp_path / 'text.png').write_text('no picture')
    with pytest.raises(ValueError, match='text.png cannot be read'):
        contact_sheet([tmp_path / 'text.png'], tmp_path / 'sheet.png')
