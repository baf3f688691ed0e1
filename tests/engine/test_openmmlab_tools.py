"""configs/_base_/reliable_runtime.py under the training tools of mmdet, mmseg and mmpretrain."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from few_images import config, shapes  # noqa: F401  fixtures
from mmengine.config.utils import MODULE2PACKAGE
from running import ENVIRONMENT, ROOT
from toy_training import assert_equal, final_weights, toy_config

from deformable_vit.engine import ResumableIterBasedTrainLoop, SeededBatchSampler

RELIABLE = ROOT / 'configs' / '_base_' / 'reliable_runtime.py'

pytestmark = pytest.mark.slow


def train(package: str, directory: Path, config: Path, *args: str, status: int = 0) -> str:  # noqa: F811
    """Run a package's tools/train.py, check its exit status, and return its output."""
    tool = Path(find_spec(package).origin).parent / '.mim' / 'tools' / 'train.py'
    done = subprocess.run(
        [sys.executable, str(tool), str(config), *args],
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == status, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


def write_toy(directory: Path, package: str, exact: bool, **model: Any) -> Path:
    """Write the config of the toy training, on top of the base; ``exact`` adds the lines for loop and sampler."""
    built = toy_config(directory, by_epoch=package == 'mmpretrain', workers=1, model=model)
    built.pop('work_dir')
    built.default_scope = package
    built.custom_imports = dict(imports=['deformable_vit', 'toy_training'], allow_failed_imports=False)
    lines = [f'_base_ = {str(RELIABLE)!r}', built.pretty_text]
    if exact:
        kind = 'Epoch' if package == 'mmpretrain' else 'Iter'
        lines.append("train_cfg.pop('by_epoch')")
        lines.append(f"train_cfg['type'] = 'deformable_vit.engine.Resumable{kind}BasedTrainLoop'")
        lines.append("train_dataloader['batch_sampler'] = dict(type='deformable_vit.engine.SeededBatchSampler')")
    path = directory / 'toy.py'
    path.write_text('\n'.join(lines))
    return path


@pytest.mark.parametrize('package', ['mmdet', 'mmseg', 'mmpretrain'])
def test_a_stopped_training_continues_bit_for_bit(package: str, tmp_path: Path) -> None:
    """By iteration in mmdet and mmseg, by epoch in mmpretrain; worker processes get the signal, too."""
    train(package, tmp_path, write_toy(tmp_path, package, exact=True), '--work-dir', 'unbroken')
    path = write_toy(tmp_path, package, exact=True, stop_at=(9, 15))
    shown = train(package, tmp_path, path, '--work-dir', 'stopped', status=143)
    assert 'train.py: stopped by SIGTERM after iteration 9; the last checkpoint is ' in shown
    assert '--work-dir stopped --resume' in shown
    train(package, tmp_path, write_toy(tmp_path, package, exact=True), '--work-dir', 'stopped', '--resume')
    assert_equal(final_weights(tmp_path / 'stopped'), final_weights(tmp_path / 'unbroken'))


def test_the_base_alone_protects_checkpoints(tmp_path: Path) -> None:
    """A stop saves, the resumed training goes on from there, and a new one keeps what there is."""
    path = write_toy(tmp_path, 'mmdet', exact=False, stop_at=(9, 15))
    train('mmdet', tmp_path, path, '--work-dir', 'run', status=143)
    path = write_toy(tmp_path, 'mmdet', exact=False)
    assert 'iter: 9' in train('mmdet', tmp_path, path, '--work-dir', 'run', '--resume')
    last = Path((tmp_path / 'run' / 'last_checkpoint').read_text()).name
    before = (tmp_path / 'run' / last).read_bytes()
    train('mmdet', tmp_path, path, '--work-dir', 'run')
    (kept,) = (tmp_path / 'run').glob(f'previous_*/{last}')
    assert kept.read_bytes() == before


@pytest.mark.parametrize(
    ('package', 'demo'), [('mmdet', 'retinanet_pvtv2'), ('mmseg', 'fpn_pvtv2'), ('mmpretrain', 'pvt')]
)
def test_a_bad_sample_is_named(package: str, demo: str, config: Any, shapes: Path, tmp_path: Path) -> None:  # noqa: F811
    if package == 'mmseg' and MODULE2PACKAGE['mmseg'] == 'mmseg':
        pytest.skip("mmseg's own tools do not find mmseg:: bases of the fork")
    base = config(f'{demo}_shapes.py')
    path = tmp_path / 'bad.py'
    path.write_text(f'_base_ = [{str(base)!r}, {str(RELIABLE)!r}]\n')
    directory = {'mmdet': 'coco/train2017', 'mmseg': 'ade/images/training', 'mmpretrain': 'imagenet/train'}[package]
    images = sorted((shapes / directory).rglob('*.jpg'))
    contents = {image: image.read_bytes() for image in images}
    try:
        for image in images:
            image.write_bytes(b'not an image')
        shown = train(package, tmp_path, path, '--work-dir', 'run', status=1)
    finally:
        for image, content in contents.items():
            image.write_bytes(content)
    last = shown.strip().splitlines()[-1]
    assert 'SampleError: sample ' in last
    assert any(str(image) in last for image in images)
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_types_of_the_base_exist() -> None:
    from mmengine.config import Config
    from mmengine.registry import DATA_SAMPLERS, HOOKS, LOOPS

    for hook in Config.fromfile(RELIABLE).custom_hooks:
        assert HOOKS.build(hook)
    assert LOOPS.get('deformable_vit.engine.ResumableIterBasedTrainLoop') is ResumableIterBasedTrainLoop
    assert DATA_SAMPLERS.get('deformable_vit.engine.SeededBatchSampler') is SeededBatchSampler
