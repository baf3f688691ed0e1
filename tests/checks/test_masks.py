"""Label maps of segmentation datasets: what their values mean to the head, and which files a dataset leaves out."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from deformable_vit.checks import check
from deformable_vit.checks.labels import Labels

IGNORED = 'the masks have 255, which is ignored, and no more than one other value'
CUT = 'the mask has values that are not of 8 bits, which mmseg cuts off'
FATAL = 'the mask has values that the head cannot learn'
NEVER = 'classes that never occur'
NO_CLASS = 'the mask has values of no class'


def stripes(*values: float, dtype: Any = np.uint8) -> np.ndarray:
    """Return a label map of (24, 36) with a stripe of each value."""
    return np.repeat(np.array(values, dtype), 36 // len(values))[None].repeat(24, 0)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Config]:
    """Write images and masks, and return a config of them whose validation has the same files."""

    def write(
        *masks: Any,
        classes: tuple[str, ...] = ('ground', 'polyp'),
        suffix: str = '.jpg',
        mask: str = '.png',
        **edits: Any,
    ) -> Config:
        for i, content in enumerate(masks):
            image = content if isinstance(content, Image.Image) else Image.fromarray(content)
            for kind in ('images', 'masks'):
                (tmp_path / kind).mkdir(exist_ok=True)
            image.save(tmp_path / 'masks' / f'{i}{mask}')
            Image.new('RGB', image.size).save(tmp_path / 'images' / f'{i}{suffix}')
        dataset = dict(type='BaseSegDataset', data_root=str(tmp_path), metainfo=dict(classes=classes))
        dataset |= dict(data_prefix=dict(img_path='images', seg_map_path='masks'))
        dataset |= dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')])
        config = Config(
            dict(
                default_scope='mmseg',
                model=dict(type='EncoderDecoder', decode_head=dict(type='FCNHead', num_classes=len(classes))),
                train_dataloader=dict(dataset=dataset),
                val_dataloader=dict(dataset=dataset | dict(test_mode=True)),
                val_evaluator=dict(type='IoUMetric'),
            )
        )
        config.merge_from_dict(edits)
        return config

    return write


def found(config: Config, loader: str = 'train', **options: Any) -> list[tuple[str, str]]:
    """Return level and kind of the problems of a dataset."""
    return [(p.level, p.kind) for p in check(config, loaders=(f'{loader}_dataloader',), **options)]


def test_objects_of_the_ignored_value(write: Callable[..., Config]) -> None:
    config = write(*[stripes(0, 255)] * 3)
    assert found(config) == [('error', IGNORED), ('warning', NEVER)]
    assert found(config, 'val') == [('warning', NEVER)]  # the images of an evaluation may have no object
    assert found(write(*[stripes(0, 255)] * 3, stripes(0, 1))) == []
    # A part of the training may be images without objects.
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[config.train_dataloader.dataset] * 1)
    config.train_dataloader.dataset.datasets.append(config.train_dataloader.dataset.datasets[0] | dict(indices=[0, 3]))
    write(*[stripes(0, 255)] * 3, stripes(0, 1))
    assert found(config) == []


def test_a_sample_of_the_masks_warns_of_the_ignored_value(write: Callable[..., Config]) -> None:
    config = write(*[stripes(0, 255)] * 130)
    assert found(config, quick=True) == [('warning', IGNORED)]
    assert found(config)[0] == ('error', IGNORED)


def test_the_config_says_which_label_is_ignored(write: Callable[..., Config]) -> None:
    def told(head: int | None = 255, metric: int = 255, pad: int = 255) -> list[tuple[str, str]]:
        settings: dict[str, Any] = {'model.decode_head.ignore_index': head, 'val_evaluator.ignore_index': metric}
        config = write(stripes(0, 1, 250), **settings, **{'model.data_preprocessor': dict(seg_pad_val=pad)})
        return found(config) + found(config, 'val')

    assert told(250, 250, 250) == []
    assert told(250, 250) == [('warning', 'data_preprocessor pads small images with a label of no class')]
    assert told(250, pad=250) == [('warning', NO_CLASS)]
    assert told(255, 250) == told(255, 250, 255) == [('error', FATAL), ('warning', NO_CLASS)]
    assert told(None, 250, 1)[0] == ('error', FATAL)


def test_one_output_and_a_sigmoid(write: Callable[..., Config]) -> None:
    sigmoid = dict(type='CrossEntropyLoss', use_sigmoid=True)
    for head in (dict(num_classes=2, out_channels=1), dict(num_classes=1)):
        config = write(stripes(0, 1), **{'model.decode_head': dict(type='FCNHead', loss_decode=sigmoid) | head})
        assert found(config) == found(config, 'val') == []


def test_classes_counted_from_one(write: Callable[..., Config]) -> None:
    from_one = ('warning', 'the masks count classes from 1')
    assert from_one in found(write(stripes(1, 2)))
    assert found(write(stripes(1, 2), **{'train_dataloader.dataset.reduce_zero_label': True})) == []
    assert from_one not in found(write(stripes(0, 1, 2)))
    config = write(stripes(0, 1), **{'train_dataloader.dataset.reduce_zero_label': True})
    (problem,) = check(config, loaders=('train_dataloader',))
    assert problem.kind == NEVER
    assert 'reduce_zero_label=False' in problem.detail


def test_pixels_are_counted(write: Callable[..., Config]) -> None:
    counts = check(write(stripes(0, 1), stripes(0, 0, 255))).counts
    for loader in ('train_dataloader', 'val_dataloader'):
        numbers = {name: row.numbers() for name, row in counts[loader].items()}
        assert numbers == dict(ground=dict(images=2, pixels=432 + 576), polyp=dict(images=1, pixels=432))


@pytest.mark.parametrize(
    ('values', 'dtype', 'suffix', 'kinds'),
    [
        ((0, 1), np.uint16, '.png', []),
        ((0, 1, 2**16 - 1), np.uint16, '.png', []),  # becomes 255
        ((0, 1, 300), np.uint16, '.png', [CUT]),
        ((0, 1, -1), np.int32, '.tif', []),
        ((0, 1, -2), np.int32, '.tif', [CUT]),
        ((0, 1), np.float32, '.tif', []),
        ((0, 0.5), np.float32, '.tif', [CUT]),
    ],
)
def test_values_of_other_types(
    write: Callable[..., Config], values: tuple[float, ...], dtype: Any, suffix: str, kinds: list[str]
) -> None:
    settings = {'train_dataloader.dataset.seg_map_suffix': suffix}
    config = write(stripes(*values, dtype=dtype), mask=suffix, **settings)
    assert found(config) == [('error', kind) for kind in kinds]


def test_masks_of_several_channels(write: Callable[..., Config]) -> None:
    def detail(image: Image.Image, backend: str = 'pillow') -> str:
        config = write(image)
        config.train_dataloader.dataset.pipeline[1].imdecode_backend = backend
        (problem,) = check(config, loaders=('train_dataloader',))
        assert (problem.level, problem.kind) == ('error', 'the mask does not have one channel')
        return problem.detail

    gray = Image.fromarray(stripes(0, 1))
    colors = np.stack([stripes(0, 220), stripes(0, 20), stripes(0, 60)], -1)
    assert '2 colors' in detail(Image.fromarray(colors))
    assert 'channels are the same' in detail(Image.merge('RGB', [gray] * 3))
    for mode in ('RGBA', 'LA'):
        assert mode in detail(gray.convert(mode))
    palette = Image.fromarray(stripes(0, 1), mode='P')
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert found(write(palette)) == found(write(Image.fromarray(stripes(0, 1) > 0))) == []
    assert "imdecode_backend='cv2'" in detail(palette, 'cv2')


def test_masks_that_jpeg_has_changed(write: Callable[..., Config]) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (24, 36), dtype=np.uint8) * np.uint8(255)
    config = write(noise, mask='.jpg', **{'train_dataloader.dataset.seg_map_suffix': '.jpg'})
    fatal = check(config, loaders=('train_dataloader',)).errors[0]
    assert fatal.kind == FATAL
    assert 'JPEG' in fatal.detail


def test_images_with_another_suffix(write: Callable[..., Config], tmp_path: Path) -> None:
    config = write(*[stripes(0, 1)] * 4)
    for number, name in ((1, '1.JPG'), (2, '2.png')):
        (tmp_path / 'images' / f'{number}.jpg').rename(tmp_path / 'images' / name)
    (tmp_path / 'images' / 'notes.png').touch()  # no mask has its name
    problems = {p.kind: p for p in check(config, loaders=('train_dataloader',))}
    assert problems['images are left out'].detail.startswith("2 of 4 end with '.JPG' (1), '.png' (1)")
    masks = [p for p in check(config, loaders=('train_dataloader',)) if p.kind == 'the mask has no image']
    assert [p.detail.split(' exists')[0] for p in sorted(masks, key=lambda p: p.file)] == ['1.JPG', '2.png']
    config.train_dataloader.dataset.img_suffix = '.webp'
    (problem,) = check(config, loaders=('train_dataloader',))
    assert problem.level == 'error'
    assert "'.jpg' (2)" in problem.detail
    config.train_dataloader.dataset.img_suffix = ('.jpg', '.png')
    assert found(config) == [('error', 'a suffix is not text')]


def test_masks_with_another_suffix(write: Callable[..., Config]) -> None:
    config = write(stripes(0, 1), mask='_mask.png')
    kinds = [('error', 'no mask has the name of an image; set seg_map_suffix'), ('error', 'the mask does not exist')]
    assert found(config) == kinds
    config.train_dataloader.dataset.seg_map_suffix = '_mask.png'
    assert found(config) == []


def test_masks_beside_their_images(write: Callable[..., Config], tmp_path: Path) -> None:
    config = write(*[stripes(0, 1)] * 2)
    for file in (tmp_path / 'masks').iterdir():
        file.rename(tmp_path / 'images' / file.name)
    config.train_dataloader.dataset.data_prefix.seg_map_path = 'images'
    assert found(config) == []


def test_lists_of_files(write: Callable[..., Config], tmp_path: Path) -> None:
    config = write(*[stripes(0, 1)] * 2)
    config.train_dataloader.dataset.ann_file = 'list.txt'
    (tmp_path / 'list.txt').write_text('0\n')
    assert found(config) == []
    (tmp_path / 'list.txt').write_text('0.jpg\n')
    problem = next(p for p in check(config).errors if p.kind == 'the image does not exist')
    assert problem.detail.startswith('0.jpg exists')
    config.train_dataloader.dataset.type = 'PascalVOCDataset'  # which asserts that the file exists
    config.train_dataloader.dataset.ann_file = 'gone.txt'
    assert found(config) == [('error', 'the annotation file does not exist')]
    config.train_dataloader.dataset.update(type='DRIVEDataset', ann_file='', metainfo=None, data_root='gone')
    assert found(config) == [('error', 'the directory does not exist; set data_root and data_prefix')]


def test_links_are_followed_as_mmengine_does(write: Callable[..., Config], tmp_path: Path) -> None:
    config = write(*[stripes(0, 1)] * 2)
    (tmp_path / 'images').rename(tmp_path / 'elsewhere')
    (tmp_path / 'images').symlink_to('elsewhere')
    (tmp_path / 'elsewhere' / 'more').mkdir()
    (tmp_path / 'elsewhere' / '.1.jpg').touch()  # hidden
    assert found(config) == []
    (tmp_path / 'images' / '1.jpg').unlink()
    os.symlink('gone.jpg', tmp_path / 'images' / '1.jpg')  # mmengine leaves it out
    assert found(config) == [('warning', 'the mask has no image')]


def test_masks_that_the_pipeline_does_not_read(write: Callable[..., Config], tmp_path: Path) -> None:
    config = write(stripes(0, 255))
    config.val_dataloader.dataset.pipeline.pop()
    config.val_dataloader.dataset.data_prefix.seg_map_path = 'gone'
    assert found(config, 'val') == []
    assert check(config, loaders=('val_dataloader',)).counts == {}


def test_backends_that_cannot_read(write: Callable[..., Config]) -> None:
    for backend, package in (('tifffile', 'tifffile'), ('turbojpeg', 'PyTurboJPEG'), ('pil', None)):
        config = write(stripes(0, 1))
        config.train_dataloader.dataset.pipeline[0].imdecode_backend = backend
        if backend == 'pil' or importlib.util.find_spec(backend) is None:
            (problem,) = check(config, loaders=('train_dataloader',))
            assert (problem.level, problem.kind) == ('error', 'the pipeline cannot read images')
            assert (f'pip install {package}' if package else 'not supported') in problem.detail


@pytest.mark.parametrize(('loads', 'is_error'), [(None, False), (True, True), (False, False)])
def test_zero_is_reduced_by_the_dataset(write: Callable[..., Config], loads: bool | None, is_error: bool) -> None:
    """mmseg's loading fails where it is told something else than the dataset, as after a copy of ADE20K's pipeline."""
    config = write(stripes(0, 1))
    dataset = config.train_dataloader.dataset
    dataset.pipeline[1].reduce_zero_label = loads
    kind = 'LoadAnnotations does not fit the dataset'
    assert found(config) == ([('error', kind)] if is_error else [])
    with DATASETS.switch_scope_and_registry('mmseg') as registry:
        built = registry.build(dataset)
    if is_error:
        with pytest.raises(AssertionError, match='reduce_zero_label'):
            built[0]
    else:
        assert built[0]['gt_seg_map'].max() == 1


def test_an_error_of_a_check_is_a_warning(write: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Labels, 'check_all', lambda self: 1 / 0)
    assert found(write(stripes(0, 1))) == [('warning', 'a file cannot be checked')]
