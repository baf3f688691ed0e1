"""tools/train.py and tools/test.py as users run them."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
from running import ROOT, metrics

DETECTOR = 'retinanet_pvtv2_shapes.py'


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def test_detection_from_config_to_pictures(tool, config, tmp_path: Path) -> None:
    cfg = config('mask-rcnn_pvt_shapes.py')
    done = tool(
        'train.py', cfg, '--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=1', 'model.backbone.with_cp=True'
    )
    assert 'Epoch(train) [1][4/4]' in done.stdout + done.stderr
    losses = re.findall(r'loss_mask: ([0-9.]+)', done.stdout + done.stderr)
    assert losses or (tmp_path / 'run' / 'epoch_1.pth').exists()

    done = tool(
        'test.py', cfg, 'run/epoch_1.pth', '--work-dir', 'tested', '--out', 'p.pkl', '--show-dir', 'seen', '--tta'
    )
    assert 'Evaluating segm' in done.stdout + done.stderr
    assert {'coco/bbox_mAP', 'coco/segm_mAP_50'} <= set(metrics(tmp_path / 'tested'))
    predictions = pickle.loads((tmp_path / 'p.pkl').read_bytes())
    assert len(predictions) == 4
    assert {'bboxes', 'scores', 'labels'} <= set(predictions[0]['pred_instances'])
    assert len(list((tmp_path / 'seen').glob('*.jpg'))) == 4


def test_segmentation(tool, config, tmp_path: Path) -> None:
    cfg = config('fpn_pvtv2_shapes.py')
    short = ['train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'default_hooks.checkpoint.interval=3']
    tool('train.py', cfg, '--work-dir', 'run', '--cfg-options', *short)
    tool('test.py', cfg, 'run/iter_3.pth', '--work-dir', 'tested', '--out', 'maps', '--show-dir', 'seen')
    found = metrics(tmp_path / 'tested')
    assert 0 <= found['mIoU'] <= 100
    assert len(list((tmp_path / 'maps').glob('*.png'))) == 4
    picture = cv2.imread(str(next((tmp_path / 'seen').rglob('*.png'))))
    assert picture.shape[1] > 1.5 * picture.shape[0]  # ground truth and prediction side by side
    again = tool('test.py', cfg, 'run/iter_3.pth', '--work-dir', 'tta', '--tta')
    assert 'mIoU' in again.stdout + again.stderr


def test_classification(tool, config, tmp_path: Path) -> None:
    cfg = config('pvt_shapes.py')
    tool('train.py', cfg, '--work-dir', 'run', '--auto-scale-lr', '--cfg-options', 'train_cfg.max_epochs=1')
    done = tool('test.py', cfg, 'run/epoch_1.pth', '--work-dir', 'tested', '--out', 'p.pkl', '--tta')
    found = metrics(tmp_path / 'tested')
    assert 0 <= found['accuracy/top1'] <= 100
    predictions = pickle.loads((tmp_path / 'p.pkl').read_bytes())
    assert len(predictions) == 12
    right = sum(p['pred_label'].item() == p['gt_label'].item() for p in predictions)
    assert found['accuracy/top1'] == pytest.approx(100 * right / 12, abs=1e-3)
    assert done.returncode == 0


def test_interrupted_and_resumed_is_the_same(tool, config, tmp_path: Path) -> None:
    """Killed in the second epoch and resumed: the same weights, bit for bit, as without."""
    cfg = config(DETECTOR)
    tool('train.py', cfg, '--work-dir', 'straight')

    # Slow the second epoch down enough to be killed in it.
    slow = tmp_path / 'slow.py'
    slow.write_text(
        f"_base_ = {str(cfg)!r}\ncustom_hooks = [dict(type='SlowSecondEpoch')]\n"
        "custom_imports = dict(imports=['deformable_vit', 'slow_hook'], allow_failed_imports=False)\n"
    )
    command = [sys.executable, ROOT / 'tools' / 'train.py', slow, '--work-dir', 'broken']
    environment = os.environ | {'PYTHONPATH': str(ROOT / 'tests')}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 300
        while not (tmp_path / 'broken' / 'second_epoch').exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / 'broken' / 'epoch_2.pth').exists()
    done = tool('train.py', cfg, '--work-dir', 'broken', '--resume')
    assert 'resumed epoch: 1' in done.stdout + done.stderr

    straight, resumed = weights(tmp_path / 'straight' / 'epoch_2.pth'), weights(tmp_path / 'broken' / 'epoch_2.pth')
    first = weights(tmp_path / 'straight' / 'epoch_1.pth')
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)
    assert not all(torch.equal(straight[k], first[k]) for k in straight)


def test_two_processes(tool, config, tmp_path: Path) -> None:
    """Two processes train one model, and test it to the same figures as one."""
    cfg = config(
        DETECTOR,
        "custom_imports = dict(imports=['deformable_vit', 'rank_agreement'], allow_failed_imports=False)\n"
        "custom_hooks = [dict(type='RankAgreement')]",
    )
    threads = dict(OMP_NUM_THREADS='1', PORT='29613')
    tool('dist_train.sh', cfg, 2, '--work-dir', 'run', **threads)
    found = json.loads((tmp_path / 'run' / 'ranks.json').read_text())
    assert found['world_size'] == 2
    assert found['backend'] == 'gloo'
    assert found['apart'] == 0
    a, b = found['seen']
    assert sorted(a[:4] + b[:4]) == list(range(1, 9))  # each picture once an epoch, half of them in each process

    tool('dist_test.sh', cfg, 'run/epoch_2.pth', 2, '--work-dir', 'two', **threads)
    tool('test.py', cfg, 'run/epoch_2.pth', '--work-dir', 'one')
    assert metrics(tmp_path / 'two')['coco/bbox_mAP'] == pytest.approx(
        metrics(tmp_path / 'one')['coco/bbox_mAP'], abs=1e-3
    )


def test_a_second_run_keeps_the_first(tool, config, tmp_path: Path) -> None:
    cfg = config(DETECTOR)
    one_epoch = ['--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=5']
    tool('train.py', cfg, *one_epoch)
    first = weights(tmp_path / 'run' / 'epoch_1.pth')
    tool('train.py', cfg, *one_epoch, 'randomness.seed=1')
    (kept,) = (tmp_path / 'run').glob('previous_*/epoch_1.pth')
    assert all(torch.equal(v, first[k]) for k, v in weights(kept).items())
    assert not all(torch.equal(v, first[k]) for k, v in weights(tmp_path / 'run' / 'epoch_1.pth').items())
