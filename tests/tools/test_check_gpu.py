"""tools/check_gpu.py, on the CPU at tiny sizes; what it finds on a GPU is for its report."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import check_gpu
import gpu_checks
import gpu_quick
import pytest
import torch
from check_gpu import Report
from running import ENVIRONMENT, ROOT, exit_status


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each table of a report."""
    found = {}
    for part in text.split('\n## ')[1:]:
        title, _, *lines = part.strip().split('\n')
        rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
        found[title] = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    return found


def test_a_report_is_whole_after_each_row(tmp_path: Path) -> None:
    report = Report(tmp_path / 'report.md', 'Title')
    report.add('Times', backend='a', ms='1')
    assert tables(report.file.read_text()) == {'Times': [dict(backend='a', ms='1')]}
    report.add('Parts', part='x')
    report.add('Times', backend='b', note='out of | memory'.replace('|', '/'))
    assert tables(report.file.read_text()) == {
        'Times': [dict(backend='a', ms='1', note=''), dict(backend='b', ms='', note='out of / memory')],
        'Parts': [dict(part='x')],
    }


def test_without_a_gpu_the_checks_say_so_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for main, *args in (
        (check_gpu.main,),
        (check_gpu.main, '--quick'),
        (gpu_checks.main, 'times', 'rows.json'),
    ):
        monkeypatch.setattr(sys, 'argv', ['tool', *args])
        message = exit_status(main)
        assert re.fullmatch(r'\w+\.py: error: torch \S+ can use no CUDA GPU here.*', message)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_part_is_a_row_and_the_others_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = """
import json, pathlib, sys, time
part, rows = sys.argv[1], pathlib.Path(sys.argv[2])
rows.write_text(json.dumps({'Found': [{'part': part}]}))
if part == 'amp':
    time.sleep(60)
if part == 'tests':
    raise ValueError('no | kernel')
"""
    (tmp_path / 'parts.py').write_text(parts)
    monkeypatch.setattr(check_gpu, 'CHECKS', tmp_path / 'parts.py')
    monkeypatch.setattr(check_gpu, 'PARTS', dict(mmcv=1, tests=1, amp=0.01, times=1))
    report = Report(tmp_path / 'report.md', 'Title')
    assert not check_gpu.check_all(report, smoke=True)
    found = tables(report.file.read_text())
    assert [row['part'] for row in found['Found']] == ['mmcv', 'tests', 'amp', 'times']
    assert [row['result'] for row in found['Parts']] == [
        'passed',
        'failed: ValueError: no / kernel',
        'failed: it took more than 0.01 minutes',
        'passed',
    ]
    assert 'ValueError' in (tmp_path / 'report-tests.log').read_text()


def test_a_row_without_time_or_with_an_error_says_so(tmp_path: Path) -> None:
    from deformable_vit import ops

    quick = gpu_quick.Quick(Report(tmp_path / 'report.md', 'Quick'), ops, smoke=True)
    quick.row('Times', lambda: {'ms': str(1 // 0)}, backend='a')
    quick.end = 0
    quick.row('Times', lambda: {'ms': '1'}, backend='b')
    notes = [row['note'] for row in tables(quick.report.file.read_text())['Times']]
    assert notes == ['ZeroDivisionError: integer division or modulo by zero', 'skipped: no time left']


def test_compiled_kernels_are_reported_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from deformable_vit.ops import triton_compile

    row = dict(kernel='forward', architecture='sm_90', tile=dict(QUERIES=64, num_warps=4), registers=128, spills=0)
    monkeypatch.setattr(triton_compile, 'compile_report', lambda: iter([row]))
    monkeypatch.setattr(check_gpu, 'find_spec', lambda _: True)
    monkeypatch.setattr(sys, 'argv', ['check_gpu.py', '--compile-only', '--out', str(tmp_path / 'kernels.md')])
    assert exit_status(check_gpu.main) == 0
    (found,) = tables((tmp_path / 'kernels.md').read_text())['Triton kernels']
    assert found == dict(
        kernel='forward', architecture='sm_90', tile='QUERIES 64, num_warps 4', registers='128', spills='0'
    )


def test_without_triton_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(check_gpu, 'find_spec', lambda _: None)
    monkeypatch.setattr(sys, 'argv', ['check_gpu.py', '--compile-only', '--out', str(tmp_path / 'kernels.md')])
    assert exit_status(check_gpu.main) == 'check_gpu.py: error: --compile-only needs triton, which is not installed'
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('bad', [(2e-4, 0.0), (0.0, float('nan'))])
def test_a_deviation_beyond_rounding_fails(bad: tuple[float, float]) -> None:
    assert gpu_checks.verdict(bad, torch.float32)['result'] == 'failed'
    assert gpu_checks.verdict((1e-5, 1e-4), torch.float32)['result'] == 'passed'


@pytest.mark.slow
def test_the_quick_comparison_needs_the_ops_alone(tmp_path: Path) -> None:
    """In Triton's interpreter, with nothing else of the project, and no package of OpenMMLab to import."""
    for name in ('tools/check_gpu.py', 'tools/dev/gpu_quick.py'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / 'projects/deformable_vit/ops', tmp_path / 'projects/deformable_vit/ops')
    code = """
import runpy, sys
sys.modules.update(dict.fromkeys(('mmengine', 'mmcv', 'mmdet')))  # each import of them fails
sys.argv = ['check_gpu.py', '--quick', '--smoke']
sys.path.insert(0, 'tools')
runpy.run_path('tools/check_gpu.py', run_name='__main__')
"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path, env=ENVIRONMENT | {'PYTHONPATH': ''}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = tables((tmp_path / 'gpu-report.md').read_text())
    assert [row['backend'] for row in found['Deviation']] == ['chunked', 'products', 'separable', 'reference', 'triton']
    assert {row['backend'] for row in found['Times']} > {'no bias', 'triton', 'triton, tile 64 x 64, 4 warps'}
    for row in found['Deviation']:
        assert float(row['output']) < 1e-5, row
        assert float(row['locations']) < 1e-4, row
    assert len(found['Parts of a chunk']) == 8
    for row in found['Times'] + found['Parts of a chunk']:
        assert float(row.get('ms') or row['training ms']) > 0, row


@pytest.mark.slow
@pytest.mark.nightly
def test_all_parts_run(tool, tmp_path: Path) -> None:
    tool('check_gpu.py', '--smoke')
    found = tables((tmp_path / 'gpu-report.md').read_text())
    assert {row['result'] for row in found['Parts']} == {'passed'}
    assert {row['family'] for row in found['Deviation from `reference` in float64']} == set(gpu_checks.BACKENDS)
    assert [row['model'] for row in found['Times']] == ['dat-t', 'swin-t']
    assert all(float(row['training ms']) > 0 for row in found['Times'])
