"""tools/build_mmcv.py on a small tree with the layout of mmcv: patches of setup.py, and unity files."""

import tarfile
import zipfile
from pathlib import Path

import build_mmcv
import pytest
from build_mmcv import CUDA_GROUPS, OPS, build, patch_setup, write_unity_files

pytestmark = pytest.mark.nightly

SETUP = """
def get_version():
    version_file = 'mmcv/version.py'
    with open(version_file, encoding='utf-8') as f:
        exec(compile(f.read(), version_file, 'exec'))
    return locals()['__version__']


FLAGS = ['-std=c++17']
"""
CPP = ('pybind.cpp', 'info.cpp', 'nms.cpp')
CPU = ('nms.cpp', 'roi_align.cpp')


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write an empty source for each file that the build knows."""
    cuda = [f'{stem}_cuda.cu' if i % 2 else f'{stem}.cu' for i, stem in enumerate(' '.join(CUDA_GROUPS).split())]
    for directory, names in ((OPS, CPP), (OPS / 'cpu', CPU), (OPS / 'cuda', [*cuda, 'other.cu'])):
        (tmp_path / directory).mkdir(parents=True, exist_ok=True)
        for name in names:
            (tmp_path / directory / name).touch()
    (tmp_path / 'setup.py').write_text(SETUP)
    (tmp_path / 'mmcv' / 'version.py').write_text("__version__ = '2.1.0'\n")
    return tmp_path


@pytest.mark.parametrize(('torch', 'flag'), [('2.12.1', '-std=c++17'), ('2.13.0', '-std=c++20')])
def test_setup_is_patched_for_torch_and_python(
    torch: str, flag: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_setup(source, torch)
    monkeypatch.chdir(source)
    names: dict = {}
    exec((source / 'setup.py').read_text(), names)
    assert names['FLAGS'] == [flag]
    assert names['get_version']() == '2.1.0'  # also on Python 3.13


def test_unity_files_include_every_source_once(source: Path) -> None:
    write_unity_files(source)
    assert sorted(p.name for p in (source / OPS).glob('*.cpp')) == ['pybind.cpp', 'pytorch_unity.cpp']
    assert '#include "nms.cpp.inc"' in (source / OPS / 'pytorch_unity.cpp').read_text()
    (cpu,) = (source / OPS / 'cpu').glob('*.cpp')
    lines = cpu.read_text().splitlines()
    renamed = lines.index('#define PreCalc PreCalc_roi_align')
    assert lines.index('#include "nms.cpp.inc"') < renamed < lines.index('#include "roi_align.cpp.inc"')
    assert lines.index('#include "roi_align.cpp.inc"') < lines.index('#undef PreCalc')
    groups = sorted((source / OPS / 'cuda').glob('*_unity.cu'))
    included = [line.split('"')[1] for file in groups for line in file.read_text().splitlines()]
    assert len(groups) == len(CUDA_GROUPS)
    assert sorted(included) == sorted(p.name for p in (source / OPS / 'cuda').glob('*.inc'))
    assert len(set(included)) == len(included) == len(' '.join(CUDA_GROUPS).split())
    assert (source / OPS / 'cuda' / 'other.cu').exists()  # compiled on its own


def test_sources_are_compiled_one_by_one_when_unity_files_fail(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A wheel without the extension, as mmcv's setup.py makes it when it sees no torch, is a failure, too."""
    sdist = tmp_path / 'mmcv-2.1.0.tar.gz'
    with tarfile.open(sdist, 'w:gz') as archive:
        for name in ('mmcv', 'setup.py'):
            archive.add(source / name, f'mmcv-2.1.0/{name}')
    built: list[bool] = []

    def compile_wheel(source: Path, out: Path, log: Path, cuda: bool, jobs: int) -> Path:
        built.append((source / OPS / 'pytorch_unity.cpp').exists())
        log.write_text('error: divideUP')
        out.mkdir(exist_ok=True)
        with zipfile.ZipFile(out / 'mmcv.whl', 'w') as archive:
            archive.writestr('mmcv/version.py' if built[-1] or fails else 'mmcv/_ext.cpython-311.so', '')
        return out / 'mmcv.whl'

    monkeypatch.setattr(build_mmcv, 'compile_wheel', compile_wheel)
    fails = False
    build(sdist, tmp_path / 'build', '2.15.0', False, 1)
    assert built == [True, False]
    assert 'the whole log is' in capsys.readouterr().out
    fails = True
    with pytest.raises(SystemExit, match='error: divideUP'):
        build(sdist, tmp_path / 'build', '2.15.0', False, 1)
