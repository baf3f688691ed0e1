# What setup.sh, which sources this file, needs from a machine: Python with its headers, a C++ compiler, a package index.
# Each function stops with one line that says what is missing and what to install.

# find_python: set $found to the first usable interpreter among $PYTHON, or the newest of 3.13, 3.12 and 3.11.
find_python() {
  local candidate state reason='' candidates=${PYTHON:-python3.13 python3.12 python3.11 python3 python}
  found=
  for candidate in $candidates; do
    command -v "$candidate" >/dev/null || continue
    state=$("$candidate" - 2>/dev/null <<'PY'
import importlib.util, os, sys, sysconfig
name = 'python{}.{}'.format(*sys.version_info[:2])
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    print('unsupported')
elif not all(map(importlib.util.find_spec, ('ensurepip', 'venv'))):
    print(name + ' has no venv. On Debian or Ubuntu: apt-get install ' + name + '-venv')
elif not os.path.exists(sysconfig.get_paths()['include'] + '/Python.h'):
    print(name + ' has no C headers (Python.h), which mmcv needs. On Debian or Ubuntu: apt-get install ' + name + '-dev')
else:
    print('usable')
PY
    ) || continue
    case $state in
      usable) found=$candidate; return ;;
      python*) reason=${reason:-$state} ;;
    esac
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
  local package
  if grep -qE 'connection broken by|NewConnectionError|Max retries exceeded|Read timed out|ProxyError' "$1"; then
    die "pip cannot reach the package index for $2: check the network, and HTTPS_PROXY or PIP_INDEX_URL if you use them; log: $1"
  elif grep -q 'No space left on device' "$1"; then
    die "the disk became full while pip was $2 (TMPDIR holds its temporary files, PIP_CACHE_DIR its downloads); log: $1"
  elif package=$(sed -nE 's/^ERROR: No matching distribution found for ([^ ]+).*/\1/p' "$1" | head -1) && [ -n "$package" ]; then
    die "the package index has no $package for $($python --version 2>&1) on this machine; log: $1"
  fi
  tail -15 "$1" >&2
  die "pip failed while $2; the whole log is $1"
}
