"""Build a wheel of mmcv with its compiled ops. tools/dev/setup.sh runs this in .venv, with torch and ninja installed.

Compiling mmcv file by file spends nearly all of its time in the headers of torch, once for each of 77 files. Unity
files, which include many sources each, parse them three times: about 1 minute instead of 12 on two cores. If these do
not compile here, the sources are compiled one by one.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

OPS = Path('mmcv/ops/csrc/pytorch')
# Sources that define the same templates as others of their directory; a unity file renames them.
CLASHING = ('bezier_align.cpp', 'roi_align.cpp', 'roi_align_rotated.cpp', 'rotated_feature_align.cpp')
CLASHING_NAMES = ('PreCalc', 'add', 'bilinear_interpolate_gradient')
# CUDA sources that can be compiled together: those of a group define no name twice (divideUP, Point, Loc2Index,
# reduce_t, ...). A source that is in no group is compiled on its own.
CUDA_GROUPS = (
    'assign_score_withk border_align carafe group_points min_area_polygons ms_deform_attn sparse_maxpool sync_bn',
    'diff_iou_rotated filtered_lrelu fused_spconv_ops nms_quadri riroi_align_rotated three_interpolate tin_shift',
    'bezier_align correlation focal_loss gather_points nms_rotated sparse_pool_ops stack_group_points upfirdn2d_kernel',
    'box_iou_quadri chamfer_distance furthest_point_sample knn modulated_deform_conv roi_align roi_pool '
    'roiaware_pool3d',
    'box_iou_rotated carafe_naive deform_conv nms points_in_polygons psamask roi_align_rotated roipoint_pool3d '
    'sparse_reordering',
    'ball_query bbox_overlaps convex_iou masked_conv2d points_in_boxes scatter_points sparse_indice',
    'active_rotated_filter bias_act deform_roi_pool iou3d prroi_pool rotated_feature_align spconv_ops three_nn '
    'voxelization',
)
# From this version on the headers of torch need C++20.
CPP20_TORCH = (2, 13)


def unpack(sdist: Path, source: Path) -> None:
    """Unpack a source distribution to ``source``, which is replaced."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.unpack_archive(sdist, source.parent, filter='data')
    (source.parent / sdist.name.removesuffix('.tar.gz')).rename(source)


def patch_setup(source: Path, torch_version: str) -> None:
    """Patch mmcv's setup.py for current versions of torch and Python."""
    setup = source / 'setup.py'
    text = setup.read_text()
    # From Python 3.13 on, locals() does not see what exec defines (PEP 667).
    text = text.replace("exec(compile(f.read(), version_file, 'exec'))", 'exec(f.read(), names := {})')
    text = text.replace("return locals()['__version__']", "return names['__version__']")
    # The headers of torch need C++20, while mmcv 2.1.0 asks for C++17.
    if tuple(int(part) for part in torch_version.split('.')[:2]) >= CPP20_TORCH:
        text = text.replace("'-std=c++17'", "'-std=c++20'")
    setup.write_text(text)


def write_unity_files(source: Path) -> None:
    """Replace the C++ and CUDA sources of ``source`` by unity files.

    mmcv's setup.py compiles the ``*.cpp`` and ``*.cu`` files of its directories, so that another suffix hides a source.
    """
    for directory in (OPS, OPS / 'cpu'):
        names = sorted(file.name for file in (source / directory).glob('*.cpp') if file.name != 'pybind.cpp')
        lines = ['#include "pytorch_cpp_helper.hpp"']
        for name in names:
            renamed = CLASHING_NAMES if name in CLASHING else ()
            lines += [f'#define {old} {old}_{Path(name).stem}' for old in renamed]
            lines.append(_hide(source / directory / name))
            lines += [f'#undef {macro}' for macro in (*renamed, 'max', 'min')]  # some sources define max and min
        (source / directory / f'{directory.name}_unity.cpp').write_text('\n'.join(lines) + '\n')
    directory = source / OPS / 'cuda'
    for i, group in enumerate(CUDA_GROUPS):
        files = [directory / f'{stem}{end}' for stem in group.split() for end in ('_cuda.cu', '.cu')]
        lines = [_hide(file) for file in files if file.exists()]
        (directory / f'group{i}_unity.cu').write_text('\n'.join(lines) + '\n')


def _hide(file: Path) -> str:
    """Rename a source, and return the line that includes it."""
    hidden = file.rename(f'{file}.inc')
    return f'#include "{hidden.name}"'


def compile_wheel(source: Path, out: Path, log: Path, cuda: bool, jobs: int) -> Path | None:
    """Build the wheel of an unpacked source; return its path, or None if it did not compile."""
    shutil.rmtree(out, ignore_errors=True)
    env = os.environ | {'MMCV_WITH_OPS': '1', 'FORCE_CUDA': str(int(cuda)), 'MAX_JOBS': str(jobs)}
    if not cuda:
        env['CUDA_VISIBLE_DEVICES'] = ''  # mmcv's setup.py compiles the CUDA ops whenever torch sees a GPU
    env['CFLAGS'] = f'{env.get("CFLAGS", "")} -g0'  # debug information takes a third of the time, and 11 MB
    env['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}'  # ninja
    command = [sys.executable, '-m', 'pip', 'wheel', '--verbose', '--disable-pip-version-check']
    command += ['--no-build-isolation', '--no-deps', '-w', str(out), str(source)]
    with log.open('w') as file:
        done = subprocess.run(command, env=env, stdout=file, stderr=subprocess.STDOUT, check=False)
    return next(out.glob('*.whl'), None) if done.returncode == 0 else None


def has_compiled_ops(wheel: Path) -> bool:
    """Return whether a wheel holds mmcv's extension; without torch in sight mmcv's setup.py leaves it out silently."""
    with zipfile.ZipFile(wheel) as archive:
        return any(re.match(r'mmcv/_ext.*\.so$', name) for name in archive.namelist())


def build(sdist: Path, directory: Path, torch_version: str, cuda: bool, jobs: int) -> None:
    """Build the wheel in ``directory/out``, or exit with the end of the compilers' log.

    An interrupted build continues: what is compiled stays in ``directory``.
    """
    for name in ('unity', 'one_by_one'):
        source, prepared, log = directory / name, directory / f'{name}.prepared', directory / f'{name}.log'
        if not prepared.exists():
            unpack(sdist, source)
            patch_setup(source, torch_version)
            if name == 'unity':
                write_unity_files(source)
            prepared.touch()
        wheel = compile_wheel(source, directory / 'out', log, cuda, jobs)
        if wheel is not None and has_compiled_ops(wheel):
            return
        print(f'[setup]   mmcv did not compile as {name} files; the whole log is {log}', flush=True)
    sys.exit('\n'.join(log.read_text(errors='replace').splitlines()[-30:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('sdist', type=Path, help='mmcv-VERSION.tar.gz')
    parser.add_argument('build', type=Path, help='directory for the build; an interrupted build continues there')
    parser.add_argument('--torch', required=True, metavar='VERSION', help='version of torch in this environment')
    parser.add_argument('--cuda', action='store_true', help='compile the CUDA ops too')
    parser.add_argument('--jobs', type=int, default=2, help='compilers at a time (default: 2)')
    args = parser.parse_args()
    build(args.sdist, args.build, args.torch, args.cuda, args.jobs)


if __name__ == '__main__':
    main()
