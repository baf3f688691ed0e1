#!/usr/bin/env bash
# Set up .venv with the stack of requirements.txt, mmcv's compiled ops and this package. Safe to call at any time: it
# does nothing when nothing is missing, and a call that was killed is picked up by the next one.
#
#   PYTHON=python3.11             the interpreter to make .venv with
#   DEFORMABLE_VIT_WHEELS=DIR     where built mmcv wheels are kept (default: ~/.cache/deformable-vit/wheels)
#   DEFORMABLE_VIT_CUDA=0|1       build mmcv's CUDA ops or not (default: 1 where there are both a GPU and nvcc)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '[setup] %s\n' "$*"; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

venv=.venv
python=$venv/bin/python
wheels=${DEFORMABLE_VIT_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/deformable-vit/wheels}

exec 9>.setup.lock
flock -n 9 || { say 'another set-up is running in this folder; waiting for it'; flock 9; }

if [ -z "${DEFORMABLE_VIT_CUDA:-}" ]; then
  # A GPU's device node answers at once; asking torch would cost seconds on each call.
  if [ -e /dev/nvidiactl ] && { command -v nvcc || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; } >/dev/null; then DEFORMABLE_VIT_CUDA=1; else DEFORMABLE_VIT_CUDA=0; fi
fi

# Ready means: made from these very files, in this very folder (a virtual environment does not survive a move).
wanted=$({ cat requirements.txt pyproject.toml tools/setup.sh; echo "$PWD cuda=$DEFORMABLE_VIT_CUDA"; } | sha256sum)
if [ -x $python ] && [ "$(cat $venv/.ready 2>/dev/null)" = "$wanted" ]; then exit 0; fi
start=$SECONDS

# --- the virtual environment -----------------------------------------------------------------------------------------
# $venv/.changing stands while packages are being written. Found at the start, it means that the last call was killed
# in the middle of that, and nobody knows what is half written: begin anew (packages come from pip's cache by then).
if [ -e $venv/.changing ]; then
  say 'the last set-up was interrupted while it installed packages: making .venv anew'
  rm -rf $venv
fi
if [ -d $venv ] && [ "$(cat $venv/.place 2>/dev/null)" != "$PWD" ]; then
  say '.venv was made in another folder (or by other means): making it anew'
  rm -rf $venv
fi
if ! $python -m pip --version >/dev/null 2>&1; then
  rm -rf $venv
  found=
  for candidate in ${PYTHON:-python3.11 python3 python}; do
    if command -v "$candidate" >/dev/null && "$candidate" - 2>/dev/null <<'PY'
import ensurepip, os, sys, sysconfig, venv
sys.exit(not (sys.version_info[:2] == (3, 11) and os.path.exists(sysconfig.get_paths()['include'] + '/Python.h')))
PY
    then found=$candidate; break; fi
  done
  [ -n "$found" ] || die "no usable Python 3.11 among: ${PYTHON:-python3.11 python3 python} (it needs venv and its C" \
    "headers). On Debian: apt-get install python3.11-venv python3.11-dev; or name one: make setup PYTHON=/path/to/python3.11"
  say "making .venv with $("$found" --version)"
  "$found" -m venv $venv
  echo "$PWD" >$venv/.place
fi

install() {  # install SAY ARGS...: pip install, marked as a change under way
  say "$1"; shift
  touch $venv/.changing
  $python -m pip install --quiet --disable-pip-version-check "$@"
  rm $venv/.changing
}
pinned() { grep -oE "^$1==[0-9.]+" requirements.txt; }

rm -f $venv/.ready
install "installing $(pinned torch) and $(pinned torchvision) (1 to 5 minutes, 3 GB with CUDA libraries)" \
  "$(pinned torch)" "$(pinned torchvision)" 'setuptools<80' wheel ninja

# --- mmcv with its compiled ops --------------------------------------------------------------------------------------
# pip's own cache cannot keep this wheel: it is keyed by the source alone, not by the torch that it was compiled for.
flavour=cpu
if [ "$DEFORMABLE_VIT_CUDA" = 1 ]; then
  flavour=$($python - <<'PY'
import re, subprocess, sys, torch
from torch.utils.cpp_extension import CUDA_HOME
if CUDA_HOME is None:
    sys.exit('DEFORMABLE_VIT_CUDA=1, but there is no CUDA toolkit: install it, or set DEFORMABLE_VIT_CUDA=0')
if torch.version.cuda is None:
    sys.exit(f'DEFORMABLE_VIT_CUDA=1, but torch {torch.__version__} is a CPU build: set DEFORMABLE_VIT_CUDA=0')
nvcc = re.search(r'release ([\d.]+)', subprocess.check_output([f'{CUDA_HOME}/bin/nvcc', '--version'], text=True))[1]
if nvcc.split('.')[0] != torch.version.cuda.split('.')[0]:
    sys.exit(f'nvcc is of CUDA {nvcc}, torch of CUDA {torch.version.cuda}: install a toolkit of the same major version, '
             'or build ops for the CPU alone with DEFORMABLE_VIT_CUDA=0')
arch = '-sm' + ''.join(map(str, torch.cuda.get_device_capability())) if torch.cuda.is_available() else ''
print('cu' + torch.version.cuda.replace('.', '') + arch)
PY
  ) || die 'the CUDA ops cannot be built (see above)'
elif [ -e /dev/nvidiactl ]; then
  say 'note: there is a GPU but no nvcc (or DEFORMABLE_VIT_CUDA=0): mmcv gets its CPU ops only'
fi
tag=$($python -c "import sys, torch; print('torch%s-cp%d%d' % (torch.__version__.split('+')[0], *sys.version_info[:2]))")
shelf=$wheels/$tag-$flavour
version=$(pinned mmcv); version=${version#mmcv==}
mkdir -p "$shelf"
exec 8>"$shelf/.lock"
flock -n 8 || { say 'another set-up is building mmcv; waiting for it'; flock 8; }
wheel=$(find "$shelf" -maxdepth 1 -name "mmcv-$version-*.whl" | head -1)
if [ -z "$wheel" ]; then
  command -v g++ >/dev/null || die 'no g++: mmcv is compiled here. On Debian: apt-get install g++'
  # Compiled in a folder that stays until the wheel is there, so that a killed build goes on where it stopped.
  build=$shelf/build
  mkdir -p "$build"
  cores=$(nproc)
  memory=$(awk '/MemAvailable/ {print int($2 / 2097152)}' /proc/meminfo)  # a compiler takes up to 2 GB
  jobs=$((memory < 1 ? 1 : memory < cores ? memory : cores))
  say "building mmcv $version for $tag-$flavour, once on this machine: about $((18 / jobs + 1)) minutes with $jobs jobs" \
    "(CUDA ops: twice that); log: $build/log"
  if [ ! -e "$build/mmcv-$version/setup.py" ]; then
    rm -rf "$build/sdist" && $python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary mmcv \
      --no-build-isolation -d "$build/sdist" "mmcv==$version"
    rm -rf "$build/unpacked" && mkdir "$build/unpacked" && tar -xf "$build/sdist/mmcv-$version.tar.gz" -C "$build/unpacked"
    mv "$build/unpacked/mmcv-$version" "$build/"
  fi
  rm -rf "$build/out"
  path=$PWD/$venv/bin:$PATH  # ninja
  setsid env PATH="$path" MMCV_WITH_OPS=1 FORCE_CUDA="$DEFORMABLE_VIT_CUDA" MAX_JOBS="$jobs" $python -m pip wheel --verbose \
    --disable-pip-version-check --no-build-isolation --no-deps -w "$build/out" "$build/mmcv-$version" >"$build/log" 2>&1 &
  pid=$!
  trap 'kill -- -$pid 2>/dev/null || true' EXIT  # the compilers too
  began=$SECONDS
  while kill -0 $pid 2>/dev/null; do
    sleep 2
    now=$(grep -oE '^ *\[[0-9]+/[0-9]+\]' "$build/log" | tail -1 | tr -d ' ' || true)
    if [ -n "$now" ] && [ "$now" != "${shown:-}" ] && [ $((SECONDS - ${last:-0})) -ge 30 ]; then
      say "  mmcv $now files compiled, $((SECONDS - began)) s"; shown=$now; last=$SECONDS
    fi
  done
  trap - EXIT
  wait $pid || { tail -30 "$build/log" >&2; die "mmcv did not build; the whole log is $build/log"; }
  built=$(find "$build/out" -name "mmcv-$version-*.whl" | head -1)
  # Without torch in sight mmcv's setup.py skips the ops and still succeeds, so look.
  listing=$($python -m zipfile -l "$built")
  [[ $listing =~ mmcv/_ext[^/]*\.so ]] || die "the mmcv wheel has no compiled ops; log: $build/log"
  wheel=$shelf/$(basename "$built")
  mv "$built" "$wheel.part" && mv "$wheel.part" "$wheel"
  cp "$build/log" "$shelf/build.log" && rm -rf "$build"
  say "built $wheel in $((SECONDS - began)) s"
fi
flock -u 8

# --- everything else -------------------------------------------------------------------------------------------------
install "installing $(basename "$wheel")" --no-deps --force-reinstall "$wheel"
install 'installing mmengine, mmdet, mmsegmentation, mmpretrain, the rest and this package (about half a minute)' \
  --no-build-isolation -r requirements.txt -e '.[dev]'
if ! $python -c 'import cv2' 2>/dev/null; then
  install 'OpenCV does not load (no libGL?): using its headless build' --force-reinstall --no-deps opencv-python-headless
fi
$python -c 'import deformable_vit' || die 'the package does not import (see above)'
echo "$wanted" >$venv/.ready
say "ready after $((SECONDS - start)) s"
