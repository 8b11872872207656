#!/bin/sh
# Everything a change must pass: format, lint, types, then every test. All steps run even when an earlier one
# failed, so that one run shows all there is to mend; the exit code is 0 only when all of them passed.
# Arguments go to vitest: npm test -- test/netns
set -u
cd "$(dirname "$0")/.." || exit 1
PATH=$PWD/node_modules/.bin:$PATH:/usr/sbin:/sbin # iptables and ip: not on every PATH of root after a plain `su`
failed=

step() {
  name=$1
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  "$@" || failed="$failed $name"
}

step format biome format
step lint oxlint --type-aware --deny-warnings
step types tsc
[ "$#" -gt 0 ] || step native sh scripts/native-test.sh
step tests vitest run "$@"

why=$(sh scripts/cluster-assets.sh 2>&1 >/dev/null) || printf '\nleft out: the tests in test/cluster (%s)\n' "$why" >&2

[ -z "$failed" ] || {
  printf '\nfailed:%s\n' "$failed" >&2
  exit 1
}
