"""Built-in data: deterministic, consistent across its layouts, never overwritten."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.random import default_rng
from pycocotools.coco import COCO

from deformable_vit.datasets import CLASSES, SEG_CLASSES, ShapesSettings, draw_image, draw_object, write_shapes

FEW = ShapesSettings(train=6, val=3, objects=4, size=64)


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('made') / 'shapes'
    assert write_shapes(root, FEW)
    return root


def digest(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def test_seed_determines_every_byte(root: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / 'again', FEW)
    assert digest(tmp_path / 'again') == digest(root)
    write_shapes(tmp_path / 'other', ShapesSettings(seed=1, train=6, val=3, objects=4, size=64))
    mine, other = digest(root), digest(tmp_path / 'other')
    assert mine.keys() == other.keys()
    assert not any(mine[k] == other[k] for k in mine if k.endswith('.jpg'))


def test_images_are_those_that_the_convergence_thresholds_were_measured_on() -> None:
    drawn = draw_image(default_rng(1), 96, 128)
    assert drawn.labels == (4, 3, 2)
    assert drawn.masks.sum(axis=(1, 2)) == pytest.approx([1038, 981, 1401], abs=2)
    assert drawn.clutter.sum() == pytest.approx(246, abs=2)
    assert drawn.image.mean(axis=(0, 1)) == pytest.approx([85.746, 124.899, 72.675], abs=0.02)
    assert draw_object(default_rng(0), 3, 64).mean(axis=(0, 1)) == pytest.approx([97.320, 74.783, 55.974], abs=0.02)


def test_shapes_of_an_image_share_no_pixels_and_stay_visible() -> None:
    overlapping = 0
    for seed in range(30):
        drawn = draw_image(default_rng(seed), 96, 128)
        assert drawn.image.shape == (96, 128, 3)
        assert len(drawn.labels) == len(drawn.masks) >= 1
        assert drawn.masks.sum(axis=0).max() == 1
        assert not (drawn.clutter & drawn.masks.any(axis=0)).any()
        assert all(mask.sum() > 30 for mask in drawn.masks)
        boxes = [(*np.argwhere(m).min(0), *np.argwhere(m).max(0)) for m in drawn.masks]
        overlapping += any(
            a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
            for i, a in enumerate(boxes)
            for b in boxes[:i]
        )
    assert overlapping > 10


def test_coco_and_ade_layouts_annotate_the_same_images(root: Path) -> None:
    for coco_split, ade_split, count in (('train2017', 'training', 6), ('val2017', 'validation', 3)):
        coco = COCO(root / 'coco' / 'annotations' / f'instances_{coco_split}.json')
        assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        maps = sorted((root / 'ade' / 'annotations' / ade_split).glob('*.png'))
        assert len(maps) == len(coco.imgs) == count
        for image, file in zip(coco.imgs.values(), maps, strict=True):
            ade = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            assert ade.shape == (image['height'], image['width'])
            assert ade.max() <= len(SEG_CLASSES)
            found = np.zeros_like(ade)
            for annotation in coco.loadAnns(coco.getAnnIds(image['id'])):
                mask = coco.annToMask(annotation).astype(bool)
                assert annotation['area'] == mask.sum()
                ys, xs = np.nonzero(mask)
                assert annotation['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
                found[mask] = annotation['category_id'] + 1
            assert np.array_equal(found[ade > 1], ade[ade > 1])
            assert np.array_equal(found > 1, ade > 1)
            assert (ade == 1).any()
            content = (root / 'coco' / coco_split / image['file_name']).read_bytes()
            assert (root / 'ade' / 'images' / ade_split / f'{file.stem}.jpg').read_bytes() == content
    every = np.concatenate([cv2.imread(str(f), 0).ravel() for f in (root / 'ade' / 'annotations').rglob('*.png')])
    assert 0 < (every == 0).mean() < 0.2  # some pixels are unlabeled


def test_nothing_is_overwritten(root: Path, tmp_path: Path) -> None:
    before = digest(root)
    assert not write_shapes(root, FEW)  # exists already
    other = ShapesSettings(train=2, val=1, objects=1, size=64)
    with pytest.raises(FileExistsError, match="'train': 6.*--overwrite"):
        write_shapes(root, other)
    assert digest(root) == before

    mine = tmp_path / 'mine'
    mine.mkdir()
    (mine / 'thesis.txt').write_text('precious')
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match='is not a shapes dataset'):
            write_shapes(mine, other, overwrite=overwrite)
    assert (mine / 'thesis.txt').read_text() == 'precious'

    again = tmp_path / 'again'
    write_shapes(again, FEW)
    assert write_shapes(again, other, overwrite=True)
    assert len(json.loads((again / 'coco/annotations/instances_train2017.json').read_text())['images']) == 2


def test_interrupted_run_leaves_no_incomplete_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / 'shapes'
    with monkeypatch.context() as patch:
        patch.setattr(
            'deformable_vit.datasets.writing._write_objects', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            write_shapes(root, FEW)
    assert not root.exists()
    assert write_shapes(root, FEW)
    assert not root.with_name('shapes.part').exists()


def test_wrong_settings_are_named() -> None:
    for name, value in dict(train=0, size=32, seed=-1, max_shapes=0).items():
        with pytest.raises(ValueError, match=name):
            ShapesSettings(**{name: value})
