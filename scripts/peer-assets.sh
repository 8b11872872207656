#!/bin/sh
# Prints the directory of the real peers of the tests: haproxy and nginx, which read what the PROXY protocol says.
#
# Those of the machine are used where both are installed. Otherwise Debian's packages are fetched, verified by apt, and
# unpacked into a cache outside the repository: installing them would start two servers on the machine. No root is
# needed.
#
# Usage: sh scripts/peer-assets.sh [prepare]. Exit code 1, with one line that says why, when there are none.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf 'peer-assets: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

programs='haproxy nginx'
# Packages, and the libraries that a small machine may lack; which of them are needed shows when the programs run.
packages='haproxy nginx liblua5.3-0 libpcre2-8-0 libopentracing-c-wrapper0 libopentracing1 libssl3 libstdc++6'

runs() { "$1/haproxy" -v >/dev/null 2>&1 && "$1/nginx" -v >/dev/null 2>&1; }

cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/kube-userspace-proxy
assets=$cache/peers-$(cksum <"$0" | cut -d' ' -f1)
if runs "$assets"; then
  echo "$assets"
  exit 0
fi
[ "${1:-}" = prepare ] || die "none in $assets; sh scripts/peer-assets.sh prepare puts them there"

mkdir -p "$cache"
exec 9>"$assets.lock"
command -v flock >/dev/null 2>&1 && flock 9
work=$assets.build
rm -rf "$work" "$assets"
mkdir -p "$work/packages" "$work/root"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

own=yes
for program in $programs; do command -v "$program" >/dev/null 2>&1 || own=no; done
if [ "$own" = yes ]; then
  for program in $programs; do ln -s "$(command -v "$program")" "$work/$program"; done
else
  command -v apt-get >/dev/null 2>&1 || die "not a Debian machine: install $programs"
  fetch() (cd "$work/packages" && apt-get -q -o APT::Sandbox::User="$(id -un)" download $packages) # a list of names
  fetch >"$assets.log" 2>&1 || { apt-get update -q >>"$assets.log" 2>&1 && fetch >>"$assets.log" 2>&1; } ||
    die "cannot fetch $packages (see $assets.log)"
  for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$work/root"; done
  rm -rf "$work/packages"
  libraries=$(find "$work/root" -name '*.so.*' -exec dirname {} \; | sort -u | sed "s,^$work,$assets," | paste -sd:)
  for program in $programs; do
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/root/usr/sbin/%s "$@"\n' "$libraries" "$assets" "$program" \
      >"$work/$program"
    chmod +x "$work/$program"
  done
fi
trap - EXIT
mv "$work" "$assets"
runs "$assets" || die "what is in $assets does not run"
echo "$assets"
