"""tools/build_mmcv.py on a small tree with the layout of mmcv: patches of setup.py, and unity files."""

import zipfile
from pathlib import Path

import pytest
from build_mmcv import CUDA_GROUPS, OPS, has_compiled_ops, patch_setup, split_unity_files, write_unity_files

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


@pytest.mark.parametrize(
    ('torch', 'flag'), [('2.12.1', '-std=c++17'), ('2.13.0', '-std=c++20'), ('2.14.1', '-std=c++20')]
)
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


def test_a_wheel_without_ops_is_recognized(tmp_path: Path) -> None:
    for name, expected in (('mmcv/_ext.cpython-311.so', True), ('mmcv/version.py', False)):
        with zipfile.ZipFile(tmp_path / 'mmcv.whl', 'w') as archive:
            archive.writestr(name, '')
        assert has_compiled_ops(tmp_path / 'mmcv.whl') is expected


def sources(source: Path) -> list[str]:
    return sorted(str(path.relative_to(source)) for path in (source / OPS).rglob('*.c*'))


def test_unity_file_that_fails_is_split_into_its_sources(source: Path) -> None:
    before = sources(source)
    write_unity_files(source)
    log = (
        '  [3/9] nvcc ...\n  FAILED: [code=2] /build/temp/mmcv/ops/csrc/pytorch/cuda/group1_unity.o\n  error: divideUP'
    )
    assert split_unity_files(source, log) == ['group1_unity.cu']
    left = sources(source)
    assert f'{OPS}/cuda/group1_unity.cu' not in left
    for stem in CUDA_GROUPS[1].split():
        assert {f'{OPS}/cuda/{stem}.cu', f'{OPS}/cuda/{stem}_cuda.cu'} & set(left)
    assert f'{OPS}/cuda/group0_unity.cu' in left
    # A failure of something else, like the linker, splits all that are left; after that nothing remains to try.
    assert len(split_unity_files(source, 'undefined reference')) == len(CUDA_GROUPS) - 1 + 2
    assert sources(source) == before
    assert split_unity_files(source, 'undefined reference') == []
