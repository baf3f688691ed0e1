"""tools/train.py and tools/test.py as users run them."""

import json
import pickle
import re
import socket
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from official_names import official_names
from running import ENVIRONMENT, ROOT, read_metrics

DETECTOR = 'retinanet_pvtv2_shapes.py'

pytestmark = pytest.mark.slow


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def is_statistic(key: str) -> bool:
    """Return whether a key is one of batch norm's buffers, which change at a learning rate of 0."""
    return 'running_' in key or 'num_batches' in key


def test_detection_from_config_to_images(tool, config, tmp_path: Path) -> None:
    cfg = config('mask-rcnn_pvt_shapes.py')
    options = ['train_cfg.max_epochs=1', 'default_hooks.logger.interval=1', 'model.backbone.with_cp=True']
    done = tool('train.py', cfg, '--work-dir', 'run', '--cfg-options', *options)
    losses = re.findall(r'loss_mask: ([0-9.]+)', done.stdout + done.stderr)
    assert len(losses) == 4
    assert all(0 < float(loss) < 10 for loss in losses)
    assert (done.stdout + done.stderr).count('warm-up takes 3 of 4 iterations (75 %)') == 1
    assert 'paramwise_options' not in done.stdout + done.stderr
    # What tools/train.py adds stands in the config of the work directory.
    dumped = (tmp_path / 'run' / cfg.name).read_text()
    for name in ('StopHook', 'ResumableEpochBasedTrainLoop', 'SeededBatchSampler'):
        assert f"type='deformable_vit.engine.{name}'" in dumped

    done = tool('test.py', cfg, 'run/epoch_1.pth', '--work-dir', 'tested', '--out', 'p.pkl', '--show-dir', 'seen')
    predictions = pickle.loads((tmp_path / 'p.pkl').read_bytes())
    assert len(predictions) == 4
    for prediction in predictions:
        found = prediction['pred_instances']
        assert found['bboxes'].shape == (len(found['scores']), 4)
        assert len(found['masks']) == len(found['labels']) == len(found['scores'])
    if any(len(prediction['pred_instances']['scores']) for prediction in predictions):
        assert {'coco/bbox_mAP', 'coco/segm_mAP_50'} <= set(read_metrics(tmp_path / 'tested'))
    assert len(list((tmp_path / 'seen').glob('*.jpg'))) == 4
    tta = tool('test.py', cfg, 'run/epoch_1.pth', '--tta', ok=False)
    assert '--tta: mmdet merges boxes only, and MaskRCNN also predicts masks' in tta.stderr


@pytest.mark.parametrize('family', [pytest.param('pvtv2', marks=pytest.mark.nightly), 'dat-pp'])
def test_official_detectors_are_tested_and_trained_as_they_are(tool, config, tmp_path: Path, family: str) -> None:
    """A detector with official names behind `backbone.` gives the results of one with this project's names."""
    cfg = config(f'retinanet_{family}_shapes.py')
    # A low threshold, so that an untrained detector has predictions.
    options = ['--cfg-options', 'model.test_cfg.score_thr=0.0']
    tool('train.py', cfg, '--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=1')
    converted = weights(tmp_path / 'run' / 'epoch_1.pth')
    official = official_names(converted, family.replace('-', ''))
    assert official.keys() != converted.keys()
    torch.save({'meta': {'epoch': 1}, 'state_dict': official}, tmp_path / 'official.pth')
    results = []
    for checkpoint in ('run/epoch_1.pth', 'official.pth'):
        out = f'{Path(checkpoint).stem}.pkl'
        tool('test.py', cfg, checkpoint, '--out', out, '--tta', *options)
        results.append(pickle.loads((tmp_path / out).read_bytes()))
    for a, b in zip(*results, strict=True):
        assert len(a['pred_instances']['scores']) > 0
        for key, value in a['pred_instances'].items():
            assert torch.equal(value, b['pred_instances'][key])

    frozen = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=5', 'optim_wrapper.optimizer.lr=0.0']
    tool('train.py', cfg, '--work-dir', 'on', '--cfg-options', *frozen, 'load_from=official.pth')
    started = weights(tmp_path / 'on' / 'epoch_1.pth')
    assert started.keys() == converted.keys()
    for key, value in started.items():
        assert torch.equal(value, converted[key]) or is_statistic(key), key


def test_segmentation(tool, config, tmp_path: Path) -> None:
    cfg = config('fpn_pvtv2_shapes.py')
    tool('train.py', cfg, '--work-dir', 'run', '--plain')
    assert 'deformable_vit.engine' not in (tmp_path / 'run' / cfg.name).read_text()
    tool('test.py', cfg, 'run/iter_4.pth', '--work-dir', 'tested', '--out', 'maps', '--show-dir', 'seen')
    # The mIoU of the label maps that --out saved, computed by hand, is the reported one.
    ade = next(Path(line.split("'")[1]) for line in cfg.read_text().splitlines() if 'data_root' in line)
    counts = np.zeros((6, 6))
    for file in sorted((tmp_path / 'maps').glob('*.png')):
        # The metric saves ADE20K's numbers, which begin at 1.
        predicted = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(int) - 1
        truth = cv2.imread(str(ade / 'annotations' / 'validation' / file.name), cv2.IMREAD_UNCHANGED).astype(int) - 1
        np.add.at(counts, (truth[truth >= 0], predicted[truth >= 0]), 1)
    assert counts.sum() > 10000
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    iou = counts.diagonal()[union > 0] / union[union > 0]
    assert read_metrics(tmp_path / 'tested')['mIoU'] == pytest.approx(100 * iou.mean(), abs=0.01)

    images = list((tmp_path / 'seen').rglob('*.png'))
    assert len(images) == 4
    image = cv2.imread(str(images[0]))
    assert image.shape[1] > 1.5 * image.shape[0]  # ground truth and prediction side by side
    tool('test.py', cfg, 'run/iter_4.pth', '--work-dir', 'tta', '--tta')
    assert 0 < read_metrics(tmp_path / 'tta')['mIoU'] <= 100


def test_classification(tool, config, tmp_path: Path) -> None:
    cfg = config('pvt_shapes.py')
    done = tool('train.py', cfg, '--work-dir', 'run', '--auto-scale-lr', '--cfg-options', 'train_cfg.max_epochs=1')
    # 2 images per iteration instead of 32
    assert 'Scaling the original LR by 0.0625' in ' '.join((done.stdout + done.stderr).split())
    tool('test.py', cfg, 'run/epoch_1.pth', '--work-dir', 'tested', '--out', 'p.pkl', '--show-dir', 'seen')
    predictions = pickle.loads((tmp_path / 'p.pkl').read_bytes())
    assert len(predictions) == 10
    right = sum(p['pred_score'].argmax().item() == p['gt_label'].item() for p in predictions)
    assert read_metrics(tmp_path / 'tested')['accuracy/top1'] == pytest.approx(10 * right, abs=1e-3)
    assert len(list((tmp_path / 'seen').glob('*.png'))) >= 2  # images of different classes may have the same name
    tool('test.py', cfg, 'run/epoch_1.pth', '--work-dir', 'tta', '--tta')
    assert 0 <= read_metrics(tmp_path / 'tta')['accuracy/top1'] <= 100


@pytest.mark.nightly
def test_two_processes_train_one_model_and_test_it_like_one(tool, config, tmp_path: Path) -> None:
    cfg = config(
        'fpn_pvtv2_shapes.py',
        "custom_imports = dict(imports=['deformable_vit', 'rank_agreement'], allow_failed_imports=False)\n"
        "custom_hooks = [dict(type='RankAgreement')]",
    )
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        environment = dict(OMP_NUM_THREADS='1', PORT=str(free.getsockname()[1]))
    tool('dist_train.sh', cfg, 2, '--work-dir', 'run', **environment)
    found = json.loads((tmp_path / 'run' / 'ranks.json').read_text())
    assert found['world_size'] == 2
    assert found['backend'] == 'gloo'
    assert found['apart'] == 0
    a, b = found['seen']
    assert sorted(a[:4] + b[:4]) == list(range(1, 9))  # in each epoch, half of the images went to each process

    tool('dist_test.sh', cfg, 'run/iter_4.pth', 2, '--work-dir', 'two', **environment)
    tool('test.py', cfg, 'run/iter_4.pth', '--work-dir', 'one')
    two, one = read_metrics(tmp_path / 'two'), read_metrics(tmp_path / 'one')
    for key in ('mIoU', 'aAcc'):
        assert one[key] > 0
        assert two[key] == pytest.approx(one[key], abs=0.02)


@pytest.mark.nightly
def test_flexible_runner_trains_resumes_loads_and_tests(tool, config, tmp_path: Path) -> None:
    """mmengine's FlexibleRunner builds its model late; checkpoints are compared with it all the same."""
    cfg = config(DETECTOR, "runner_type = 'FlexibleRunner'")
    train = ['train.py', cfg, '--work-dir']
    tool(*train, 'straight', '--cfg-options', 'train_cfg.val_interval=5')
    tool(*train, 'resumed', '--cfg-options', 'train_cfg.val_interval=5', 'train_cfg.max_epochs=1')
    done = tool(*train, 'resumed', '--resume', '--cfg-options', 'train_cfg.val_interval=5')
    assert 'resumed epoch: 1' in done.stdout + done.stderr
    straight, resumed = (weights(tmp_path / run / 'epoch_2.pth') for run in ('straight', 'resumed'))
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)

    torch.save(straight, tmp_path / 'bare.pth')
    done = tool('test.py', cfg, 'bare.pth', '--work-dir', 'tested', '--out', 'p.pkl')
    assert f'bare.pth: {len(straight)} of {len(straight)} parameters match' in done.stdout + done.stderr
    assert len(pickle.loads((tmp_path / 'p.pkl').read_bytes())) == 4


def test_slurm_scripts_pass_all_arguments_on(tmp_path: Path) -> None:
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    environment = ENVIRONMENT | {'PATH': f'{tmp_path}:/usr/bin:/bin', 'GPUS': '4', 'SRUN_ARGS': '--quiet'}
    for script, args in (
        ('slurm_train.sh', ['part', 'job', 'c.py', 'dir', '--amp']),
        ('slurm_test.sh', ['part', 'job', 'c.py', 'x.pth', '--tta']),
    ):
        command = ['bash', str(ROOT / 'tools' / script), *args]
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert out.startswith('-p part --job-name=job --gres=gpu:4 --ntasks=4 --ntasks-per-node=4')
        assert '--quiet' in out
        assert out.rstrip().endswith(f'--launcher slurm {args[-1]}')
        assert ('train.py c.py --work-dir dir' if 'train' in script else 'test.py c.py x.pth') in out
