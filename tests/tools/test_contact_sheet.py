from pathlib import Path

import cv2
import numpy as np
import pytest
from _contact_sheet import contact_sheet

BLUE, GREEN, RED, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def test_contact_sheet_orders_images_by_row_and_keeps_their_aspect_ratio(tmp_path: Path) -> None:
    for i, (color, size) in enumerate([(BLUE, (20, 40)), (GREEN, (60, 30)), (RED, (50, 50))]):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((*size, 3), color, np.uint8))
    contact_sheet(sorted(tmp_path.glob('*.png')), tmp_path / 'sheet.png', columns=2, cell=(108, 88))
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))
    assert sheet.shape == (2 * 88, 2 * 108, 3)
    centers = {(44, 54): BLUE, (44, 162): GREEN, (132, 54): RED, (132, 162): WHITE}
    assert {center: tuple(sheet[center].tolist()) for center in centers} == centers
    assert (sheet[:88, :108] == BLUE).all(axis=2).sum() == 100 * 50  # 40 x 20 at 2.5 times its size


def test_contact_sheet_names_the_file_that_it_cannot_read_or_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='at least one image'):
        contact_sheet([], tmp_path / 'sheet.png')
    (tmp_path / 'text.png').write_text('not an image')
    with pytest.raises(ValueError, match=r'text\.png cannot be read'):
        contact_sheet([tmp_path / 'text.png'], tmp_path / 'sheet.png')
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r'missing/sheet\.png cannot be written'):
        contact_sheet([tmp_path / 'image.png'], tmp_path / 'missing' / 'sheet.png')
