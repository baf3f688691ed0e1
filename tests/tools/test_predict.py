"""tools/predict.py as users run it; in this process, so that mmdet, mmseg and mmpretrain are imported once."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader
from PIL import Image
from running import ROOT

from deformable_vit.datasets import ShapesSettings, write_shapes
from deformable_vit.engine import UserError
from deformable_vit.engine.model import dataset_meta

CLASSES = ('wheel', 'roof', 'window', 'decoration', 'tire')
COLORS = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0], [0, 200, 200]]
Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Run the tool; return its exit status and what it prints."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', ['predict.py', *map(str, args)])
        try:
            runpy.run_path(str(ROOT / 'tools' / 'predict.py'), run_name='__main__')
        except SystemExit as exit_:
            return int(exit_.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


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


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['c.pth', 'nowhere.jpg', '--out', 'o'], 'input nowhere.jpg does not exist'),
        (['c.pth', 'i.png', '--out', 'o', '--device', 'gpu'], '--device gpu is unknown; use cpu, cuda or cuda:N'),
        (['c.pth', 'i.png', '--out', 'o', '--device', 'meta'], '--device meta is unknown'),
        (['c.pth', 'i.png', '--out', 'o', '--device', 'cuda:99'], '--device cuda:99: there '),
        (['c.pth', 'i.png', '--out', 'o', '--batch-size', '0'], '--batch-size must be at least 1, got 0'),
        (['c.pth', 'i.png', '--out', 'o', '--score-thr', '30'], '--score-thr must be from 0 to 1, got 30.0'),
        (['gone.pth', 'i.png', '--out', 'o'], 'checkpoint gone.pth does not exist'),
        (['c.pth', 'i.png', '--out', '.'], '--out . is not empty; choose another, or pass --overwrite'),
        (['c.pth', 'i.png', '--out', 'o', '--json', 'c.pth'], '--json c.pth exists already'),
        (['c.pth', 'i.png', '--out', 'o', '--score-thr', '0.5'], '--score-thr is for detection'),
    ],
)
def test_errors_before_anything_is_loaded(
    args: list[str], words: str, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', pytest.fail)
    Path('c.pth').write_text('')
    Image.new('RGB', (8, 8)).save('i.png')
    code, out, err = predict(demo('pvt_shapes.py'), *args, *(() if '--device' in args else ('--device', 'cpu')))
    assert (code, out) == (2, '')
    assert err.startswith('predict.py: error: ')
    assert words in err
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ['c.pth', 'i.png']


@pytest.mark.slow
def test_instance_segmentation_of_a_directory_with_broken_files(predict: Predict, images: Path, tmp_path: Path) -> None:
    from mmdet.apis import DetInferencer
    from pycocotools import mask

    config = demo('mask-rcnn_pvt_shapes.py')
    checkpoint = write_checkpoint(config.name, tmp_path / 'c.pth', dataset_meta=dict(classes=CLASSES, palette=COLORS))
    command = (config, checkpoint, images, '--device', 'cpu', '--score-thr', '0.05')
    code, out, err = predict(*command, '--out', tmp_path / 'out')
    assert code == 1
    assert f'6 predictions: {tmp_path}/out/predictions.json, images in {tmp_path}/out/vis' in out
    lines = err.splitlines()
    assert lines[0] == 'predict.py: 3 of 9 inputs failed:'
    assert [line.split(':')[0] for line in lines[1:]] == [f'  {images}/{name}.jpg' for name in ('1a', '2a', '3a')]
    assert lines[2].endswith('2a.jpg: the file is empty')

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
    options = ('--overwrite', '--no-images', '--batch-size', '4', '--json', tmp_path / 'all.json')
    assert predict(*command, '--out', tmp_path / 'out', *options)[0] == 1
    again = json.loads((tmp_path / 'all.json').read_text())['predictions']
    assert [record['image'] for record in again] == [record['image'] for record in found['predictions']]
    assert not any('drawn' in record for record in again)

    code, _, err = predict(demo('retinanet_pvtv2_shapes.py'), checkpoint, images, '--out', tmp_path / 'other')
    assert code == 2
    assert 'does not fit the model of this config' in err.splitlines()[-1]


@pytest.mark.slow
def test_semantic_segmentation(predict: Predict, images: Path, tmp_path: Path) -> None:
    from mmseg.apis import MMSegInferencer

    config = demo('fpn_pvtv2_shapes.py')
    checkpoint = write_checkpoint(config.name, tmp_path / 'c.pth')  # the names are those of the config
    code, _, _ = predict(config, checkpoint, images / '[0-9].*', '--out', tmp_path / 'out', '--batch-size', 4)
    assert code == 0
    found = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert found['classes'] == ['ground', 'disc', 'triangle', 'square', 'star', 'ring']
    segmentor = MMSegInferencer(str(config), str(checkpoint), device='cpu')
    segmentor.show_progress = False
    assert len(found['predictions']) == 6
    for record in found['predictions']:
        expected = segmentor(record['image'])['predictions']
        label_map = np.asarray(Image.open(tmp_path / 'out' / record['label_map']))
        assert np.mean(label_map == expected) > 0.999  # batches round differently
        assert record['label_names'] == [found['classes'][label] for label in record['labels']]
        assert sum(record['areas']) == pytest.approx(1)
        assert record['areas'][0] == pytest.approx(np.mean(label_map == record['labels'][0]))
        assert mmcv.imread(tmp_path / 'out' / record['drawn']).shape[:2] == label_map.shape


@pytest.mark.slow
def test_classifier_from_training_to_publication_and_predictions(
    predict: Predict, tool, config, images: Path, tmp_path: Path
) -> None:
    path = config('pvt_shapes.py')
    own = f'{ROOT / "projects"}:{ROOT / "tests"}'  # also where another checkout is installed
    tool('train.py', path, '--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=1', PYTHONPATH=own)
    publish = next(Path(p) for p in _mim('mmpretrain').rglob('publish_model.py'))
    code = (
        'import runpy, sys, torch; torch.load("run/epoch_1.pth", weights_only=True); '
        f'sys.argv = ["publish_model.py", "run/epoch_1.pth", "published.pth"]; '
        f'runpy.run_path({str(publish)!r}, run_name="__main__"); assert "deformable_vit" not in sys.modules'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (published,) = tmp_path.glob('published*.pth')

    code, _, err = predict(path, published, images, '--out', tmp_path / 'out', '--batch-size', 4)
    assert (code, len(err.splitlines())) == (1, 4)
    found = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert found['classes'] == ['disc', 'ring', 'square', 'star', 'triangle']  # directories, in the checkpoint
    for record in found['predictions']:
        assert sorted(record['labels']) == list(range(5))
        assert record['scores'] == sorted(record['scores'], reverse=True)
        assert sum(record['scores']) == pytest.approx(1, abs=1e-4)
        assert record['label_names'] == [found['classes'][label] for label in record['labels']]


def _mim(package: str) -> Path:
    import importlib.util

    return Path(importlib.util.find_spec(package).origin).parent / '.mim' / 'tools'


def test_names_and_colors_of_classes() -> None:
    def config(number: int, **metainfo: object) -> Config:
        dataset = dict(type=BaseDataset, metainfo=metainfo)
        return Config(dict(model=dict(head=dict(num_classes=number)), test_dataloader=dict(dataset=dataset)))

    saved = dict(meta=dict(dataset_meta=dict(CLASSES=('a', 'b'), PALETTE=[[1, 2, 3], [4, 5, 6]])))
    expected = dict(classes=['a', 'b'], palette=[(1, 2, 3), (4, 5, 6)])
    assert dataset_meta(config(2, classes=('x', 'y')), saved) == expected  # the checkpoint's first
    assert dataset_meta(config(2), dict(meta=dict(CLASSES=('a', 'b'), PALETTE=expected['palette']))) == expected
    named = dataset_meta(config(2, classes=('x', 'y')), {})
    assert named['classes'] == ['x', 'y']
    assert named == dataset_meta(config(2, classes=('x', 'y')), {})
    assert len(set(named['palette'])) == 2
    assert dataset_meta(config(3), {})['classes'] == ['class 0', 'class 1', 'class 2']
    with pytest.raises(UserError, match=r'checkpoint names 2 classes \(a, b, ...\) and model.head.num_classes is 3'):
        dataset_meta(config(3), saved)


def test_colors_of_a_subset_are_those_of_its_classes() -> None:
    class Known(BaseDataset):
        METAINFO = dict(classes=('a', 'b', 'c'), palette=[(1, 1, 1), (2, 2, 2), (3, 3, 3)])  # noqa: RUF012

    def config(number: int, **metainfo: object) -> Config:
        dataset = dict(type=Known, metainfo=metainfo)
        loader = dict(dataset=dict(type='ConcatDataset', datasets=[dataset]))
        return Config(dict(model=dict(head=dict(num_classes=number)), test_dataloader=loader))

    assert dataset_meta(config(2, classes=('c', 'b')), {})['palette'] == [(3, 3, 3), (2, 2, 2)]
    saved = dict(meta=dict(dataset_meta=dict(classes=('b', 'new'), palette='random')))
    first, other = dataset_meta(config(2), saved)['palette']
    assert first == (2, 2, 2)
    assert other == dataset_meta(config(2, classes=('x', 'y'), palette='random'), {})['palette'][1]
    own = dataset_meta(config(2, classes=('c', 'b'), palette=[(7, 7, 7), (8, 8, 8)]), {})
    assert own['palette'] == [(7, 7, 7), (8, 8, 8)]


def test_failed_frames_are_one_line_of_their_video() -> None:
    from predict import failures

    frames = [dict(video='film.mp4', frame=i, reason='too dark') for i in range(3, 303)]
    failed = [dict(image='a.jpg', reason='empty'), *frames, dict(video='film.mp4', frame=400, reason='other')]
    assert failures(failed) == [
        'a.jpg: empty',
        'film.mp4, frame 3 and 299 more: too dark',
        'film.mp4, frame 400: other',
    ]
