#!/usr/bin/env bash
# Create .venv with the stack of requirements.txt, mmcv's compiled ops and this package. It can be called at any time: it
# does nothing when nothing is missing, and continues where an interrupted call stopped.
#
#   PYTHON=python3.12             the interpreter for .venv (default: the newest of 3.13, 3.12, 3.11)
#   TORCH=2.12.1                  another version of torch than the pinned one
#   DEFORMABLE_VIT_WHEELS=DIR     where built mmcv wheels are kept (default: ~/.cache/deformable-vit/wheels)
#   DEFORMABLE_VIT_CUDA=0|1       whether to compile mmcv's CUDA ops (default: 1 if there are a GPU and nvcc)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '[setup] %s\n' "$*"; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

venv=.venv
python=$venv/bin/python
wheels=${DEFORMABLE_VIT_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/deformable-vit/wheels}
pinned() { sed -nE "s/^$1==([0-9.]+).*/\1/p" requirements.txt; }
torch=${TORCH:-$(pinned torch)}
# Versions that belong together; for another torch, pip chooses torchvision.
case $torch in
  "$(pinned torch)") torchvision="torchvision==$(pinned torchvision)" ;;
  2.12.1) torchvision=torchvision==0.27.1 ;;
  *) torchvision=torchvision ;;
esac

exec 9>.setup.lock
flock -n 9 || { say 'another set-up is running in this directory; waiting for it'; flock 9; }

if [ -z "${DEFORMABLE_VIT_CUDA:-}" ]; then
  # The device node of a GPU answers at once; asking torch would take seconds on each call.
  if [ -e /dev/nvidiactl ] && { command -v nvcc || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; } >/dev/null; then DEFORMABLE_VIT_CUDA=1; else DEFORMABLE_VIT_CUDA=0; fi
fi

# Ready means: made from these files and settings, in this directory (a virtual environment does not survive a move).
wanted=$({ cat requirements.txt pyproject.toml tools/setup.sh tools/build_mmcv.py; echo "$PWD torch=$torch python=${PYTHON:-} cuda=$DEFORMABLE_VIT_CUDA"; } | sha256sum)
if [ -x $python ] && [ "$(cat $venv/.ready 2>/dev/null)" = "$wanted" ]; then exit 0; fi
start=$SECONDS

# --- the virtual environment -----------------------------------------------------------------------------------------
# $venv/.changing exists while packages are being written. Found at the start, it means that the last call was killed in
# the middle of that, and nobody knows what is half written: start again (packages come from pip's cache by then).
if [ -e $venv/.changing ]; then
  say 'the last set-up was interrupted while it installed packages: creating .venv again'
  rm -rf $venv
fi
if [ -d $venv ] && [ "$(cat $venv/.directory 2>/dev/null)" != "$PWD" ]; then
  say '.venv was created in another directory or by other means: creating it again'
  rm -rf $venv
fi
if [ -d $venv ] && [ "$(cat $venv/.python 2>/dev/null)" != "${PYTHON:-}" ]; then
  say "PYTHON has changed: creating .venv again"
  rm -rf $venv
fi
if ! $python -m pip --version >/dev/null 2>&1; then
  rm -rf $venv
  found=
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
    if command -v "$candidate" >/dev/null && "$candidate" - 2>/dev/null <<'PY'
import ensurepip, os, sys, sysconfig, venv
supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
sys.exit(not (supported and os.path.exists(sysconfig.get_paths()['include'] + '/Python.h')))
PY
    then found=$candidate; break; fi
  done
  [ -n "$found" ] || die "no usable Python 3.11, 3.12 or 3.13 among: ${PYTHON:-python3.13 python3.12 python3.11 python3 python}" \
    "(it needs venv and its C headers). On Debian: apt-get install python3-venv python3-dev; or name one: make setup PYTHON=/path/to/python3.12"
  say "creating .venv with $("$found" --version)"
  "$found" -m venv $venv
  echo "$PWD" >$venv/.directory
  echo "${PYTHON:-}" >$venv/.python
fi

# install MESSAGE ARGS...: pip install, marked as a change in progress; pip's messages are shown if it fails.
install() {
  say "$1"; shift
  touch $venv/.changing
  $python -m pip install --disable-pip-version-check --progress-bar off "$@" >$venv/pip.log 2>&1 &
  local pid=$! began=$SECONDS next=30
  trap 'kill '$pid' 2>/dev/null || true' EXIT  # an interrupt does not reach background processes
  while kill -0 $pid 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - began)) -ge $next ]; then next=$((next + 30))
      say "  $((SECONDS - began)) s: $(tail -1 $venv/pip.log | cut -c1-90)"
    fi
  done
  trap - EXIT
  wait $pid || { tail -15 $venv/pip.log >&2; die "pip failed; the whole log is $venv/pip.log"; }
  rm $venv/.changing
}

rm -f $venv/.ready
install "installing torch $torch and torchvision (1 to 5 minutes, 3 GB with CUDA libraries)" \
  "torch==$torch" "$torchvision" 'setuptools<80' wheel ninja

# --- mmcv with its compiled ops --------------------------------------------------------------------------------------
# pip's own cache cannot keep this wheel: it is keyed by the source only, not by the torch that it was compiled for.
variant=cpu
if [ "$DEFORMABLE_VIT_CUDA" = 1 ]; then
  variant=$($python - <<'PY'
import re, subprocess, sys, torch
from torch.utils.cpp_extension import CUDA_HOME
if CUDA_HOME is None:
    sys.exit('DEFORMABLE_VIT_CUDA=1, but there is no CUDA toolkit: install it, or set DEFORMABLE_VIT_CUDA=0')
if torch.version.cuda is None:
    sys.exit(f'DEFORMABLE_VIT_CUDA=1, but torch {torch.__version__} is a CPU build: set DEFORMABLE_VIT_CUDA=0')
nvcc = re.search(r'release ([\d.]+)', subprocess.check_output([f'{CUDA_HOME}/bin/nvcc', '--version'], text=True))[1]
if nvcc.split('.')[0] != torch.version.cuda.split('.')[0]:
    sys.exit(f'nvcc is of CUDA {nvcc}, torch of CUDA {torch.version.cuda}: install a toolkit of the same major version, '
             'or compile the CPU ops only with DEFORMABLE_VIT_CUDA=0')
arch = '-sm' + ''.join(map(str, torch.cuda.get_device_capability())) if torch.cuda.is_available() else ''
print('cu' + torch.version.cuda.replace('.', '') + arch)
PY
  ) || die 'the CUDA ops cannot be compiled (see above)'
elif [ -e /dev/nvidiactl ]; then
  say 'note: there is a GPU but no nvcc (or DEFORMABLE_VIT_CUDA=0): mmcv gets its CPU ops only'
fi
tag=$($python -c "import sys, torch; print('torch%s-cp%d%d' % (torch.__version__.split('+')[0], *sys.version_info[:2]))")
shelf=$wheels/$tag-$variant
version=$(pinned mmcv)
mkdir -p "$shelf"
exec 8>"$shelf/.lock"
flock -n 8 || { say 'another set-up is building mmcv; waiting for it'; flock 8; }
wheel=$(find "$shelf" -maxdepth 1 -name "mmcv-$version-*.whl" | head -1)
if [ -z "$wheel" ]; then
  command -v g++ >/dev/null || die 'no g++, which compiles mmcv. On Debian: apt-get install g++'
  # This directory stays until the wheel exists, so that an interrupted build continues.
  build=$shelf/build
  mkdir -p "$build"
  cores=$(nproc)
  memory=$(awk '/MemAvailable/ {print int($2 / 2097152)}' /proc/meminfo)  # a compiler takes up to 2 GB
  jobs=$((memory < 1 ? 1 : memory < cores ? memory : cores))
  say "building mmcv $version for $tag-$variant, once on this machine: about 2 minutes (with CUDA ops much longer); logs: $build/*.log"
  sdist=$build/sdist/mmcv-$version.tar.gz
  if [ ! -e "$sdist" ]; then
    rm -rf "$build/sdist.part"
    $python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary mmcv --no-build-isolation \
      -d "$build/sdist.part" "mmcv==$version" 2>"$build/download.log" || { cat "$build/download.log" >&2; die "mmcv $version cannot be downloaded (see above)"; }
    mv "$build/sdist.part" "$build/sdist"
  fi
  began=$SECONDS
  # In a session of its own, so that an interrupt stops the compilers too.
  setsid $python tools/build_mmcv.py "$sdist" "$build" --torch "$torch" --jobs "$jobs" $([ "$DEFORMABLE_VIT_CUDA" = 0 ] || echo --cuda) &
  pid=$!
  trap 'kill -- -$pid 2>/dev/null || true' EXIT
  wait $pid || die "mmcv was not built (see above)"
  trap - EXIT
  built=$(find "$build/out" -name "mmcv-$version-*.whl" | head -1)
  wheel=$shelf/$(basename "$built")
  mv "$built" "$wheel.part" && mv "$wheel.part" "$wheel"
  cat "$build"/*.log >"$shelf/build.log" && rm -rf "$build"
  say "built $wheel in $((SECONDS - began)) s"
fi
flock -u 8

# --- everything else -------------------------------------------------------------------------------------------------
install "installing $(basename "$wheel")" --no-deps --force-reinstall "$wheel"
grep -vE '^(torch|torchvision)==' requirements.txt >$venv/requirements.txt
install 'installing mmengine, mmdet, mmsegmentation, mmpretrain, the rest and this package (about half a minute)' \
  "torch==$torch" --no-build-isolation -r $venv/requirements.txt -e '.[dev]'
if ! $python -c 'import cv2' 2>/dev/null; then
  install 'OpenCV does not load (no libGL?): using its headless build' --force-reinstall --no-deps opencv-python-headless
fi
$python -c 'import deformable_vit' || die 'the package does not import (see above)'
echo "$wanted" >$venv/.ready
say "ready after $((SECONDS - start)) s"
