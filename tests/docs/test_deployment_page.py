"""docs/deployment.md: the service and the config run as they stand there."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector
from mmengine.registry import MODELS, init_default_scope
from running import ROOT
from snippets import run, snippet

from deformable_vit.apis.config import load_config
from deformable_vit.apis.inference import load_model
from deformable_vit.datasets import draw_image
from deformable_vit.export import Options, export

DEMO = str(ROOT / 'configs' / 'demo' / 'mask-rcnn_dat_shapes.py')
CLASSES = ['disc', 'triangle', 'square', 'star', 'ring']


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the untrained detector of the demo, in an empty directory with an image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'docs').mkdir()
    # Square like the input of the file: padding would change what an untrained model finds.
    cv2.imwrite('docs/demo.jpg', draw_image(np.random.default_rng(0), 160, 160).image)
    torch.save(dict(state_dict=load_model(load_config(DEMO, {})).state_dict(), meta={}), 'c.pth')
    return 'c.pth'


@pytest.mark.slow
def test_the_service_finds_what_the_model_finds(checkpoint: str) -> None:
    export(load_config(DEMO, {}), checkpoint, Path('model.onnx'), Options(shape=(128, 128), check=False), 'demo')
    names = run(snippet('docs/deployment.md', 'def preprocess'))
    assert names['metadata']['classes'] == CLASSES
    image = cv2.imread('docs/demo.jpg')
    assert cv2.imread('detected.jpg').shape == image.shape
    boxes, scores, found = names['detect'](image, least_score=0.05)
    config = load_config(DEMO, {})
    expected = inference_detector(load_model(config, checkpoint), image).pred_instances
    assert len(scores) == len(expected) > 10
    np.testing.assert_allclose(scores, expected.scores, atol=1e-3)
    assert found[:5] == [CLASSES[label] for label in expected.labels[:5]]
    np.testing.assert_allclose(boxes[:5], expected.bboxes[:5], atol=1)


@pytest.mark.slow
def test_openvino_and_a_config_with_a_file(checkpoint: str, tmp_path: Path) -> None:
    export(load_config(DEMO, {}), checkpoint, Path('model.xml'), Options(shape=(128, 128), check=False), 'demo')
    text = snippet('docs/deployment.md', 'import openvino')
    names = run('import numpy\nnetwork_input = numpy.zeros((1, 3, 128, 128), numpy.float32)\n' + text)
    assert names['classes'] == CLASSES
    assert names['outputs']['boxes'].shape == (1, 100, 4)
    assert names['outputs']['masks'].shape == (1, 100, 28, 28)

    text = snippet('docs/deployment.md', 'ExportedDetector').replace("'./", f"'{ROOT}/configs/demo/")
    (tmp_path / 'config.py').write_text(text.replace('model.onnx', 'model.xml'))
    config = load_config('config.py', {})
    init_default_scope('mmdet')
    detector = MODELS.build(config.model).eval()
    detector.cfg = config
    image = cv2.imread('docs/demo.jpg')
    found = inference_detector(detector, image).pred_instances
    assert found.masks.shape[1:] == image.shape[:2]
    expected = inference_detector(load_model(load_config(DEMO, {}), checkpoint), image).pred_instances
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.bboxes[:5], expected.bboxes[:5], rtol=0, atol=1)
    assert (found.masks[:5] == expected.masks[:5]).float().mean() > 0.999
