"""tools/setup.sh with a fake Python: its steps, its settings, and that an interrupted set-up continues."""

import shutil
import tomllib
from pathlib import Path

import pytest
from running import ROOT
from setup_checkout import TORCH, TORCHVISION, Checkout

pytestmark = pytest.mark.slow


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_second_call_does_nothing(checkout: Checkout) -> None:
    out = checkout.run()
    assert 'minutes' in out  # long steps announce their time
    steps = checkout.steps
    assert f'torch=={TORCH} torchvision=={TORCHVISION}' in steps[0]
    # What builds this package and mmcv without build isolation; Python 3.11 brings setuptools 65.
    (build_requirement,) = tomllib.loads((ROOT / 'pyproject.toml').read_text())['build-system']['requires']
    assert build_requirement in steps[0]
    assert steps[1].startswith('build')
    assert steps[1].split()[1:3] == ['--torch', TORCH]
    assert '--cuda' not in steps[1]
    assert str(checkout.wheel) in steps[2]
    assert '.[dev]' in steps[3]
    assert checkout.run() == ''
    assert checkout.steps == []
    # Changed requirements are installed, with the existing wheel.
    with (checkout.root / 'requirements.txt').open('a') as file:
        file.write('tabulate\n')
    checkout.run()
    assert not any(step.startswith('build') for step in checkout.steps)


def test_killed_installation_starts_again(checkout: Checkout) -> None:
    checkout.kill_when('install', HANG='1')
    assert (checkout.root / '.venv' / '.changing').exists()
    (checkout.root / '.venv' / 'half').touch()
    out = checkout.run()
    assert 'creating .venv again' in out
    assert not (checkout.root / '.venv' / 'half').exists()
    assert (checkout.root / '.venv' / '.ready').exists()


def test_killed_build_continues(checkout: Checkout) -> None:
    checkout.kill_when('build', HANG_BUILD='1')
    assert not checkout.wheel.exists()
    # What is compiled is kept, and the next call continues in the same directory.
    build = checkout.wheel.parent / 'build-mmcv-2.1.0'
    assert (build / 'sdist' / 'mmcv-2.1.0.tar.gz').exists()
    checkout.run()
    assert checkout.wheel.exists()
    assert not build.exists()


def test_failed_build_stops_the_set_up(checkout: Checkout) -> None:
    assert 'mmcv was not built' in checkout.error(FAIL_BUILD='1')
    assert not checkout.wheel.exists()


def test_another_torch_is_installed_on_request(checkout: Checkout) -> None:
    checkout.run(TORCH='2.12.1')
    steps = checkout.steps
    assert 'torch==2.12.1 torchvision==0.27.1' in steps[0]
    assert steps[1].split()[1:3] == ['--torch', '2.12.1']
    assert 'torch==2.12.1' in steps[3]
    assert checkout.run() == ''  # .venv keeps its settings
    checkout.run(TORCH=TORCH)
    assert f'torch=={TORCH} torchvision=={TORCHVISION}' in checkout.steps[0]


def test_another_python_replaces_the_environment(checkout: Checkout) -> None:
    checkout.run()
    (checkout.root / '.venv' / 'old').touch()
    other = checkout.bin / 'python3.12'
    shutil.copy(checkout.env['PYTHON'], other)
    assert 'PYTHON has changed' in checkout.run(PYTHON=str(other))
    assert not (checkout.root / '.venv' / 'old').exists()


def test_another_stack_replaces_the_environment(checkout: Checkout) -> None:
    checkout.run()
    (checkout.root / '.venv' / 'old').touch()
    assert 'STACK has changed' in checkout.run(STACK='onedl', MMCV='onedl_mmcv-2.3.6')
    assert not (checkout.root / '.venv' / 'old').exists()
    assert str(checkout.wheel.with_name('onedl_mmcv-2.3.6-cp311-none-any.whl')) in checkout.steps[2]
    assert checkout.wheel.exists()  # the other stack's stays beside it
    requirements = (checkout.root / '.venv' / 'requirements.txt').read_text().split('\n')
    assert 'onedl-mmdetection==3.5.1' in requirements
    assert not any(line.startswith(('mm', 'torch')) for line in requirements)
    assert any(line.startswith('pycocotools') for line in requirements)
    assert checkout.run() == ''  # .venv keeps its settings
    assert 'STACK has changed' in checkout.run(STACK='openmmlab')
    assert checkout.run() == ''
    assert 'use openmmlab (the default) or onedl' in checkout.error(STACK='other')
