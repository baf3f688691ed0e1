"""Problems of Pascal VOC's annotation files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from deformable_vit.checks import Report, check


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / 'image.jpg'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return path


def checked(directory: Path, **more: Any) -> Report:
    """Check the files that ``list.txt`` names, with the class cat."""
    settings = dict(type='XMLDataset', data_root=str(directory), ann_file='list.txt', ann_subdir='', img_subdir='')
    settings |= dict(metainfo=dict(classes=('cat',)), data_prefix=dict(sub_data_root='.'))
    settings |= dict(pipeline=[dict(type='LoadImageFromFile')], **more)
    return check(Config(dict(default_scope='mmdet', model={}, train_dataloader=dict(dataset=settings))))


def test_voc_files_that_filters_drop(image: Path, tmp_path: Path) -> None:
    objects = {'a': '<object><name>cat</name><bndbox>{}</bndbox></object>', 'b': ''}
    corners = '<xmin>1</xmin><ymin>1</ymin><xmax>50</xmax><ymax>50</ymax>'
    for name, text in objects.items():
        size = '<size><width>90</width><height>60</height></size>'
        (tmp_path / f'{name}.xml').write_text(f'<annotation>{size}{text.format(corners)}</annotation>')
        (tmp_path / f'{name}.jpg').write_bytes(image.read_bytes())
    (tmp_path / 'list.txt').write_text('a\nb\n')
    for filters, level, words in (
        (dict(filter_empty_gt=True), 'warning', '1 of 2: 1 without an annotation of the classes'),
        (dict(min_size=80), 'error', '2 of 2: 2 below min_size=80'),
        (None, None, ''),
    ):
        report = checked(tmp_path, filter_cfg=filters)
        found = [problem for problem in report if problem.kind == 'filter_cfg drops images']
        assert [problem.level for problem in found] == ([level] if level else [])
        assert all(words in problem.detail for problem in found)


def test_voc_files(image: Path, tmp_path: Path) -> None:
    def found(
        box: str, size: str = '<width>90</width><height>60</height>', name: str = 'cat', difficult: str = '0'
    ) -> list[tuple[str, str]]:
        values = zip(('xmin', 'ymin', 'xmax', 'ymax'), box.split(), strict=True)
        corners = ''.join(f'<{key}>{value}</{key}>' for key, value in values)
        instance = f'<name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox>'
        text = f'<size>{size}</size><object>{instance}</object>'
        (tmp_path / 'image.xml').write_text(f'<annotation>{text}</annotation>')
        return problems()

    def problems() -> list[tuple[str, str]]:
        return [(p.level, p.kind) for p in checked(tmp_path)]

    (tmp_path / 'list.txt').write_text('image\n')
    assert found('1 1 50 50') == []
    # mmdet reads the boxes of the classes only.
    assert found('1 1 nan 50', name='dog') == [('error', 'no annotation is of one of the classes')]
    for box, level, kind in (
        ('50 50 1 1', 'error', 'an inverted box: a maximum is below its minimum'),
        ('1 1 nan 50', 'error', 'a box is not four finite numbers'),
        ('0.1 0.1 0.5 0.5', 'error', 'the box is normalized (0 to 1); VOC has pixels'),
        ('80 1 99 50', 'warning', 'a box leaves its image'),
    ):
        assert found(box) == [(level, kind)]
    other = 'the annotation file has another size than the image'
    assert found('1 1 50 50', '<width>60</width><height>90</height>') == [('warning', other)]
    for wrong in ('<width>x</width>', '<width>90.0</width><height>60.0</height>'):  # mmdet calls int() on the text
        assert found('1 1 50 50', wrong) == [('error', '<size> has no whole width and height')]
    assert ('error', '<difficult> is not a whole number') in found('1 1 50 50', difficult='Unspecified')
    assert found('1 1 50 50', difficult='1') == [('error', 'no annotation is of one of the classes')]
    (tmp_path / 'image.jpg').rename(tmp_path / 'image.png')
    assert found('1 1 50 50') == [('error', 'XMLDataset reads .jpg files only')]
    (tmp_path / 'image.png').rename(tmp_path / 'image.jpg')
    (tmp_path / 'image.xml').write_text('<annotation>')
    assert problems() == [('error', 'the annotation file cannot be read')]
    (tmp_path / 'image.xml').unlink()
    ((level, kind),) = problems()
    assert level == 'error'
    assert kind == f'the annotation file, which {tmp_path}/list.txt lists, does not exist'
