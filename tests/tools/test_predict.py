"""tools/predict.py as users run it; in this process, so that mmdet, mmseg and mmpretrain are imported once."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from running import ROOT

from deformable_vit.apis.inference import Predictor, dataset_meta
from deformable_vit.datasets import ShapesSettings, write_shapes
from deformable_vit.errors import UserError

CLASSES = ('wheel', 'roof', 'window', 'decoration', 'tire')
COLORS = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0], [0, 200, 200]]
Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture
def predict(call: Predict) -> Predict:
    return partial(call, 'predict.py')


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 6 images of two sizes, and 3 files that are none."""
    root = tmp_path_factory.mktemp('images')
    for name, size in (('first', 80), ('second', 112)):
        write_shapes(root / name, ShapesSettings(train=1, val=3, objects=1, size=size))
    (root / 'in').mkdir()
    for i, file in enumerate(sorted(root.glob('*/coco/val2017/*'))):
        file.rename(root / 'in' / f'{i}{file.suffix}')
    good = next((root / 'in').glob('0.*')).read_bytes()
    (root / 'in' / '1a.jpg').write_text('no image')
    (root / 'in' / '2a.jpg').write_bytes(b'')
    (root / 'in' / '3a.jpg').write_bytes(good[: len(good) // 2])
    return root / 'in'


def write_checkpoint(name: str, path: Path, **meta: object) -> Path:
    config = Config.fromfile(ROOT / 'configs' / 'demo' / name)
    init_default_scope(config.default_scope)
    config.model.backbone.init_cfg = None
    torch.manual_seed(1)
    torch.save(dict(state_dict=MODELS.build(config.model).state_dict(), meta=meta), path)
    return path


def demo(name: str) -> Path:
    return ROOT / 'configs' / 'demo' / name


def test_errors_before_anything_is_written(predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path('c.pth').write_text('no checkpoint')
    Path('empty').mkdir()
    Path('vis').mkdir()
    Image.new('RGB', (8, 8)).save('vis/i.png')
    before = sorted(tmp_path.rglob('*'))
    for args, words in (
        (['c.pth', 'nowhere.jpg', '--out', 'o'], 'input nowhere.jpg does not exist'),
        (['c.pth', 'empty', '--out', 'o'], 'input empty has no images'),
        (['c.pth', '*.jpg', '--out', 'o'], 'input *.jpg has no images'),
        (['c.pth', 'a' * 300, '--out', 'o'], 'File name too long'),
        (['gone.pth', 'vis', '--out', 'o'], 'checkpoint gone.pth does not exist'),
        (['c.pth', 'vis', '--out', '.'], '--out . is not empty; choose another, or pass --overwrite'),
        (['c.pth', 'vis', '--out', '.', '--overwrite'], 'the input vis/i.png could be overwritten'),
        (['c.pth', 'vis', '--out', 'c.pth/o'], 'c.pth/o/vis: Not a directory'),
        (['c.pth', 'vis', '--out', 'o', '--tile', '800'], '--tile merges the boxes of detectors'),
        (['c.pth', 'vis', '--out', 'o', '--overlap', '0.5'], '--overlap 0.5 is that of tiles'),
        (['c.pth', 'vis', '--out', 'o', '--format', 'yolo'], '--format yolo holds boxes'),
    ):
        code, out, err = predict(demo('pvt_shapes.py'), *args)
        assert (code, out) == (2, ''), args
        assert err.startswith('predict.py: error: ')
        assert words in err
        assert len(err.splitlines()) == 1
        assert sorted(tmp_path.rglob('*')) == before
    for _ in range(2):  # the empty directories of a failed run are no reason to refuse the next one
        code, _, err = predict(demo('pvt_shapes.py'), 'c.pth', 'vis', '--out', 'o', '--device', 'gpu')
        assert code == 2
        assert 'gpu' in err


@pytest.mark.slow
def test_instance_segmentation_of_a_directory_with_broken_files(predict: Predict, images: Path, tmp_path: Path) -> None:
    from mmdet.apis import DetInferencer
    from pycocotools import mask

    config = demo('mask-rcnn_pvt_shapes.py')
    checkpoint = write_checkpoint(config.name, tmp_path / 'c.pth', dataset_meta=dict(classes=CLASSES, palette=COLORS))
    command = (config, checkpoint, images, '--device', 'cpu', '--score-thr', '0.05')
    code, out, err = predict(*command, '--out', tmp_path / 'out')
    assert code == 1
    assert f'6 predictions: {tmp_path}/out/predictions.json' in out
    lines = err.splitlines()[-4:]
    assert lines[0] == 'predict.py: 3 of 9 inputs failed:'
    assert [line.split(':')[0] for line in lines[1:]] == [f'  {images}/{name}.jpg' for name in ('1a', '2a', '3a')]
    assert 'truncated' in lines[3]

    found = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert found['classes'] == list(CLASSES)
    assert [Path(failure['image']).stem for failure in found['failed']] == ['1a', '2a', '3a']
    detector = DetInferencer(str(config), str(checkpoint), device='cpu', show_progress=False)
    assert sum(len(record['labels']) for record in found['predictions']) > 0
    for record in found['predictions']:
        (expected,) = detector(record['image'])['predictions']
        keep = np.array(expected['scores']) >= 0.05
        np.testing.assert_allclose(record['bboxes'], np.array(expected['bboxes']).reshape(-1, 4)[keep], rtol=1e-5)
        np.testing.assert_allclose(record['scores'], np.array(expected['scores'])[keep], rtol=1e-5)
        assert record['label_names'] == [CLASSES[label] for label in record['labels']]
        assert record['masks'] == [m for m, kept in zip(expected['masks'], keep, strict=True) if kept]
        size = (record['height'], record['width'])
        assert all(mask.decode(m).shape == size for m in record['masks'])
        assert mmcv.imread(tmp_path / 'out' / record['drawn']).shape[:2] == size

    code, _, err = predict(*command, '--out', tmp_path / 'out')  # nothing is replaced unasked
    assert code == 2
    assert 'pass --overwrite' in err
    options = ('--overwrite', '--no-images', '--batch-size', '4')
    assert predict(*command, '--out', tmp_path / 'out', *options)[0] == 1
    again = json.loads((tmp_path / 'out' / 'predictions.json').read_text())['predictions']
    assert [record['image'] for record in again] == [record['image'] for record in found['predictions']]
    assert not any('drawn' in record for record in again)

    code, out, _ = predict(*command, '--out', tmp_path / 'tiled', '--tile', 48, '--batch-size', 3, '--format', 'coco')
    assert code == 1
    assert str(images) in out  # the root of the file names
    tiled = json.loads((tmp_path / 'tiled' / 'predictions.json').read_text())['predictions']
    assert [record['image'] for record in tiled] == [record['image'] for record in found['predictions']]
    for record in tiled:
        size = (record['height'], record['width'])
        assert all(mask.decode(m).shape == size for m in record['masks'])
        assert mmcv.imread(tmp_path / 'tiled' / record['drawn']).shape[:2] == size
    coco = json.loads((tmp_path / 'tiled' / 'coco.json').read_text())
    assert len(coco['annotations']) == sum(len(record['labels']) for record in tiled) > 0

    code, _, err = predict(demo('retinanet_pvtv2_shapes.py'), checkpoint, images, '--out', tmp_path / 'other')
    assert code == 2
    assert 'does not fit the model of this config' in err.splitlines()[-1]


@pytest.mark.slow
def test_classification(predict: Predict, images: Path, tmp_path: Path) -> None:
    config, names = demo('pvt_shapes.py'), ['disc', 'ring', 'square', 'star', 'triangle']
    checkpoint = write_checkpoint(config.name, tmp_path / 'c.pth', dataset_meta=dict(classes=names))
    code, _, err = predict(config, checkpoint, images, '--out', tmp_path / 'out', '--batch-size', 4)
    assert code == 1
    assert '3 of 9 inputs failed' in err.splitlines()[-4]
    found = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert (found['classes'], len(found['predictions'])) == (names, 6)
    for record in found['predictions']:
        assert sorted(record['labels']) == list(range(5))
        assert record['scores'] == sorted(record['scores'], reverse=True)
        assert sum(record['scores']) == pytest.approx(1, abs=1e-4)
        assert record['label_names'] == [names[label] for label in record['labels']]
        assert mmcv.imread(tmp_path / 'out' / record['drawn']) is not None


def test_names_and_colors_of_classes() -> None:
    def config(number: int, **metainfo: object) -> Config:
        loads = [dict(type='LoadImageFromFile')]
        dataset = dict(type='BaseDetDataset', metainfo=metainfo, pipeline=loads)
        loader = dict(dataset=dict(type='ConcatDataset', datasets=[dataset]))
        head = dict(num_classes=number)
        return Config(dict(model=dict(head=head), default_scope='mmdet', test_dataloader=loader))

    saved = dict(dataset_meta=dict(CLASSES=('a', 'b'), PALETTE=[[1, 2, 3], [4, 5, 6]]))
    expected = dict(classes=['a', 'b'], palette=[(1, 2, 3), (4, 5, 6)])
    assert dataset_meta(config(2, classes=('x', 'y')), saved) == expected  # the checkpoint's first
    assert dataset_meta(config(2), dict(CLASSES=('a', 'b'), PALETTE=expected['palette'])) == expected
    named = dataset_meta(config(2, classes=('x', 'y'), palette='random'), {})
    assert named['classes'] == ['x', 'y']
    assert named == dataset_meta(config(2, classes=('x', 'y')), {})
    assert len(set(named['palette'])) == 2
    assert dataset_meta(config(3), {})['classes'] == ['class 0', 'class 1', 'class 2']
    with pytest.raises(UserError, match=r'names 2 classes, and the model has 3; set test_dataloader'):
        dataset_meta(config(3), saved)


@pytest.mark.slow
def test_semantic_segmentation_of_images_of_all_kinds_and_videos(predict: Predict, tmp_path: Path) -> None:
    """Two files of one name; gray, RGBA, CMYK, turned by EXIF; an unreadable one in the batch; videos."""
    from mmseg.apis import MMSegInferencer

    config = demo('fpn_pvtv2_shapes.py')
    checkpoint = write_checkpoint(config.name, tmp_path / 'c.pth')  # the names are those of the config
    source, rgb = tmp_path / 'in', Image.effect_noise((96, 64), 90).convert('RGB')
    (source / 'sub').mkdir(parents=True)
    rgb.convert('L').save(source / 'gray.png')
    rgb.convert('RGBA').save(source / 'rgba.png')
    rgb.convert('CMYK').save(source / 'cmyk.jpg')
    rgb.save(source / 'same.webp')
    rgb.save(source / 'sub' / 'same.bmp')
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(source / 'turned.jpg', exif=exif.tobytes())
    (source / 'gone.jpg').symlink_to('nowhere.jpg')
    for name, size in (('film.avi', 1), ('cut.avi', 2)):
        writer = cv2.VideoWriter(str(source / name), cv2.VideoWriter.fourcc(*'MJPG'), 5, (64, 48))
        for i in range(8):
            writer.write(np.random.default_rng(i).integers(0, 255, (48, 64, 3)).astype(np.uint8))
        writer.release()
        (source / name).write_bytes((source / name).read_bytes()[: (source / name).stat().st_size // size])
    command = (config, checkpoint, source / '**' / '*', '--device', 'cpu', '--batch-size', 5)
    code, _, err = predict(*command, '--out', tmp_path / 'out')
    assert code == 1
    found = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert [Path(one.get('image') or one['video']).name for one in found['failed']] == ['cut.avi', 'gone.jpg']
    assert 'No such file' in err
    sizes = {Path(one['image']).name: (one['width'], one['height']) for one in found['predictions'] if 'image' in one}
    images = ('cmyk.jpg', 'gray.png', 'rgba.png', 'same.webp', 'same.bmp')
    assert sizes == dict.fromkeys(images, (96, 64)) | {'turned.jpg': (64, 96)}
    assert found['classes'] == ['ground', 'disc', 'triangle', 'square', 'star', 'ring']
    segmentor = MMSegInferencer(str(config), str(checkpoint), device='cpu')
    segmentor.show_progress = False
    for record in [one for one in found['predictions'] if 'image' in one]:
        label_map = np.asarray(Image.open(tmp_path / 'out' / record['label_map']))
        assert np.mean(label_map == segmentor(record['image'])['predictions']) > 0.999  # batches round differently
        assert record['label_names'] == [found['classes'][label] for label in record['labels']]
        assert record['areas'][0] == pytest.approx(np.mean(label_map == record['labels'][0]))
    drawn = {one['drawn'] for one in found['predictions'] if 'image' in one}
    assert len(drawn) == 6
    assert mmcv.imread(tmp_path / 'out' / 'vis' / 'turned.jpg').shape[:2] == (96, 64)
    frames = [one for one in found['predictions'] if one.get('video', '').endswith('film.avi')]
    assert [one['frame'] for one in frames] == list(range(8))
    assert {one['drawn'] for one in frames} == {'vis/film.mp4'}
    assert frames[2]['label_map'] == 'label_maps/film/000002.png'
    assert Image.open(tmp_path / 'out' / frames[2]['label_map']).size == (64, 48)
    assert mmcv.VideoReader(str(tmp_path / 'out' / 'vis' / 'film.mp4')).frame_cnt == 8


@pytest.mark.slow
def test_interrupted_run_leaves_complete_json(
    predict: Predict, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = demo('fpn_pvtv2_shapes.py')
    checkpoint = write_checkpoint(config.name, tmp_path / 'c.pth')
    record, calls = Predictor.record, []

    def interrupt(self: Predictor, sample: object) -> dict:
        calls.append(sample)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return record(self, sample)

    monkeypatch.setattr(Predictor, 'record', interrupt)
    assert predict(config, checkpoint, images, '--out', tmp_path / 'out')[0] == 130
    found = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert (len(found['predictions']), found['complete']) == (2, False)
