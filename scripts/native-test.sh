#!/bin/sh
# The native core by itself, without Node: builds the programs of native/test/ and runs each of them shortly. `npm test`
# does it; without a compiler it says so and does nothing. scripts/native-sanitizers.sh runs them longer.
#
# Usage: sh scripts/native-test.sh [<argument of fuzz> ...], by default --seconds 4
set -eu
cd "$(dirname "$0")/.."

out=$PWD/.cache/native-test/plain
log=.cache/native-test.log
compiler=${CXX:-g++}
if ! command -v "${compiler%% *}" >/dev/null 2>&1 || ! command -v make >/dev/null 2>&1; then
  echo "native-test: left out, because g++ or make is missing" >&2
  exit 0
fi

mkdir -p .cache
make -C native/test --no-print-directory -j"$(getconf _NPROCESSORS_ONLN)" CXX="$compiler" OUT="$out" programs \
  >"$log" 2>&1 || {
  cat "$log" >&2
  exit 1
}

[ "$#" -gt 0 ] || set -- --seconds 4
"$out/wheel_test"
"$out/udp_check"
"$out/pressure"
"$out/fuzz" "$@"
