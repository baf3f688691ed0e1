"""tools/export.py as users run it, and tools/test.py with the files."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from running import read_metrics


def write_checkpoint(config: Path, path: Path) -> Path:
    """Write the untrained model of a config."""
    loaded = Config.fromfile(config)
    init_default_scope(loaded.default_scope)
    loaded.model.backbone.init_cfg = None
    if loaded.default_scope == 'mmpretrain':
        loaded.model.data_preprocessor = loaded.data_preprocessor
    torch.save(dict(state_dict=MODELS.build(loaded.model).state_dict(), meta={}), path)
    return path


def test_bad_input_is_one_line_before_any_work(call, config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seg, det, cls = (config(name) for name in ('fpn_pvtv2_shapes.py', 'retinanet_pvt_shapes.py', 'pvt_shapes.py'))
    (tmp_path / 'there.onnx').touch()
    (tmp_path / 'old.onnx.data').touch()
    (tmp_path / 'old.bin').touch()
    new = tmp_path / 'new.onnx'
    monkeypatch.setattr('deformable_vit.export.exporting.load_model', None)
    for cfg, out, flags, words in (
        (seg, new, ['--shape', 31, 64], '--shape 31 64'),
        (seg, new, ['--shape', -64, 64], '--shape -64 64'),
        (det, new, ['--dynamic', '--shape', 160, 320], '--dynamic with --shape 160 320: export with more than 160'),
        (seg, tmp_path / 'there.onnx', [], 'there.onnx exists already'),
        (seg, tmp_path / 'old.onnx', [], 'old.onnx.data exists already'),
        (seg, tmp_path / 'old.xml', [], 'old.bin exists already'),
        (seg, tmp_path / 'nowhere' / 'new.onnx', [], 'nowhere does not exist'),
        (seg, tmp_path / 'new.pt', [], 'new.pt: the suffix is neither .onnx nor .xml'),
        (seg, new, ['--format', 'openvino'], 'end in .xml'),
        (det, new, ['--argmax'], '--argmax is for segmentors'),
        (cls, new, ['--argmax'], '--argmax is for segmentors'),
        (seg, new, ['--argmax', '--part', 'backbone'], '--argmax is for segmentors'),
        (seg, new, ['--raw'], '--raw is for detectors'),
    ):
        code, _, err = call('export.py', cfg, 'c.pth', '--out', out, *flags)
        assert code == 2, err
        (line,) = [line for line in err.splitlines() if 'error: ' in line]
        assert words in line
    assert not new.exists()


@pytest.mark.parametrize(
    ('out', 'missing', 'extra'), [('a.onnx', 'onnxscript', 'export'), ('a.xml', 'openvino', 'openvino')]
)
def test_a_missing_extra_is_named(
    call, config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, missing: str, extra: str
) -> None:
    monkeypatch.setattr('deformable_vit.export.running.find_spec', lambda name: None if name == missing else name)
    code, _, err = call('export.py', config('pvt_shapes.py'), 'c.pth', '--out', tmp_path / out)
    assert code == 2
    assert f"needs {missing}: pip install 'deformable-vit[{extra}]'" in err


def test_models_that_cannot_be_exported_are_named(call, config, tmp_path: Path) -> None:
    for name, words in (
        ('mask2former-semantic_dat-pp_shapes.py', 'Mask2FormerHead cannot be exported; Semantic FPN'),
        ('fpn_pvtv2_shapes.py', 'does not fit the model of this config'),  # a checkpoint of another model
    ):
        cfg = config(name)
        weights = tmp_path / 'c.pth'
        if not weights.exists():
            write_checkpoint(cfg, weights)
        code, _, err = call('export.py', cfg, weights, '--out', tmp_path / 'new.onnx')
        assert code == 2
        assert words in err.splitlines()[-1]
    assert not (tmp_path / 'new.onnx').exists()


@pytest.mark.slow
def test_a_segmentor_has_the_metric_of_its_checkpoint(tool, config, tmp_path: Path) -> None:
    """As logits of any size, and as label maps from bytes."""
    cfg = config('fpn_pvtv2_shapes.py')
    tool('train.py', cfg, '--work-dir', 'run')
    tool('test.py', cfg, 'run/iter_4.pth', '--work-dir', 'checkpoint', '--out', 'maps')
    expected = read_metrics(tmp_path / 'checkpoint')['mIoU']
    assert expected > 0
    for run, name, flags in (
        ('logits', 'a.onnx', []),
        ('labels', 'b.xml', ['--argmax', '--with-preprocessing']),
    ):
        tool('export.py', cfg, 'run/iter_4.pth', '--out', name, *flags)
        tool('test.py', cfg, name, '--work-dir', run, '--out', f'{run}_maps', '--show-dir', 'seen')
        assert read_metrics(tmp_path / run)['mIoU'] == pytest.approx(expected, abs=0.1)
        for file in (tmp_path / 'maps').iterdir():
            a, b = (cv2.imread(str(maps / file.name), -1) for maps in (tmp_path / 'maps', tmp_path / f'{run}_maps'))
            assert np.mean(a != b) < 1e-3
    assert list((tmp_path / 'seen').rglob('*.png'))


@pytest.mark.slow
def test_a_detector_has_the_metrics_of_its_checkpoint(tool, config, tmp_path: Path) -> None:
    """On the few images that it is trained on, so that it finds something."""
    extra = """
train_cfg = dict(max_epochs=40, val_interval=40)
default_hooks = dict(checkpoint=dict(interval=40))
train = dict(ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/'))
val_dataloader['dataset'].update(train)
val_evaluator['ann_file'] = val_evaluator['ann_file'].replace('val2017', 'train2017')
del train
"""
    cfg = config('mask-rcnn_pvtv2_shapes.py', extra)
    tool('train.py', cfg, '--work-dir', 'run')
    tool('export.py', cfg, 'run/epoch_40.pth', '--out', 'a.onnx', '--shape', 128, 128)
    fill = ['--cfg-options', 'test_dataloader.dataset.pipeline.1.keep_ratio=False']  # mmdet clips boxes to the image
    for path, run in (('run/epoch_40.pth', 'checkpoint'), ('a.onnx', 'exported')):
        tool('test.py', cfg, path, '--work-dir', run, '--out', f'{run}.pkl', '--show-dir', f'{run}_seen', *fill)
    expected, found = (read_metrics(tmp_path / run) for run in ('checkpoint', 'exported'))
    assert expected.keys() == found.keys()
    for metric in ('coco/bbox_mAP_50', 'coco/segm_mAP_50'):
        assert expected[metric] > 0.02
        assert found[metric] == pytest.approx(expected[metric], abs=1e-3)
    a, b = (pickle.loads((tmp_path / f'{run}.pkl').read_bytes()) for run in ('checkpoint', 'exported'))
    for one, other in zip(a, b, strict=True):
        one, other = one['pred_instances'], other['pred_instances']
        best = int((one['scores'] > 0.2).sum())
        for key in ('scores', 'bboxes'):
            torch.testing.assert_close(other[key][:best], one[key][:best], rtol=0, atol=1e-3)
    assert len(list((tmp_path / 'exported_seen').rglob('*.jpg'))) == len(a)


@pytest.mark.slow
def test_a_classifier_has_the_predictions_of_its_checkpoint(call, config, tmp_path: Path) -> None:
    cfg = config('pvt_shapes.py')
    checkpoint, file = write_checkpoint(cfg, tmp_path / 'c.pth'), tmp_path / 'a.onnx'
    code, out, err = call('export.py', cfg, checkpoint, '--out', file)
    assert code == 0, err
    assert f'{file}: image (batch, 3, height, width) -> logits' in out
    found = []
    for path in (checkpoint, file):
        code, _, err = call(
            'test.py', cfg, path, '--work-dir', tmp_path / path.stem, '--out', tmp_path / f'{path.stem}.pkl'
        )
        assert code == 0, err
        found.append(pickle.loads((tmp_path / f'{path.stem}.pkl').read_bytes()))
    assert len(found[0]) == 10
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other['pred_score'], one['pred_score'], rtol=0, atol=1e-5)
    a, b = (read_metrics(tmp_path / run)['accuracy/top1'] for run in ('a', 'c'))
    assert a == pytest.approx(b)


def test_files_that_a_config_cannot_be_tested_with(call, config, tmp_path: Path) -> None:
    code, _, err = call('test.py', config('pvt_shapes.py'), tmp_path / 'gone.onnx')
    assert code == 2
    assert 'gone.onnx does not exist' in err
    shape = (1, 3, 64, 64)
    image = onnx.helper.make_tensor_value_info('image', onnx.TensorProto.FLOAT, shape)
    node = onnx.helper.make_node('Identity', ['image'], ['logits'])
    logits = onnx.helper.make_tensor_value_info('logits', onnx.TensorProto.FLOAT, shape)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], 'g', [image], [logits]), opset_imports=[onnx.helper.make_opsetid('', 20)]
    )
    model.ir_version = 10
    for task, raw, words in (
        ('semantic segmentation', False, 'is for semantic segmentation, and the config for detection'),
        ('detection', True, "is for raw outputs of a detector's heads"),
    ):
        onnx.helper.set_model_props(model, dict(task=json.dumps(task), raw=json.dumps(raw)))
        onnx.save(model, tmp_path / 'a.onnx')
        code, _, err = call('test.py', config('retinanet_pvt_shapes.py'), tmp_path / 'a.onnx')
        assert code == 2
        assert words in err
