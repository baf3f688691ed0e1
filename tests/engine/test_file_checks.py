"""Problems of images, masks, Pascal VOC's files and directories of classes."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from deformable_vit.engine.data_checks.directories import check_directories
from deformable_vit.engine.data_checks.images import check_image, check_mask
from deformable_vit.engine.data_checks.report import Problem, Report
from deformable_vit.engine.data_checks.voc import check_voc


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / 'image.jpg'
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def kinds(found: Any) -> list[str]:
    return [problem.kind for problem in found]


def test_a_whole_image_has_no_problems(image: Path) -> None:
    assert kinds(check_image(image, (90, 60))) == []


def test_unusable_images(image: Path, tmp_path: Path) -> None:
    assert kinds(check_image(tmp_path / 'gone.jpg', None)) == ['the image does not exist']
    (tmp_path / 'empty.jpg').touch()
    assert kinds(check_image(tmp_path / 'empty.jpg', None)) == ['the file is empty']
    (tmp_path / 'text.jpg').write_text('<html>not found</html>')
    assert kinds(check_image(tmp_path / 'text.jpg', None)) == ['not an image']
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) * 2 // 3])
    assert kinds(check_image(image, None)) == ['the image is truncated or broken']
    assert kinds(check_image(image, None, decode=False)) == []  # the header is whole


def test_another_size_than_the_record(image: Path, tmp_path: Path) -> None:
    (problem,) = check_image(image, (60, 90), 'image 7')
    assert problem.record == 'image 7'
    assert problem.detail == '60 x 90 in the annotation file, 90 x 60 in the image'
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / 'turned.jpg'
    Image.open(image).save(turned, exif=exif)
    assert kinds(check_image(turned, (60, 90))) == []
    (problem,) = check_image(turned, (90, 60))
    assert 'which EXIF turns' in problem.detail


def test_another_format_than_the_suffix_is_a_warning(image: Path, tmp_path: Path) -> None:
    Image.open(image).save(tmp_path / 'x.png', format='JPEG')
    (problem,) = check_image(tmp_path / 'x.png', None)
    assert (problem.level, problem.detail) == ('warning', 'the file is JPEG')


def test_images_that_opencv_reads(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.ones((6, 9, 3), np.float32)
    cv2.imwrite(str(tmp_path / 'x.hdr'), pixels)
    cv2.imwrite(str(tmp_path / 'x.tif'), pixels)
    for decode in (True, False):
        assert kinds(check_image(tmp_path / 'x.hdr', None, decode=decode)) == []
    assert kinds(check_image(tmp_path / 'x.tif', None, decode=False)) == []
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)  # Pillow raises at twice as many
    assert kinds(check_image(image, (90, 60))) == []
    monkeypatch.undo()
    monkeypatch.setattr(cv2, 'imread', lambda name: None)  # OpenCV 4 reads this one, OpenCV 5 does not
    (problem,) = check_image(tmp_path / 'x.tif', None)
    assert (problem.level, problem.kind) == ('warning', 'a TIFF that OpenCV cannot read')
    assert kinds(check_image(tmp_path / 'x.hdr', None)) == ['the image is truncated or broken']


def test_data_behind_the_end_of_a_jpeg(image: Path, tmp_path: Path) -> None:
    whole = image.read_bytes()
    image.write_bytes(whole + b'SEFH\1\2SEFT' + bytes(64))  # as cameras do
    assert kinds(check_image(image, (90, 60))) == []
    image.write_bytes(whole[: len(whole) * 9 // 10] + bytes(len(whole) // 10))
    assert kinds(check_image(image, (90, 60))) == ['the image is truncated or broken']
    image.write_bytes(whole + bytes(64))
    assert kinds(check_image(image, (90, 60))) == []


@pytest.mark.parametrize(
    ('array', 'kind'),
    [
        (np.full((60, 90), 2, np.uint8), None),
        (np.full((60, 90, 3), 2, np.uint8), 'the mask does not have one channel'),
        (np.full((60, 90), 2, np.uint16), None),
        (np.full((60, 90), 258, np.uint16), 'the mask has more than 8 bits, which mmseg cuts off'),
        (np.full((90, 60), 2, np.uint8), 'the mask has another size than the image'),
        (np.full((60, 90), 7, np.uint8), 'the mask has values of no class'),
        (np.full((60, 90), 255, np.uint8), 'the mask has no pixel of a class'),
    ],
)
def test_masks(image: Path, tmp_path: Path, array: np.ndarray, kind: str | None) -> None:
    path = tmp_path / 'mask.png'
    Image.fromarray(array).save(path)
    assert kinds(check_mask(path, image, 0, 2)) == ([kind] if kind else [])


def test_masks_that_cannot_be_read(image: Path, tmp_path: Path) -> None:
    assert kinds(check_mask(tmp_path / 'gone.png', image, 0, 2)) == ['the mask does not exist']
    (tmp_path / 'mask.png').write_text('x')
    assert kinds(check_mask(tmp_path / 'mask.png', image, 0, 2)) == ['the mask is truncated or broken']


def test_voc_files(image: Path, tmp_path: Path) -> None:
    def found(box: str, size: str = '<width>90</width><height>60</height>') -> list[str]:
        values = zip(('xmin', 'ymin', 'xmax', 'ymax'), box.split(), strict=True)
        corners = ''.join(f'<{name}>{value}</{name}>' for name, value in values)
        file = tmp_path / 'image.xml'
        file.write_text(
            f'<annotation><size>{size}</size><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>'
        )
        return kinds(check_voc(file, image))

    assert found('1 1 50 50') == []
    assert found('50 50 1 1') == ['an inverted box: a maximum is below its minimum']
    assert found('1 1 nan 50') == ['a box is not four finite numbers']
    assert found('0.1 0.1 0.5 0.5') == ['the box is normalized (0 to 1); VOC has pixels']
    assert found('100 1 120 50') == ['a box is outside of its image']
    other = '<width>60</width><height>90</height>'
    assert found('1 1 50 50', other) == ['the annotation file has another size than the image']
    (tmp_path / 'broken.xml').write_text('<annotation>')
    assert kinds(check_voc(tmp_path / 'broken.xml', image)) == ['the annotation file cannot be read']


def classifier(root: Path, classes: int = 3, **dataset: Any) -> Config:
    loaders = {
        f'{part}_dataloader': dict(dataset=dict(type='CustomDataset', data_root=str(root), data_prefix=part, **dataset))
        for part in ('train', 'val')
    }
    return Config(dict(model=dict(head=dict(num_classes=classes)), default_scope='mmpretrain', **loaders))


@pytest.fixture
def root(tmp_path: Path, image: Path) -> Path:
    for part in ('train', 'val'):
        for name in ('a', 'b', 'c'):
            directory = tmp_path / 'data' / part / name
            directory.mkdir(parents=True)
            (directory / '1.jpg').write_bytes(image.read_bytes())
    return tmp_path / 'data'


LOADERS = ('train_dataloader', 'val_dataloader')


def errors(config: Config) -> list[str]:
    return [str(p) for p in check_directories(config, LOADERS) if p.level == 'error']


def test_directories_of_the_same_classes_have_no_problems(root: Path) -> None:
    assert errors(classifier(root)) == []
    assert errors(classifier(root, metainfo=dict(classes=('a', 'b', 'c')))) == []
    assert errors(classifier(root, metainfo=dict(classes=('ant', 'bee', 'cow')))) == []


def test_a_class_that_validation_lacks(root: Path) -> None:
    """Without the check, the labels of b and c would be those of a and b."""
    (root / 'val' / 'a' / '1.jpg').unlink()
    assert errors(classifier(root)) == []  # an empty directory keeps the numbers
    (root / 'val' / 'a').rmdir()
    (line,) = errors(classifier(root))
    assert f"{root}/val: other classes than in {root}/train, which shifts the labels (no 'a'; each class" in line
    (root / 'val' / 'd').mkdir()
    (line,) = errors(classifier(root))
    assert "no 'a' and also 'd'" in line


def test_hidden_empty_and_surplus_directories(root: Path) -> None:
    for part in ('train', 'val'):
        (root / part / '.ipynb_checkpoints').mkdir()
    found = errors(classifier(root))
    assert len(found) == 2  # in both
    assert "a hidden directory counts as a class; remove it ('.ipynb_checkpoints')" in found[0]
    for part in ('train', 'val'):
        (root / part / '.ipynb_checkpoints').rmdir()
    (root / 'train' / 'b' / '1.jpg').unlink()
    (line,) = errors(classifier(root))
    assert line == f"{root}/train: a class has no images ('b')"


def test_numbers_and_order_of_classes(root: Path) -> None:
    found = errors(classifier(root, classes=2))
    assert len(found) == 2
    assert 'model.head.num_classes is 2, but there are 3 directories' in found[0]
    assert 'set model.head.num_classes=3' in found[0]
    found = errors(classifier(root, metainfo=dict(classes=('b', 'a', 'c'))))
    assert "metainfo.classes are not in alphabetical order (('b', 'a', 'c')" in found[0]
    assert 'the directory does not exist' in errors(classifier(root / 'gone'))[0]


def test_files_of_labels(root: Path) -> None:
    (root / 'val.txt').write_text('a/1.jpg 0\nb/1.jpg 3\nc/1.jpg\n')
    config = classifier(root)
    config.val_dataloader.dataset.ann_file = 'val.txt'
    assert [line.partition('val.txt, ')[2] for line in errors(config)] == [
        'line 2: a label of no class (3; expected 0 to 2)',
        "line 3: a line is not PATH LABEL ('c/1.jpg')",
    ]


def test_report(tmp_path: Path) -> None:
    report = Report([Problem('broken', f'{i}.jpg', level='warning') for i in range(5)])
    report.checked['images'] = 5
    assert report.table().splitlines() == [
        'level     number  dataset           problem',
        'warning        5                    broken',
        *(f'{"":37}{i}.jpg' for i in range(3)),
        f'{"":37}and 2 more',
        'checked 5 images: 0 errors, 5 warnings',
    ]
    report.write_json(tmp_path / 'report.json')
    assert '"file": "4.jpg"' in (tmp_path / 'report.json').read_text()
