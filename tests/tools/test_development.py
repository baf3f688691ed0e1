"""tools/dev: demo, convergence check and real images, with stand-ins for train.py and test.py that take no time."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from running import ENVIRONMENT, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

# Leaves what train.py leaves. Files beside it choose the metrics, and the trainings that fail or hang.
TRAIN = """
import sys, time
from pathlib import Path
here = Path(__file__).parent
print('trained with', *sys.argv[1:], flush=True)
if (here / 'hang').exists():
    time.sleep(60)
if any(name in sys.argv[1] for name in (here / 'failing').read_text().split()):
    sys.exit('no such file: annotations.json')
work_dir = Path(sys.argv[sys.argv.index('--work-dir') + 1])
scalars = work_dir / '1' / 'vis_data' / 'scalars.json'
scalars.parent.mkdir(parents=True)
scalars.write_text('{"loss": 2.0, "step": 50}\\n{"coco/bbox_mAP_50": 0.3, "step": 1}')
(work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
"""
TEST = """
import sys
from pathlib import Path
print('tested', sys.argv[2])
run = Path(sys.argv[sys.argv.index('--work-dir') + 1]) / '20260101_000000'
run.mkdir(parents=True)
(run / '1.json').write_text((Path(__file__).parent / 'metrics').read_text())
"""
VISUALIZE = """
import sys
from pathlib import Path
Path(sys.argv[sys.argv.index('--out') + 1]).write_text(sys.argv[2])
"""
METRICS = {'coco/bbox_mAP_50': 0.9, 'coco/segm_mAP_50': 0.8, 'mIoU': 91.0, 'accuracy/top1': 95.0, 'data_time': 0.1}


class Checkout:
    """A checkout with the development tools, the configs and stand-ins for the other tools."""

    def __init__(self, root: Path) -> None:
        self.root, self.tools, self.out = root, root / 'tools', root / 'out'
        shutil.copytree(ROOT / 'tools' / 'dev', self.tools / 'dev')
        (root / 'configs').symlink_to(ROOT / 'configs')
        (self.tools / 'make_shapes.py').write_text('print("images")')
        for name, text in (('train', TRAIN), ('test', TEST), ('visualize_attention', VISUALIZE)):
            (self.tools / f'{name}.py').write_text(text)
        (self.tools / 'failing').touch()
        (self.tools / 'metrics').write_text(json.dumps(METRICS))

    def start(self, tool: str, *args: object) -> subprocess.Popen:
        command = [sys.executable, str(self.tools / 'dev' / tool), '--out', str(self.out), *map(str, args)]
        return subprocess.Popen(
            command, cwd=self.root, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, tool: str, *args: object, status: int = 0) -> str:
        process = self.start(tool, *args)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == status, output
        return output


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_demo_trains_tests_and_shows_both_models(checkout: Checkout) -> None:
    (checkout.tools / 'metrics').write_text(json.dumps(METRICS | {'mIoU': 69.9}))
    output = checkout.run('demo.py', status=1)
    assert 'mask-rcnn_dat_shapes: coco/segm_mAP_50 0.8, at least 0.75' in output
    assert output.splitlines()[-1] == 'error: expected higher metrics: fpn_dat-pp_shapes mIoU'
    for name in ('mask-rcnn_dat_shapes', 'fpn_dat-pp_shapes'):
        trained, tested = (checkout.out / name / 'log.txt').read_text().splitlines()
        assert trained.startswith(f'trained with configs/demo/{name}.py --work-dir {checkout.out / name} ')
        assert tested == f'tested {checkout.out / name / "epoch_1.pth"}'
    page = checkout.out / 'mask-rcnn_dat_shapes' / 'attention.html'
    assert page.read_text() == str(page.with_name('epoch_1.pth'))


def test_demo_ends_with_the_log_of_a_tool_that_failed(checkout: Checkout) -> None:
    (checkout.tools / 'failing').write_text('fpn_dat-pp')
    output = checkout.run('demo.py', status=1)
    log = checkout.out / 'fpn_dat-pp_shapes' / 'log.txt'
    assert f'error: fpn_dat-pp_shapes failed; the end of {log}:' in output.splitlines()
    assert output.splitlines()[-1] == 'no such file: annotations.json'


def test_sigterm_ends_the_trainings(checkout: Checkout) -> None:
    (checkout.tools / 'hang').touch()
    process = checkout.start('demo.py')
    deadline = time.monotonic() + 60
    while not list(checkout.out.glob('*_shapes/log.txt')):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143  # the trainings would take a minute


def test_convergence_check_goes_on_after_a_failure_and_trains_only_once(checkout: Checkout) -> None:
    chosen = ('mask-rcnn_dat_shapes', 'detr_dat_shapes', 'fpn_dat_shapes', 'dat_shapes')
    (checkout.tools / 'metrics').write_text(json.dumps(METRICS | {'mIoU': 69.9}))
    (checkout.tools / 'failing').write_text('/dat_shapes')
    output = checkout.run('convergence_check.py', '--jobs', 1, '--only', *chosen, status=1)
    assert 'no such file: annotations.json' in output
    assert output.splitlines()[-1] == 'fpn_dat_shapes does not converge'
    rows = (checkout.out / 'table.md').read_text().splitlines()[2:]
    detr, fpn, mask_rcnn = rows
    assert detr.startswith('| detr_dat_shapes | 0.900 | 0.800 | 69.9 | 95.0 | improving | ')  # 0.9 after 0.3
    assert fpn.startswith('| fpn_dat_shapes | ')
    assert fpn.endswith('**does not converge** |')
    assert mask_rcnn.startswith('| mask-rcnn_dat_shapes | ')
    assert detr.endswith(' converges |') == mask_rcnn.endswith(' converges |') is True

    trained = (checkout.out / 'mask-rcnn_dat_shapes' / 'log.txt').read_text()
    assert '--resume' in trained
    assert 'train_cfg.val_interval=1000000' in trained
    assert 'val_interval' not in (checkout.out / 'detr_dat_shapes' / 'log.txt').read_text()
    checkout.run('convergence_check.py', '--jobs', 1, '--only', chosen[0])
    assert (checkout.out / 'mask-rcnn_dat_shapes' / 'log.txt').read_text() == trained

    (checkout.out / chosen[0] / 'trained_with.py').write_text('another config')
    checkout.run('convergence_check.py', '--jobs', 1, '--only', chosen[0])
    assert len(list(checkout.out.glob('mask-rcnn_dat_shapes_until_*/log.txt'))) == 1
    assert 'invalid choice' in checkout.run('convergence_check.py', '--only', 'mask-rcnn_resnet_shapes', status=2)


def test_real_images_are_overfit(checkout: Checkout) -> None:
    data = checkout.root / 'data'
    (data / 'coco').mkdir(parents=True)
    (data / 'coco' / 'instances.json').touch()
    (data / 'ade' / 'images' / 'validation').mkdir(parents=True)
    output = checkout.run('benchmark_real.py', '--data', data)
    assert 'detection: coco/bbox_mAP_50 0.9, at least 0.85' in output
    assert 'segmentation: mIoU 91, at least 90' in output
    detector = Config.fromfile(checkout.out / 'detection.py')
    assert detector.train_dataloader.dataset.ann_file == str(data / 'coco' / 'instances.json')
    assert Config.fromfile(checkout.out / 'segmentation.py').train_cfg.max_iters == 1200


def test_a_small_classifier_converges(tmp_path: Path) -> None:
    """The real tools, to the end."""
    command = [sys.executable, 'tools/dev/convergence_check.py', '--only', 'pvt_shapes', '--out', str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
