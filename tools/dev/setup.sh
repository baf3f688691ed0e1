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
# shellcheck source=tools/dev/setup_checks.sh
. tools/dev/setup_checks.sh

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
# Versions that belong together; for another torch, pip chooses torchvision.
case $torch in
  "$(pinned torch)") torchvision="torchvision==$(pinned torchvision)" ;;
  2.12.1) torchvision=torchvision==0.27.1 ;;
  2.14.1) torchvision=torchvision==0.29.1 ;;
  *) torchvision=torchvision ;;
esac
# Without a network, give up in seconds.
export PIP_DEFAULT_TIMEOUT=${PIP_DEFAULT_TIMEOUT:-15} PIP_RETRIES=${PIP_RETRIES:-2}

exec 9>.setup.lock
flock -n 9 || { say 'another set-up is running in this directory; waiting for it'; flock 9; }

# The device node of a GPU answers at once; asking torch would take seconds on each call.
cuda=${DEFORMABLE_VIT_CUDA:-$([ -e /dev/nvidiactl ] && echo 1 || echo 0)}
[[ $cuda = [01] ]] || die "DEFORMABLE_VIT_CUDA=$cuda: use 1 to compile mmcv's CUDA ops, 0 for its CPU ops only"

# Ready means: made from these files and settings, in this directory (a virtual environment does not survive a move).
wanted=$({ cat requirements.txt "$stack_file" pyproject.toml tools/dev/setup*.sh tools/build_mmcv.py
  echo "$PWD torch=$torch python=${PYTHON:-} stack=$stack cuda=$cuda ${TORCH_CUDA_ARCH_LIST:-}"; } | sha256sum)
if [ -x $python ] && [ "$(cat $venv/.ready 2>/dev/null)" = "$wanted" ]; then exit 0; fi
start=$SECONDS

# --- the virtual environment -----------------------------------------------------------------------------------------
# $venv/.changing exists while packages are being written. Found at the start, it means that the last call was killed in
# the middle of that, and nobody knows what is half written: start again (packages come from pip's cache by then).
reason=
if [ -e $venv/.changing ]; then
  reason='the last set-up was interrupted while it installed packages'
elif [ -d $venv ] && [ "$(cat $venv/.directory 2>/dev/null)" != "$PWD" ]; then
  reason='.venv was created in another directory or by other means'
elif [ -d $venv ] && [ "$(setting PYTHON)" != "${PYTHON:-}" ]; then
  reason='PYTHON has changed'
elif [ -d $venv ] && [ "$stack" != "$({ setting STACK; echo openmmlab; } | head -1)" ]; then
  reason='STACK has changed'
fi
if [ -n "$reason" ]; then
  say "$reason: creating .venv again"
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
  echo "$PWD" >$venv/.directory
fi
for name in "${settings[@]}"; do if [ -n "${!name:-}" ]; then echo "$name=${!name}"; fi; done >$venv/.settings

# install MESSAGE ARGS...: pip install, marked as a change in progress; pip's messages are shown if it fails.
install() {
  local message=$1
  say "$1"; shift
  touch $venv/.changing
  $python -m pip install --disable-pip-version-check --progress-bar off "$@" >$venv/pip.log 2>&1 &
  local pid=$! began=$SECONDS next=30
  trap 'kill '$pid' 2>/dev/null || true' EXIT  # an interrupt does not reach background processes
  while kill -0 $pid 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - began)) -ge $next ]; then next=$((SECONDS - began + 30))
      say "  $((SECONDS - began)) s, $(du -sm $venv | cut -f1) MB in .venv"
    fi
  done
  trap - EXIT
  wait $pid || explain_pip $venv/pip.log "${message%% (*}"
  rm $venv/.changing
}

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
    suitable "$toolkit" || die "the compiler from PyPI is not complete in $toolkit: install a CUDA $major toolkit"
  fi
  export CUDA_HOME=$toolkit PATH=$toolkit/bin:$PATH CPATH=$toolkit/include/cccl${CPATH:+:$CPATH}
}

shelf=$wheels/torch${torch%%+*}-$cp-$variant
mkdir -p "$shelf"
exec 8>"$shelf/.lock"
flock -n 8 || { say 'another set-up is building mmcv; waiting for it'; flock 8; }
wheel=$(find "$shelf" -maxdepth 1 -name "$wheel_name-*.whl" | head -1)
if [ -z "$wheel" ]; then
  check_compiler
  [ "$cuda" = 0 ] || find_cuda
  # This directory stays until the wheel exists, so that an interrupted build continues.
  build=$shelf/build-$wheel_name
  mkdir -p "$build"
  cores=$(nproc)
  # A C++ compiler takes up to 2 GB, that of CUDA 3.
  memory=$(awk -v each=$((cuda ? 3 : 2)) '/MemAvailable/ {print int($2 / 1048576 / each)}' /proc/meminfo)
  jobs=$((memory < 1 ? 1 : memory < cores ? memory : cores))
  time='about 1 minute'
  if [ "$cuda" = 1 ]; then
    read -ra gpus <<<"${TORCH_CUDA_ARCH_LIST//;/ }"
    time="about $((8 * ${#gpus[@]} / jobs + 2)) minutes for $TORCH_CUDA_ARCH_LIST"
  fi
  say "building $mmcv $version for torch${torch%%+*}-$cp-$variant, once on this machine: $time; logs: $build/*.log"
  sdist=$build/sdist/$wheel_name.tar.gz
  if [ ! -e "$sdist" ]; then
    rm -rf "$build/sdist.part"
    # pip runs mmcv's setup.py, which expects that locals() sees what exec defines; from Python 3.13 on it does not.
    mkdir -p "$build/shim"
    cat >"$build/shim/sitecustomize.py" <<'PY'
import builtins, sys

def exec_in_caller(code, *namespaces, real=builtins.exec, **options):
    frame = sys._getframe(1)
    real(code, *(namespaces or (frame.f_globals, frame.f_locals)), **options)

builtins.exec = exec_in_caller
PY
    PYTHONPATH=$build/shim $python -m pip download --disable-pip-version-check --progress-bar off --no-deps --no-binary "$mmcv" \
      --no-build-isolation -d "$build/sdist.part" "$mmcv==$version" >"$build/download.log" 2>&1 ||
      explain_pip "$build/download.log" "downloading $mmcv"
    mv "$build/sdist.part" "$build/sdist"
  fi
  began=$SECONDS
  # In a session of its own, so that an interrupt stops the compilers too.
  setsid $python tools/build_mmcv.py "$sdist" "$build" --torch "$torch" --jobs "$jobs" $([ "$cuda" = 0 ] || echo --cuda) &
  pid=$!
  trap 'kill -- -$pid 2>/dev/null || true' EXIT
  wait $pid || die 'mmcv was not built (see above)'
  trap - EXIT
  built=$(find "$build/out" -name "$wheel_name-*.whl" | head -1)
  wheel=$shelf/$(basename "$built")
  mv "$built" "$wheel.part" && mv "$wheel.part" "$wheel"
  cat "$build"/*.log >"$shelf/build.log" && rm -rf "$build"
  say "built $wheel in $((SECONDS - began)) s"
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
