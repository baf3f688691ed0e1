"""The font of drawn class names, with the fonts that matplotlib brings."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from deformable_vit.apis.fonts import use_font_for
from deformable_vit.apis.seg_visualizer import LabeledSegVisualizer

LETTER = '\u1d81'  # in STIXGeneral, not in matplotlib's default font
FONTS = Path(matplotlib.get_data_path(), 'fonts', 'ttf')


@pytest.fixture(autouse=True)
def _fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make matplotlib's own fonts those of the machine."""
    monkeypatch.setattr(font_manager, 'findSystemFonts', lambda: [str(file) for file in FONTS.glob('*.ttf')])
    with matplotlib.rc_context():
        yield


def render(text: str, family: str) -> np.ndarray:
    canvas = FigureCanvasAgg(figure := Figure(figsize=(2, 1)))
    figure.text(0.1, 0.1, text, family=family, size=40)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 0].copy()


@pytest.mark.parametrize('family', ['sans-serif', 'monospace'])
def test_letters_that_the_default_font_lacks(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    use_font_for(['cat', 'Straße', 'ёж'])
    assert matplotlib.rcParams['font.sans-serif'][0] == 'DejaVu Sans'
    use_font_for(['cat', LETTER])
    assert matplotlib.rcParams['font.sans-serif'][0] == 'STIXGeneral'
    assert capsys.readouterr().out == ''
    square = render('\U0001f9ff', family)  # which no font has
    assert square.min() == 0
    assert not np.array_equal(render(LETTER, family), square)


def test_a_letter_that_no_font_has_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    use_font_for(['cat', '猫', LETTER])
    printed = capsys.readouterr().out
    assert '猫' in printed
    assert LETTER not in printed
    assert 'fonts-noto-cjk' in printed
    assert len(printed.splitlines()) == 1


def test_names_of_segments_are_drawn_where_they_are() -> None:
    labels = torch.zeros(1, 120, 200, dtype=int)
    labels[:, :, 100:] = 1
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels), gt_sem_seg=PixelData(data=labels.flip(-1)))
    visualizer = LabeledSegVisualizer(alpha=1.0)
    visualizer.dataset_meta = dict(classes=['ё', 'ж'], palette=[(0, 0, 200), (0, 200, 0)])
    image = np.zeros((120, 200, 3), np.uint8)
    visualizer.add_datasample('', image, sample)
    drawn = visualizer.get_image()
    assert drawn.shape == (120, 400, 3)
    visualizer.add_datasample('', image, sample, with_labels=False)
    changed = (drawn != visualizer.get_image()).any(-1)
    # Beside the centers, each half of ground truth and prediction has a name.
    assert [bool(changed[40:80, x : x + 100].any()) for x in (0, 100, 200, 300)] == [True] * 4
    assert not changed[:20].any()
