"""Predictions on files of all kinds, with a predictor that needs no model."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from test_inputs import write, write_video

from deformable_vit.engine import UserError
from deformable_vit.engine.inference import Predictor
from deformable_vit.engine.inputs import find_inputs
from deformable_vit.engine.predict import predict
from deformable_vit.engine.predictions import Outputs, PredictionsFile, check_outputs


class MeanPredictor(Predictor):
    """Predict the mean of an image; fail where its width is one of ``bad``."""

    task = 'mean'

    def __init__(self, bad: tuple[int, ...] = (), equal_sizes: bool = False, labels: bool = False) -> None:
        self.bad, self.needs_equal_sizes, self.labels = bad, equal_sizes, labels
        self.batches: list[list[int]] = []

    def read(self, path: Path) -> np.ndarray:
        self.loader = lambda results: dict(img=cv2.imread(results['img_path']))
        return super().read(path)

    def prepare(self, image: np.ndarray) -> dict[str, Any]:
        if image.shape[1] == 13:
            raise ValueError('cannot resize 13')
        return dict(inputs=image)

    def predict(self, batch: list[dict[str, Any]]) -> list[Any]:
        widths = [data['inputs'].shape[1] for data in batch]
        self.batches.append(widths)
        if set(widths) & set(self.bad):
            raise RuntimeError('out of memory\nmore')
        return [data['inputs'] for data in batch]

    def record(self, sample: np.ndarray) -> dict[str, Any]:
        return dict(mean=float(sample.mean()) if sample.shape[1] != 17 else float('nan'))

    def draw(self, image: np.ndarray, sample: np.ndarray) -> np.ndarray:
        return 255 - image

    def label_map(self, sample: np.ndarray) -> np.ndarray | None:
        return (sample[..., 0] // 128).astype(np.uint8) if self.labels else None


def run(predictor: Predictor, directory: Path, out: Path, batch_size: int = 1, draw: bool = True) -> dict[str, Any]:
    inputs = find_inputs([str(directory / '*')])
    check_outputs(out, out / 'predictions.json', inputs, overwrite=False)
    with PredictionsFile(out / 'predictions.json', dict(task=predictor.task)) as file:
        predict(predictor, inputs, Outputs(out, file, draw), batch_size)
    return json.loads((out / 'predictions.json').read_text())


def test_broken_files_among_good_ones(tmp_path: Path) -> None:
    for i in range(9):
        write(tmp_path / 'in' / f'{i}.jpg')
    (tmp_path / 'in' / '2.jpg').write_text('no image')
    (tmp_path / 'in' / '4.jpg').write_bytes(b'')
    (tmp_path / 'in' / '7.jpg').write_bytes((tmp_path / 'in' / '6.jpg').read_bytes()[:1000])
    found = run(MeanPredictor(), tmp_path / 'in', tmp_path / 'out', batch_size=4)
    done = ['0.jpg', '1.jpg', '3.jpg', '5.jpg', '6.jpg', '8.jpg']
    assert [Path(record['image']).name for record in found['predictions']] == done
    failed = [(Path(failure['image']).name, failure['reason']) for failure in found['failed']]
    assert failed[0][0] == '2.jpg'
    assert failed[1] == ('4.jpg', 'the file is empty')
    assert failed[2][0] == '7.jpg'
    assert failed[2][1].startswith('the file is damaged: ')
    assert found['complete'] is True
    assert sorted(path.name for path in (tmp_path / 'out' / 'vis').iterdir()) == done
    for record in found['predictions']:
        assert (record['width'], record['height']) == (40, 30)
        image = cv2.imread(record['image']).astype(int)
        assert record['mean'] == pytest.approx(image.mean())
        drawn = cv2.imread(str(tmp_path / 'out' / record['drawn'])).astype(int)
        assert abs(255 - image - drawn).mean() < 20  # drawn is a JPEG, too


def test_an_image_that_the_model_cannot_handle_costs_no_other(tmp_path: Path) -> None:
    for name, width in {'a': 40, 'b': 50, 'c': 13, 'd': 60, 'e': 17}.items():
        write(tmp_path / 'in' / f'{name}.png', (width, 30))
    predictor = MeanPredictor(bad=(50,))
    found = run(predictor, tmp_path / 'in', tmp_path / 'out', batch_size=4, draw=False)
    assert predictor.batches == [[40, 50, 60, 17], [40], [50], [60], [17]]
    assert [Path(record['image']).stem for record in found['predictions']] == ['a', 'd']
    assert {Path(failure['image']).stem: failure['reason'] for failure in found['failed']} == {
        'b': 'RuntimeError: out of memory more',
        'c': 'ValueError: cannot resize 13',
        'e': 'ValueError: a predicted number is infinite or not a number',
    }
    assert not (tmp_path / 'out' / 'vis').exists()


def test_batches_have_one_size_where_the_model_needs_it(tmp_path: Path) -> None:
    for name, width in {'a': 40, 'b': 40, 'c': 50, 'd': 40}.items():
        write(tmp_path / 'in' / f'{name}.png', (width, 30))
    predictor = MeanPredictor(equal_sizes=True, labels=True)
    found = run(predictor, tmp_path / 'in', tmp_path / 'out', batch_size=3)
    assert predictor.batches == [[40, 40], [50], [40]]
    assert [record['label_map'] for record in found['predictions']] == [f'label_maps/{name}.png' for name in 'abcd']
    labels = cv2.imread(str(tmp_path / 'out' / 'label_maps' / 'a.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, cv2.imread(str(tmp_path / 'in' / 'a.png'))[..., 0] // 128)


def test_videos_and_images(tmp_path: Path) -> None:
    write(tmp_path / 'in' / 'a.png')
    write_video(tmp_path / 'in' / 'b.avi', frames=5)
    write(tmp_path / 'in' / 'c.png')
    found = run(MeanPredictor(labels=True), tmp_path / 'in', tmp_path / 'out', batch_size=3)
    where = [(Path(r.get('image', r.get('video'))).name, r.get('frame')) for r in found['predictions']]
    assert where == [('a.png', None), *(('b.avi', i) for i in range(5)), ('c.png', None)]
    assert [record['drawn'] for record in found['predictions']] == ['vis/a.png', *['vis/b.mp4'] * 5, 'vis/c.png']
    assert found['predictions'][3]['label_map'] == 'label_maps/b/000002.png'
    assert (tmp_path / 'out' / 'label_maps' / 'b' / '000002.png').is_file()
    drawn = cv2.VideoCapture(str(tmp_path / 'out' / 'vis' / 'b.mp4'))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    means = [float(drawn.read()[1].mean()) for _ in range(5)]
    assert means == pytest.approx([255, 235, 215, 195, 175], abs=8)  # the input gets brighter


def test_interrupted_run_leaves_complete_json(tmp_path: Path) -> None:
    class Interrupted(MeanPredictor):
        def predict(self, batch: list[dict[str, Any]]) -> list[Any]:
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().predict(batch)

    for i in range(4):
        write(tmp_path / 'in' / f'{i}.png')
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), tmp_path / 'in', tmp_path / 'out')
    found = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert len(found['predictions']) == 2
    assert found['complete'] is False


def test_nothing_of_the_user_is_overwritten(tmp_path: Path) -> None:
    image = write(tmp_path / 'in' / 'vis' / 'a.png')
    inputs = find_inputs([str(image)])
    out = tmp_path / 'in'
    file = tmp_path / 'own.json'
    with pytest.raises(UserError, match='is not empty; choose another, or pass --overwrite'):
        check_outputs(out, out / 'predictions.json', inputs, overwrite=False)
    with pytest.raises(UserError, match='the input .*a.png would be overwritten'):
        check_outputs(out, out / 'predictions.json', inputs, overwrite=True)
    file.touch()
    with pytest.raises(UserError, match='--json .*own.json exists already'):
        check_outputs(tmp_path / 'new', file, inputs, overwrite=False)
    with pytest.raises(UserError, match='is a directory; name a file'):
        check_outputs(tmp_path / 'new', tmp_path, inputs, overwrite=True)
    with pytest.raises(UserError, match='--out .*own.json.* cannot be written: (File exists|Not a directory)'):
        check_outputs(file, tmp_path / 'a.json', inputs, overwrite=False)
    assert not (tmp_path / 'new').exists()
    check_outputs(tmp_path / 'new', tmp_path / 'new' / 'predictions.json', inputs, overwrite=False)
    assert (tmp_path / 'new').is_dir()


def test_results_do_not_overwrite_each_other_or_inputs(tmp_path: Path) -> None:
    out = tmp_path / 'out'
    film, label_map = write_video(tmp_path / 'b.avi'), write(out / 'label_maps' / 'b' / '000002.png')
    with pytest.raises(UserError, match='the input .*000002.png would be overwritten'):
        check_outputs(out, out / 'p.json', find_inputs([str(film), str(label_map)]), overwrite=True)
    for name in ('vis', 'label_maps', 'vis/b.mp4'):
        with pytest.raises(UserError, match=f'--json .*{name} is '):
            check_outputs(tmp_path / 'new', tmp_path / 'new' / name, find_inputs([str(film)]), overwrite=False)
    with pytest.raises(UserError, match='--out .* cannot be written: File name too long'):
        check_outputs(tmp_path / ('a' * 300), out / 'p.json', [], overwrite=False)


def test_partial_file_replaces_nothing(tmp_path: Path) -> None:
    own = [tmp_path / name for name in ('p.json.part', 'p.json.0.part')]
    for file in own:
        file.write_text('own')
    with PredictionsFile(tmp_path / 'p.json', dict(task='mean')) as file:
        file.add({})
    assert [file.read_text() for file in own] == ['own'] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ['p.json', 'p.json.0.part', 'p.json.part']
