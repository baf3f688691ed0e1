#!/usr/bin/env bash
# Create .venv with the stack of requirements.txt, mmcv's compiled ops and this package. It can be called at any time: it
# does nothing when nothing is missing, and continues where an interrupted call stopped.
#
#   PYTHON=python3.12             the interpreter for .venv (default: the newest of 3.13, 3.12, 3.11)
#   TORCH=2.12.1                  another version of torch than the pinned one
#   STACK=onedl                   the maintained forks of OpenMMLab's packages, see requirements-onedl.txt
#   DEFORMABLE_VIT_WHEELS=DIR     where built mmcv wheels are kept (default: ~/.cache/deformable-vit/wheels)
#   DEFORMABLE_VIT_CUDA=0|1       whether to compile mmcv's CUDA ops (default: 1 if there is a GPU)
#   TORCH_CUDA_ARCH_LIST=9.0      the GPUs to compile them for (default: those of this machine)
#
# .venv keeps these settings, but for DEFORMABLE_VIT_WHEELS: `make setup STACK=onedl` is followed by plain `make demo`.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf '[setup] %s\n' "$*"; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }
lock() { flock -n "$1" || { say 'another set-up is running; waiting for it'; flock "$1"; }; }

venv=.venv
python=$venv/bin/python
setting() { sed -n "s/^$1=//p" $venv/.settings 2>/dev/null || true; }
settings=(PYTHON TORCH STACK DEFORMABLE_VIT_CUDA TORCH_CUDA_ARCH_LIST)
for name in "${settings[@]}"; do
  value=${!name:-$(setting "$name")}
  if [ -n "$value" ]; then export "$name=$value"; fi
done
wheels=${DEFORMABLE_VIT_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/deformable-vit/wheels}
stack=${STACK:-openmmlab}
case $stack in
  openmmlab) stack_file=requirements.txt mmcv=mmcv ;;
  onedl) stack_file=requirements-onedl.txt mmcv=onedl-mmcv ;;
  *) die "STACK=$stack is unknown: use openmmlab (the default) or onedl" ;;
esac
pinned() { sed -nE "s/^$1==([0-9.]+).*/\1/p" "${2:-requirements.txt}"; }
torch=${TORCH:-$(pinned torch)}
# For another torch, pip finds the torchvision that belongs to it.
torchvision=torchvision
[ "$torch" != "$(pinned torch)" ] || torchvision+="==$(pinned torchvision)"
# Without a network, give up in seconds.
export PIP_DEFAULT_TIMEOUT=${PIP_DEFAULT_TIMEOUT:-15} PIP_RETRIES=${PIP_RETRIES:-2}

exec 9>.setup.lock
lock 9

# The device node of a GPU answers at once; asking torch would take seconds on each call.
cuda=${DEFORMABLE_VIT_CUDA:-$([ -e /dev/nvidiactl ] && echo 1 || echo 0)}
[[ $cuda = [01] ]] || die "DEFORMABLE_VIT_CUDA=$cuda: use 1 to compile mmcv's CUDA ops, 0 for its CPU ops only"

# A virtual environment does not survive a move, and another interpreter or stack needs a new one.
made_for="$PWD python=${PYTHON:-} stack=$stack"
# Ready means: made from these files and settings.
wanted=$({ cat requirements.txt "$stack_file" pyproject.toml tools/dev/setup.sh tools/build_mmcv.py
  echo "$made_for torch=$torch cuda=$cuda ${TORCH_CUDA_ARCH_LIST:-}"; } | sha256sum)
if [ -x $python ] && [ "$(cat $venv/.ready 2>/dev/null)" = "$wanted" ]; then exit 0; fi
start=$SECONDS

# find_python: set $found to the first usable interpreter among $PYTHON, or the newest of 3.13, 3.12 and 3.11.
find_python() {
  local state reason='' candidates=${PYTHON:-python3.13 python3.12 python3.11 python3 python}
  for found in $candidates; do
    # Prints nothing for a usable interpreter.
    state=$("$found" - 2>/dev/null <<'PY'
import importlib.util, os, sys, sysconfig
name = 'python{}.{}'.format(*sys.version_info[:2])
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(1)
elif not all(map(importlib.util.find_spec, ('ensurepip', 'venv'))):
    print(name + ' has no venv. On Debian or Ubuntu: apt-get install ' + name + '-venv')
elif not os.path.exists(sysconfig.get_paths()['include'] + '/Python.h'):
    print(name + ' has no C headers (Python.h), which mmcv needs. On Debian or Ubuntu: apt-get install ' + name + '-dev')
PY
    ) || continue
    [ -n "$state" ] || return 0
    reason=${reason:-$state}
  done
  [ -z "$reason" ] || die "$reason; or name another Python: make setup PYTHON=/path/to/python3.12"
  die "no Python 3.11, 3.12 or 3.13 among: $candidates. On Debian or Ubuntu: apt-get install python3 python3-venv" \
    'python3-dev; or name one: make setup PYTHON=/path/to/python3.12'
}

# check_compiler: g++ with C++20, which the headers of torch need.
check_compiler() {
  command -v g++ >/dev/null || die 'no g++, which compiles mmcv. On Debian or Ubuntu: apt-get install g++'
  g++ -std=c++20 -fsyntax-only -x c++ - 2>/dev/null <<<'#include <compare>' ||
    die "$(g++ --version | head -1) does not compile C++20, which the headers of torch need: install g++ 11 or newer"
}

# explain_pip LOG WHAT: stop with the reason why pip failed.
explain_pip() {
  if grep -qE 'connection broken by|NewConnectionError|Max retries exceeded|Read timed out|ProxyError' "$1"; then
    die "pip cannot reach the package index for $2: check the network, HTTPS_PROXY and PIP_INDEX_URL; log: $1"
  elif grep -q 'No space left on device' "$1"; then
    die "the disk became full while pip was $2 (TMPDIR holds its temporary files, PIP_CACHE_DIR its downloads); log: $1"
  fi
  tail -15 "$1" >&2
  die "pip failed while $2 (see above); log: $1"
}

# install MESSAGE ARGS...: pip install, marked as a change in progress.
install() {
  local message=$1
  say "$1"; shift
  touch $venv/.changing
  $python -m pip install --disable-pip-version-check --progress-bar off "$@" >$venv/pip.log 2>&1 ||
    explain_pip $venv/pip.log "${message%% (*}"
  rm $venv/.changing
}

# suitable DIR: whether a CUDA toolkit has torch's major version, and the libraries whose headers torch includes.
suitable() {
  [ -x "$1/bin/nvcc" ] && [ -e "$1/include/cuda_runtime.h" ] && [ -e "$1/include/cusparse.h" ] &&
    "$1/bin/nvcc" --version | grep -q "release ${cuda_version%%.*}\."
}

# find_cuda: set the variables of a CUDA toolkit; without a suitable one, install the compiler from PyPI.
find_cuda() {
  local major=${cuda_version%%.*} package nvcc
  nvcc=$(command -v nvcc || true)
  for toolkit in "${CUDA_HOME:-}" "${CUDA_PATH:-}" "${nvcc%/bin/nvcc}" /usr/local/cuda ''; do
    if [ -n "$toolkit" ] && suitable "$toolkit"; then break; fi
  done
  if [ -z "$toolkit" ]; then
    [ "$major" -ge 13 ] || die "there is no CUDA $major toolkit for torch $torch: install one (for CUDA 13 and newer the" \
      'compiler comes from PyPI), or compile the CPU ops only with DEFORMABLE_VIT_CUDA=0'
    # Each in torch's minor version: a newer nvvm writes PTX that the older ptxas refuses.
    local packages=()
    for package in nvidia-cuda-nvcc nvidia-cuda-cccl nvidia-cuda-crt nvidia-nvvm; do packages+=("$package==$cuda_version.*"); done
    install "installing the compiler of CUDA $cuda_version from PyPI (100 MB)" "${packages[@]}"
    toolkit=$($python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")/nvidia/cu$major
    # The names under which torch and the linker look for libraries.
    ln -sfn lib "$toolkit/lib64"
    ln -sf "libcudart.so.$major" "$toolkit/lib/libcudart.so"
  fi
  export CUDA_HOME=$toolkit PATH=$toolkit/bin:$PATH CPATH=$toolkit/include/cccl${CPATH:+:$CPATH}
}

# --- the virtual environment -----------------------------------------------------------------------------------------
# $venv/.changing exists while packages are being written. Found at the start, it means that the last call was killed in
# the middle of that, and nobody knows what is half written: start again (packages come from pip's cache by then).
if [ -d $venv ] && { [ -e $venv/.changing ] || [ "$(cat $venv/.made_for 2>/dev/null)" != "$made_for" ]; }; then
  say 'the last set-up was interrupted, or the directory, PYTHON or STACK has changed: creating .venv again'
  rm -rf $venv
fi
new=
if ! $python -m pip --version >/dev/null 2>&1; then
  rm -rf $venv
  find_python
  new=$found
fi

version=$(pinned "$mmcv" "$stack_file")
wheel_name=${mmcv//-/_}-$version
cp=$(${new:-$python} -c "import sys; print('cp%d%d' % sys.version_info[:2])")
compgen -G "$wheels/torch${torch%%+*}-$cp-*/$wheel_name-*.whl" >/dev/null || check_compiler  # before any download

if [ -n "$new" ]; then
  say "creating .venv with $("$new" --version)"
  "$new" -m venv $venv
  echo "$made_for" >$venv/.made_for
fi
for name in "${settings[@]}"; do if [ -n "${!name:-}" ]; then echo "$name=${!name}"; fi; done >$venv/.settings

rm -f $venv/.ready
install "installing torch $torch and torchvision (1 to 5 minutes, 3 GB with CUDA libraries)" \
  "torch==$torch" "$torchvision" 'setuptools>=77,<80' wheel ninja packaging

# --- mmcv with its compiled ops --------------------------------------------------------------------------------------
# pip's own cache cannot keep this wheel: it is keyed by the source only, not by the torch that it was compiled for.
variant=cpu
if [ "$cuda" = 1 ]; then
  # Prints the tag of the wheel, the GPUs to compile for and torch's version of CUDA, or why there are none.
  if answer=$($python - <<'PY'
import os, re, sys, torch
archs = os.environ.get('TORCH_CUDA_ARCH_LIST', '').replace(';', ' ').split()
if torch.version.cuda is None:
    sys.exit(print(f'torch {torch.__version__} is a CPU build') or 1)
if not archs and not torch.cuda.is_available():
    sys.exit(print('torch can use no GPU here, and TORCH_CUDA_ARCH_LIST is not set, for example '
                   'TORCH_CUDA_ARCH_LIST="8.0 9.0" for A100 and H100') or 1)
archs = archs or ['%d.%d' % torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
archs = sorted(set(archs))
names = ['sm' + re.sub(r'\W', '', arch).lower() for arch in archs]
print('-'.join(['cu' + torch.version.cuda.replace('.', ''), *names]), ';'.join(archs), torch.version.cuda)
PY
  ); then
    read -r variant TORCH_CUDA_ARCH_LIST cuda_version <<<"$answer"
    export TORCH_CUDA_ARCH_LIST
  elif [ -n "${DEFORMABLE_VIT_CUDA:-}" ]; then
    die "DEFORMABLE_VIT_CUDA=1, but ${answer:-torch does not import}: correct that, or set DEFORMABLE_VIT_CUDA=0"
  else
    say "note: there is a GPU, but ${answer:-torch does not import}: mmcv gets its CPU ops only"
    cuda=0
  fi
fi

shelf=$wheels/torch${torch%%+*}-$cp-$variant
mkdir -p "$shelf"
exec 8>"$shelf/.lock"
lock 8
wheel=$(find "$shelf" -maxdepth 1 -name "$wheel_name-*.whl" | head -1)
if [ -z "$wheel" ]; then
  [ "$cuda" = 0 ] || find_cuda
  # This directory stays until the wheel exists, so that an interrupted build continues.
  build=$shelf/build-$wheel_name
  mkdir -p "$build"
  cores=$(nproc)
  # A C++ compiler takes up to 2 GB, that of CUDA 3.
  memory=$(awk -v each=$((cuda ? 3 : 2)) '/MemAvailable/ {print int($2 / 1048576 / each)}' /proc/meminfo)
  jobs=$((memory < 1 ? 1 : memory < cores ? memory : cores))
  say "building $mmcv $version for torch${torch%%+*}-$cp-$variant, once on this machine: 1 minute, with CUDA ops up to 10" \
    "minutes for each GPU model; logs: $build/*.log"
  sdist=$build/sdist/$wheel_name.tar.gz
  if [ ! -e "$sdist" ]; then
    rm -rf "$build/sdist.part"
    # pip runs mmcv's setup.py, which expects that locals() sees what exec defines; from Python 3.13 on it does not.
    mkdir -p "$build/shim"
    cat >"$build/shim/sitecustomize.py" <<'PY'
import builtins, sys
real = builtins.exec
caller = lambda: (sys._getframe(2).f_globals, sys._getframe(2).f_locals)
builtins.exec = lambda code, *namespaces: real(code, *(namespaces or caller()))
PY
    PYTHONPATH=$build/shim $python -m pip download --disable-pip-version-check --progress-bar off --no-deps --no-binary "$mmcv" \
      --no-build-isolation -d "$build/sdist.part" "$mmcv==$version" >"$build/download.log" 2>&1 ||
      explain_pip "$build/download.log" "downloading $mmcv"
    mv "$build/sdist.part" "$build/sdist"
  fi
  $python tools/build_mmcv.py "$sdist" "$build" --torch "$torch" --jobs "$jobs" $([ "$cuda" = 0 ] || echo --cuda) ||
    die 'mmcv was not built (see above)'
  mv "$build/out/$wheel_name"-*.whl "$shelf"
  rm -rf "$build"
  wheel=$(find "$shelf" -maxdepth 1 -name "$wheel_name-*.whl")
fi
flock -u 8

# --- everything else -------------------------------------------------------------------------------------------------
install "installing $(basename "$wheel")" --no-deps --force-reinstall "$wheel"
{
  grep -vE '^(torch|torchvision|mmengine|mmcv|mmdet|mmsegmentation|mmpretrain)==' requirements.txt
  grep -E '^[a-z-]+==' "$stack_file" | grep -vE '^(torch|torchvision)=='
} >$venv/requirements.txt
install "installing the other packages of $stack_file and this package (about half a minute)" \
  "torch==$torch" --no-build-isolation -r $venv/requirements.txt -e '.[dev]'
if ! $python -c 'import cv2' 2>/dev/null; then
  install 'OpenCV does not load (no libGL?): using its headless build' --force-reinstall --no-deps opencv-python-headless
fi
$python -c 'import deformable_vit, mmcv.ops' || die 'the package or mmcv does not import (see above)'
echo "$wanted" >$venv/.ready
say "ready after $((SECONDS - start)) s"
