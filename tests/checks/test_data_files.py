"""Problems of images, label maps and directories of classes."""

from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from deformable_vit.checks import Problem, Report, check
from deformable_vit.checks.datasets import Data
from deformable_vit.checks.images import check_image


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / 'image.jpg'
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def found_in(path: Path, size: Any = None, decode: bool = True, **load: Any) -> list[Problem]:
    """Return the problems of an image that a pipeline of mmdet loads."""
    settings = dict(type='CocoDataset', pipeline=[dict(type='LoadImageFromFile', **load)])
    data = Data(settings, 'train_dataloader', Config(dict(default_scope='mmdet')), Report(), not decode)
    check_image(data, path, size, 'image 7')
    return data.report


def kinds(*args: Any, **kwargs: Any) -> list[str]:
    return [problem.kind for problem in found_in(*args, **kwargs)]


def test_unusable_images(image: Path, tmp_path: Path) -> None:
    assert kinds(image, (90, 60)) == []
    assert kinds(tmp_path / 'gone.jpg') == ['the image does not exist']
    (tmp_path / 'empty.jpg').touch()
    assert kinds(tmp_path / 'empty.jpg') == ['the file is empty']
    (tmp_path / 'text.jpg').write_text('<html>not found</html>')
    assert kinds(tmp_path / 'text.jpg') == ['not an image file']
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) * 2 // 3])
    assert kinds(image) == ['the image is truncated or broken']
    assert kinds(image, decode=False) == []  # the header is whole
    image.write_bytes(whole[: len(whole) * 9 // 10] + bytes(len(whole) // 10))
    assert kinds(image) == ['the image is truncated or broken']
    for behind in (bytes(64), b'SEFH\1\2SEFT' + bytes(64)):  # as cameras do
        image.write_bytes(whole + behind)
        assert kinds(image, (90, 60)) == []


def test_another_size_than_the_record(image: Path, tmp_path: Path) -> None:
    (problem,) = found_in(image, (60, 90))
    assert (problem.level, problem.record) == ('error', 'image 7')
    assert problem.detail == '60 x 90 in the annotation file, 90 x 60 in the image'
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / 'turned.jpg'
    Image.open(image).save(turned, exif=exif)
    # The pipeline says whether EXIF turns an image.
    for backend in ('cv2', 'pillow'):
        assert kinds(turned, (60, 90), imdecode_backend=backend) == []
        (problem,) = found_in(turned, (90, 60), imdecode_backend=backend)
        assert "which EXIF turns: set color_type='color_ignore_orientation'" in problem.detail
        assert kinds(turned, (90, 60), imdecode_backend=backend, color_type='color_ignore_orientation') == []
    assert kinds(turned, (90, 60), color_type='unchanged') == []


def test_orientation_is_what_the_backend_makes_of_it(image: Path, tmp_path: Path) -> None:
    """Pillow turns a TIFF when it opens it, and OpenCV reads it turned whatever the flag is."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ('png', 'tif', 'webp'):
        path = tmp_path / f'turned.{suffix}'
        Image.open(image).save(path, exif=exif)
        for color in ('color', 'grayscale', 'unchanged', 'color_ignore_orientation'):
            for backend in ('cv2', 'pillow'):
                height, width = mmcv.imread(path, color, backend=backend).shape[:2]
                for decode in (True, False):
                    load = dict(color_type=color, imdecode_backend=backend, decode=decode)
                    assert kinds(path, (width, height), **load) == []
                    assert kinds(path, (height, width), **load) == [
                        'the annotation file has another size than the image'
                    ]


def test_an_image_that_is_missing_has_a_hint(image: Path, tmp_path: Path) -> None:
    (problem,) = found_in(tmp_path / 'image.JPG')
    assert problem.detail == 'image.jpg exists'
    (tmp_path / 'link.jpg').symlink_to('gone.jpg')
    (problem,) = found_in(tmp_path / 'link.jpg')
    assert problem.detail == 'a link to gone.jpg'


def test_another_loader_may_read_other_files(image: Path, tmp_path: Path) -> None:
    np.save(tmp_path / 'bands.npy', np.ones((6, 9, 7)))
    cut = tmp_path / 'cut.tif'
    Image.open(image).save(cut)
    cut.write_bytes(cut.read_bytes()[:-5000])
    settings = dict(type='BaseSegDataset', pipeline=[dict(type='LoadSingleRSImageFromFile')])
    data = Data(settings, 'train_dataloader', Config(dict(default_scope='mmseg')), Report())
    for path in (tmp_path / 'bands.npy', cut):
        check_image(data, path)
    assert data.report == []


def test_images_that_opencv_reads(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.ones((6, 9, 3), np.float32)
    for suffix in ('hdr', 'tif'):
        cv2.imwrite(str(tmp_path / f'x.{suffix}'), pixels)
    assert [kinds(tmp_path / 'x.hdr', decode=decode) for decode in (True, False)] == [[], []]
    assert kinds(tmp_path / 'x.tif') == ['not an image file']  # of 32 bits, which only 'unchanged' reads
    assert kinds(tmp_path / 'x.tif', color_type='unchanged') == []
    Image.open(image).save(tmp_path / 'x.png', format='JPEG')  # read by its content
    assert kinds(tmp_path / 'x.png') == []
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)  # Pillow raises at twice as many
    assert kinds(image, (90, 60)) == []


def mask_problems(
    root: Path, array: np.ndarray | bytes, head: dict[str, Any] | None = None, loader: str = 'train', **dataset: Any
) -> list[tuple[str, str]]:
    """Return level and kind of the problems of a label map of image.jpg with the classes a, b and c."""
    (root / 'masks').mkdir(exist_ok=True)
    file = root / 'masks' / 'image.png'
    file.write_bytes(array) if isinstance(array, bytes) else Image.fromarray(array).save(file)
    settings = dict(type='BaseSegDataset', data_root=str(root), data_prefix=dict(img_path='.', seg_map_path='masks'))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    settings |= dict(metainfo=dict(classes=('a', 'b', 'c')), pipeline=pipeline) | dataset
    model = dict(decode_head=dict(num_classes=3) | (head or {}))
    config = Config({f'{loader}_dataloader': dict(dataset=settings), 'default_scope': 'mmseg', 'model': model})
    return [(p.level, p.kind) for p in check(config)]


def test_label_maps(image: Path, tmp_path: Path) -> None:
    good = np.repeat(np.arange(3, dtype=np.uint8), 30)[None].repeat(60, 0)
    wrong = ('warning', 'the mask has values of no class')
    fatal = ('error', 'the mask has values that the head cannot learn')
    size = 'the mask has another size than the image'
    bits = 'the mask has values that are not of 8 bits, which mmseg cuts off'
    never = ('warning', 'classes that never occur')
    assert mask_problems(tmp_path, good) == []
    assert mask_problems(tmp_path, good.astype(np.uint16)) == []
    palette = Image.fromarray(good, mode='P')
    palette.putpalette(list(range(9)))
    palette.save(tmp_path / 'palette.png')
    assert mask_problems(tmp_path, (tmp_path / 'palette.png').read_bytes()) == []
    assert mask_problems(tmp_path, good.astype(np.uint16) + 256) == [('error', bits)]
    assert mask_problems(tmp_path, np.stack([good] * 3, 2)) == [('error', 'the mask does not have one channel')]
    assert mask_problems(tmp_path, good.T.copy()) == [('error', size)]
    assert mask_problems(tmp_path, good[::2, ::2].copy()) == [('warning', size)]  # Resize makes them the same
    assert mask_problems(tmp_path, good[::2, ::2].copy(), loader='val') == [('error', size)]
    only = ('error', 'the masks have 255, which is ignored, and no more than one other value')
    assert mask_problems(tmp_path, good * 0 + 255) == [only]
    assert mask_problems(tmp_path, (good > 0) * np.uint8(255)) == [only, never]
    from_one = ('warning', 'the masks count classes from 1')
    assert mask_problems(tmp_path, good + 1) == [fatal, never, wrong, from_one]
    assert mask_problems(tmp_path, b'x') == [('error', 'the mask is truncated or broken')]
    # A head ignores the value that it is told; a spare output and a sigmoid take any.
    ignored = np.where(good == 0, 250, good).astype(np.uint8)
    assert mask_problems(tmp_path, ignored) == [fatal, never, wrong]
    assert mask_problems(tmp_path, ignored, dict(ignore_index=250)) == [never]
    assert mask_problems(tmp_path, good + 1, dict(num_classes=4))[1:] == [
        ('warning', 'model.decode_head.num_classes is 4'),
        wrong,
        from_one,
    ]
    sigmoid = dict(loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    assert mask_problems(tmp_path, good + 1, sigmoid) == [never, wrong, from_one]
    assert mask_problems(tmp_path, good + 1, reduce_zero_label=True) == []


def test_files_of_segmentation_datasets(image: Path, tmp_path: Path) -> None:
    mask = np.zeros((60, 90), np.uint8)
    missing = ('error', 'the mask does not exist')
    Image.open(image).save(tmp_path / 'second.JPG')
    assert [level for level, _ in mask_problems(tmp_path, mask)] == ['warning']
    Image.open(image).save(tmp_path / 'third.jpg')
    Image.fromarray(mask).save(tmp_path / 'masks' / 'second.png')
    found = mask_problems(tmp_path, mask)
    assert (found[0], found[2:]) == (
        missing,
        [('warning', 'images are left out'), ('warning', 'the mask has no image')],
    )
    ((level, kind),) = mask_problems(tmp_path, mask, img_suffix='.gif', data_prefix=dict(img_path='.'))
    assert (level, kind) == ('error', 'the dataset reads no image')
    assert mask_problems(tmp_path, mask, data_prefix=dict(img_path='gone')) == [
        ('error', 'the directory does not exist; set data_root and data_prefix')
    ]


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
            (directory / '1.JPG').symlink_to(image)
    return tmp_path / 'data'


def lines(config: Config, level: str = 'error') -> list[str]:
    return [str(problem) for problem in check(config) if problem.level == level]


def test_directories_of_the_same_classes_have_no_problems(root: Path) -> None:
    for dataset in (
        {},
        dict(metainfo=dict(classes=('a', 'b', 'c'))),
        dict(metainfo=dict(classes=('ant', 'bee', 'cow'))),
    ):
        report = check(classifier(root, **dataset))
        assert (list(report), report.checked['images']) == ([], 6)


def test_a_class_that_validation_lacks(root: Path) -> None:
    """Without the check, the labels of b and c would be those of a and b."""
    (root / 'val' / 'a' / '1.JPG').unlink()
    assert lines(classifier(root)) == []  # an empty directory keeps the numbers
    (root / 'val' / 'a').rmdir()
    (line,) = lines(classifier(root))
    assert (
        f"{root}/val: other classes than in {root}/train, which shifts the labels (only one has 'a'; each class" in line
    )
    (root / 'val' / 'd').mkdir()
    assert "only one has 'a', 'd'" in ' '.join(lines(classifier(root)))
    (root / 'val' / 'a').mkdir()
    assert not [line for line in lines(classifier(root, classes=4)) if 'shifts' in line]  # d is the last one


def test_numbers_and_names_of_directories(root: Path) -> None:
    key = 'model.head.num_classes'
    found = lines(classifier(root, classes=2))
    assert [f'{key} is 2 (' in line and f'set {key}=3' in line for line in found] == [True, True]
    assert lines(classifier(root, classes=4)) == []
    assert f'{key} is 4' in lines(classifier(root, classes=4), 'warning')[0]
    (line, _) = lines(classifier(root, metainfo=dict(classes=('b', 'a', 'c'))))
    assert "metainfo.classes are not in alphabetical order (('b', 'a', 'c')" in line
    assert 'the directory does not exist' in lines(classifier(root / 'gone'))[0]


def test_directories_that_are_not_read(root: Path, image: Path) -> None:
    for part in ('train', 'val'):
        for name in ('b', 'c'):
            Image.open(image).save(root / part / name / '2.webp')
        (root / part / 'c' / '1.JPG').unlink()
        (root / part / 'c' / 'notes.txt').touch()
    config = classifier(root)
    config.val_dataloader = None
    never, left = check(config)
    assert (left.kind, never.kind) == ('images are left out', 'classes that never occur')
    assert left.detail.startswith("2 of 4 are '.webp' (2)")
    assert "'c': the directory has '.webp' (1)" in never.detail
    quick = check(config, quick=True)
    assert [p.kind for p in quick] == ['classes without images', 'images are left out']
    config.train_dataloader.dataset.extensions = ('.jpg', '.webp')
    report = check(config)
    assert list(report) == []
    numbers = {name: row.images for name, row in report.counts['train_dataloader'].items()}
    assert numbers == dict(a=1, b=2, c=1)
    config.train_dataloader.dataset.extensions = ('.gif',)
    (problem,) = check(config)
    assert (problem.level, problem.kind) == ('error', 'the dataset reads no image')
    assert "'.jpg' (2), '.webp' (2)" in problem.detail


def test_classes_of_another_number_than_the_directories(root: Path) -> None:
    found = lines(classifier(root, metainfo=dict(classes=('a', 'b'))))
    assert sum('each class needs a directory' in line for line in found) == 2  # as mmpretrain asserts
    for part in ('train', 'val'):
        (root / part / '.ipynb_checkpoints').mkdir()
    (line, *_) = [line for line in lines(classifier(root, classes=4), 'warning') if 'hidden' in line]
    assert "'.ipynb_checkpoints'" in line


def test_images_without_directories(root: Path, image: Path) -> None:
    (root / 'flat').mkdir()
    Image.open(image).save(root / 'flat' / '1.jpg')
    config = classifier(root)
    config.train_dataloader.dataset.data_prefix = 'flat'
    (problem,) = check(config, loaders=('train_dataloader',))
    assert (problem.level, problem.kind) == ('error', 'no directory of a class')


def test_images_without_labels(root: Path) -> None:
    config = classifier(root, with_label=False)
    report = check(config)
    assert (list(report), report.checked['images']) == ([], 6)
    (root / 'list.txt').write_text('a/1.JPG\nb/2.JPG\n')
    config.train_dataloader.dataset.ann_file = 'list.txt'
    assert ['train/b/2.JPG' in line for line in lines(config)] == [True]


def test_files_of_labels(root: Path) -> None:
    (root / 'val.txt').write_text('a/1.JPG 0\nb/1.JPG 3\nc/1.JPG\n')
    config = classifier(root)
    config.val_dataloader.dataset.ann_file = 'val.txt'
    assert [line.partition('val.txt, ')[2] for line in lines(config)] == [
        "line 2: a line is not PATH LABEL ('b/1.JPG 3'; labels are 0 to 2)",
        "line 3: a line is not PATH LABEL ('c/1.JPG'; labels are 0 to 2)",
    ]
