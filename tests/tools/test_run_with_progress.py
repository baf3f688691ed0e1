"""tools/_training.py and tools/demo.py: logs, progress and failures of train.py and test.py, here fast stand-ins."""

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import _processes
import benchmark_real
import demo
import pytest
from _progress import Display
from _training import run_with_progress, train_and_test
from running import ENVIRONMENT, ROOT, exit_status

from deformable_vit.engine import UserError

# Prints as much as mmengine does, and leaves what train.py leaves.
TRAIN = """
import json, os, sys
from pathlib import Path
for i in range(1500):
    print('paramwise_options -- backbone', i)
print('trained with', *sys.argv[1:])
work_dir = Path(sys.argv[sys.argv.index('--work-dir') + 1])
progress = dict(task='train', done=90, total=90, loss=1.25)
Path(os.environ['DEFORMABLE_VIT_PROGRESS']).write_text(json.dumps(progress))
(work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
"""
TEST = """
import json, sys
from pathlib import Path
for i in range(200):
    print('hook', i)
print('tested', sys.argv[2])
run = Path(sys.argv[sys.argv.index('--work-dir') + 1]) / '20260101_000000'
run.mkdir(parents=True)
metrics = {'coco/bbox_mAP_50': 0.9, 'coco/segm_mAP_50': 0.8, 'mIoU': MIOU}
(run / '20260101_000000.json').write_text(json.dumps(metrics))
if '--show-dir' in sys.argv:
    import cv2, numpy
    images = Path(sys.argv[sys.argv.index('--show-dir') + 1])
    images.mkdir()
    cv2.imwrite(str(images / '1.jpg'), numpy.zeros((8, 8, 3), 'uint8'))
"""

VISUALIZE = """
import sys
from pathlib import Path
Path(sys.argv[sys.argv.index('--out') + 1]).write_text(sys.argv[2])
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the tools by fast stand-ins and return their directory."""
    directory = tmp_path / 'tools'
    directory.mkdir()
    (directory / 'make_shapes.py').write_text('print("images")')
    (directory / 'train.py').write_text(TRAIN)
    (directory / 'visualize_attention.py').write_text(VISUALIZE)
    (directory / 'test.py').write_text(TEST.replace('MIOU', '71.0'))
    monkeypatch.setattr(_processes, 'TOOLS', directory)
    return directory


def run_demo(out: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(demo.signal, 'signal', lambda *_: None)
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--out', str(out), *options])
    return exit_status(demo.main)


def test_a_model_is_trained_and_its_last_checkpoint_tested(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with Display() as display:
        for _ in range(2):
            metrics, checkpoint = train_and_test('A', 'a.py', tmp_path / 'run', display, train_options=('--amp',))
            (tmp_path / 'run' / 'test' / '20260101_000000').rename(tmp_path / 'run' / 'earlier')
            for file in (tmp_path / 'run' / 'earlier').iterdir():
                file.unlink()
            (tmp_path / 'run' / 'earlier').rmdir()
    assert metrics['mIoU'] == 71.0
    assert checkpoint == tmp_path / 'run' / 'epoch_1.pth'
    log = (tmp_path / 'run' / 'log.txt').read_text().splitlines()
    assert len(log) == 1500 + 1 + 200 + 1  # of the second run alone
    assert log[1500] == f'trained with a.py --work-dir {tmp_path / "run"} --amp'
    assert log[-1] == f'tested {checkpoint}'
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert re.fullmatch(r'training A: done in 0:\d\d, loss 1\.25', lines[0])
    assert re.fullmatch(r'testing A: done in 0:\d\d', lines[1])


def test_a_failure_shows_the_end_of_the_log(tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tools / 'train.py').write_text('for i in range(50): print("line", i)\nraise RuntimeError("out of memory")')
    log = tmp_path / 'run' / 'log.txt'
    with Display() as display, pytest.raises(UserError, match=f'^training A failed; see {re.escape(str(log))}$'):
        train_and_test('A', 'a.py', tmp_path / 'run', display)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f'the end of {log}:'
    assert '  line 49' in shown
    assert shown[-1] == '  RuntimeError: out of memory'
    assert len(shown) == 16


def test_a_stopped_run_ends_its_process(tools: Path, tmp_path: Path) -> None:
    (tools / 'train.py').write_text('import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)')
    stop, log, ticks = threading.Event(), tmp_path / 'log.txt', []

    def tick() -> None:
        ticks.append(1)
        if log.read_text():
            stop.set()

    with Display() as display, pytest.raises(UserError, match='training A was stopped'):
        run_with_progress('training A', 'train.py', log=log, display=display, stop=stop, tick=tick)
    assert ticks
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


def test_the_demo_prints_at_most_sixty_lines(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The set-up prints up to 10 lines before it, and a quarter of an hour of training 15 more."""
    assert run_demo(tmp_path / 'out', monkeypatch) == 0
    text = capsys.readouterr().out
    assert 10 < len(text.splitlines()) <= 30
    assert 'Mask R-CNN: box AP50 0.9 (at least 0.8), mask AP50 0.8 (at least 0.75)' in text
    assert 'Semantic FPN: mIoU 71 (at least 70)' in text
    page = tmp_path / 'out' / 'mask-rcnn_dat_shapes' / 'attention.html'
    assert text.splitlines()[-1].endswith(f'in a browser: {os.path.relpath(page)}')
    assert page.read_text() == str(page.with_name('epoch_1.pth'))
    for name in (Path(job.config).stem for job in demo.JOBS):
        for file in (f'{name}/log.txt', f'{name}.png', f'{name}/images', f'{name}/epoch_1.pth'):
            assert str(Path(os.path.relpath(tmp_path / 'out' / file))) in text
        assert len((tmp_path / 'out' / name / 'log.txt').read_text().splitlines()) > 1500
        assert (tmp_path / 'out' / f'{name}.png').is_file()


def test_the_demo_reports_a_metric_that_is_too_low(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tools / 'test.py').write_text(TEST.replace('MIOU', '69.9'))
    assert run_demo(tmp_path / 'out', monkeypatch) == 2
    captured = capsys.readouterr()
    assert captured.err == 'demo.py: error: expected higher metrics: Semantic FPN mIoU\n'
    assert 'mIoU 69.9 (at least 70)' in captured.out


def test_the_demo_ends_with_the_log_of_a_tool_that_failed(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tools / 'train.py').write_text(
        TRAIN + 'import time\nprint("pid", os.getpid(), flush=True)\nif "fpn" in sys.argv[1]: time.sleep(60)'
    )
    (tools / 'test.py').write_text('raise SystemExit("no such file: annotations.json")')
    assert run_demo(tmp_path / 'out', monkeypatch) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == '  no such file: annotations.json'
    other = tmp_path / 'out' / Path(demo.JOBS[1].config).stem / 'log.txt'
    with pytest.raises(ProcessLookupError):  # the other training was stopped
        os.kill(int(re.findall(r'^pid (\d+)$', other.read_text(), re.MULTILINE)[0]), 0)
    log = tmp_path / 'out' / Path(demo.JOBS[0].config).stem / 'log.txt'
    assert captured.err == f'demo.py: error: testing Mask R-CNN failed; see {log}\n'


def test_the_demo_takes_a_seed(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run_demo(tmp_path / 'out', monkeypatch, '--seed', '3') == 0
    for job in demo.JOBS:
        assert 'randomness.seed=3' in (tmp_path / 'out' / Path(job.config).stem / 'log.txt').read_text()
    assert run_demo(tmp_path / 'out', monkeypatch, '--seed', '-1') == 2
    assert capsys.readouterr().err == 'demo.py: error: --seed must not be negative, got -1\n'


def test_real_images_are_learned_with_the_same_console(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for directory in ('coco', 'ade/images/validation'):
        (tmp_path / 'real' / directory).mkdir(parents=True)
    (tmp_path / 'real' / 'coco' / 'instances.json').write_text('{}')
    arguments = ['--data', str(tmp_path / 'real'), '--out', str(tmp_path / 'out')]
    monkeypatch.setattr(sys, 'argv', ['benchmark_real.py', *arguments])
    with pytest.raises(SystemExit):
        benchmark_real.main()
    captured = capsys.readouterr()
    assert re.search(
        r'^RetinaNet, PVT-Tiny: coco/bbox_mAP_50 0\.9, mIoU 71 in 0\.\d minutes$', captured.out, re.MULTILINE
    )
    assert re.search(r'^training Semantic FPN, PVT-Tiny: done in 0:\d\d, loss 1\.25$', captured.out, re.MULTILINE)
    assert captured.err.endswith('error: expected higher metrics when overfitting: mIoU 71.0 < 90.0\n')
    for name in ('detection', 'segmentation'):
        assert f'trained with {tmp_path / "out" / name}.py' in (tmp_path / 'out' / name / 'log.txt').read_text()


ON_A_TERMINAL = """
import sys
from pathlib import Path
import _processes
_processes.TOOLS = Path(sys.argv.pop(1))
import demo
demo.main()
"""


@pytest.mark.slow
def test_the_demo_shows_bars_on_a_terminal_and_leaves_few_lines(tools: Path, tmp_path: Path) -> None:
    (tools / 'train.py').write_text(TRAIN + 'import time\ntime.sleep(2)\n')
    master, slave = pty.openpty()
    env = ENVIRONMENT | {'PYTHONPATH': str(ROOT / 'tools'), 'TERM': 'xterm', 'COLUMNS': '100', 'LINES': '40'}
    command = [sys.executable, '-c', ON_A_TERMINAL, tools, '--out', tmp_path / 'out']
    with subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, env=env) as process:
        os.close(slave)
        output = b''
        while chunk := read(master):
            output += chunk
    text = output.decode()
    assert process.returncode == 0, text[-3000:]
    assert re.search(r'training Mask R-CNN .*100%.* loss 1\.25', text)
    assert text.count('\n') - text.count('\x1b[1A') <= 30  # the lines that stay
    assert 'Semantic FPN: mIoU 71 (at least 70)' in text


def read(descriptor: int) -> bytes:
    """Return what a terminal has to show, nothing when its processes have ended."""
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux reports the end so
        return b''
