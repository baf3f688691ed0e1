"""Configs in mmengine's pure Python style, whose types are classes, in every tool and for every task."""

import json
from pathlib import Path

import pytest
from pure_python import write_pure_python

from deformable_vit.apis.config import load_config

TASKS = {
    'retinanet_pvtv2_shapes.py': ('epoch_2.pth', 'coco/val2017', 'out.pkl', 'mAP'),
    'fpn_dat-pp_shapes.py': ('iter_4.pth', 'ade/images/validation', 'out', 'mIoU'),
    'pvt_shapes.py': ('epoch_1.pth', 'imagenet/val', 'out.pkl', 'accuracy'),
}


@pytest.mark.slow
@pytest.mark.parametrize('demo', TASKS)
def test_tools_take_classes_as_types(
    tool, call, config, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo: str
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint, images, out, metric = TASKS[demo]
    path = write_pure_python(tmp_path / 'pure.py', load_config(str(config(demo)), {}))
    image = next((shapes / images).rglob('*.jpg'))
    options = ['--cfg-options', 'train_cfg.max_epochs=1'] if demo.startswith('pvt_') else []
    checkpoint = str(tmp_path / 'w' / checkpoint)

    def run(name: str, *args: object) -> str:
        if name in ('train.py', 'test.py'):  # OpenMMLab keeps one visualizer in a process
            return tool(name, path, *args).stdout
        status, printed, error = call(name, path, *args)
        assert status == 0, f'{name}: {error or printed}'
        return printed + error

    assert 'checked' in run('check_data.py')
    run('train.py', '--work-dir', 'w', *options)
    run('test.py', checkpoint, '--work-dir', 't', '--show-dir', 'shown', '--out', out)
    assert list(Path('shown').rglob('*.jpg')) or list(Path('shown').rglob('*.png'))
    assert Path(out).exists()
    if demo.startswith('retinanet_'):
        run('test.py', checkpoint, '--work-dir', 'flips', '--tta')
    metrics = [json.loads(file.read_text()) for file in Path('t').glob('*/*.json')]
    assert any(metric in key for found in metrics for key in found)
    run('predict.py', checkpoint, image, '--out', 'predicted')
    assert len(json.loads(Path('predicted/predictions.json').read_text())['predictions']) == 1
    assert 'FLOPs' in run('get_flops.py', '--shape', '64')
    run('visualize_attention.py', checkpoint, image, '--out', 'attention.html')
    # The config of the work directory is one for training, too.
    path = next(Path('w').glob('*.py'))
    run('check_data.py')
