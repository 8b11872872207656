#!/bin/sh
# Prints the directory of a real control plane for test/cluster/: etcd, kube-apiserver, kube-controller-manager.
#
#   1. $KUBEBUILDER_ASSETS where it is set: ready-made binaries of any version.
#   2. Otherwise a cache outside the repository, below ${XDG_CACHE_HOME:-~/.cache}/kube-userspace-proxy. What this
#      file has built is used as long as this file stays the same.
#   3. With `prepare`, what the cache lacks is built from Debian's source package `kubernetes` by Debian's Go
#      (about five minutes on two cores, 3 GB of disk while it runs, 250 MB after it). Nothing is installed and
#      no root is needed: the packages are fetched, verified by apt, and unpacked below the cache.
#
# Usage: sh scripts/cluster-assets.sh [prepare]. Exit code 1, with one line that says why, when there are none.
set -eu

say() { printf 'cluster-assets: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

programs='etcd kube-apiserver kube-controller-manager'
is_complete() {
  for program in $programs; do [ -x "$1/$program" ] || return 1; done
}

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  is_complete "$KUBEBUILDER_ASSETS" || die "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS lacks one of: $programs"
  echo "$KUBEBUILDER_ASSETS"
  exit 0
fi

cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/kube-userspace-proxy
assets=$cache/control-plane-$(cksum <"$0" | cut -d' ' -f1)
if is_complete "$assets"; then
  touch "$assets"
  echo "$assets"
  exit 0
fi
[ "${1:-}" = prepare ] || die "none in $assets; sh scripts/cluster-assets.sh prepare builds them"

# --- build ----------------------------------------------------------------------------------------------------

for tool in apt-get dpkg-deb tar flock; do
  command -v "$tool" >/dev/null 2>&1 || die "'$tool' is missing: on a machine that is not Debian set KUBEBUILDER_ASSETS"
done

work=$assets.build
mkdir -p "$work"
exec 9>"$assets.lock"
flock -n 9 || { say "waiting for another build" && flock 9; }
if is_complete "$assets"; then
  echo "$assets"
  exit 0
fi
rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/packages" "$work/root" "$work/bin"
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
log=$assets.log
: >"$log"

step() {
  say "$1"
  shift
  "$@" >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    die "failed: $* (the whole log: $log)"
  }
}

# The machine's own list of packages must know Debian's archive, whose source packages are then asked for in a
# list of our own: the machine's lists and sources stay as they are.
releases() { apt-get indextargets --format '$(SITE) $(RELEASE)' 'Origin: Debian' 'Created-By: Packages' | sort -u; }
[ -n "$(releases)" ] || step "refreshing apt's lists" apt-get update -q
releases | sed 's/^/deb-src /; s/$/ main/' >"$work/sources.list"
[ -s "$work/sources.list" ] || die "apt knows no Debian archive (see /etc/apt/sources.list)"

apt_source() {
  apt-get -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$work/lists" -o APT::Sandbox::User="$(id -un)" "$@"
}
fetch() {
  apt_source update && cd "$work/packages" && apt_source source --download-only kubernetes &&
    apt-get -q -o APT::Sandbox::User="$(id -un)" download golang-1.19-go golang-1.19-src etcd-server \
      golang-github-modern-go-reflect2-dev
}
unpack() {
  for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$work/root"; done
  tree=$work/go/src/k8s.io/kubernetes
  mkdir -p "$tree"
  tar -xzf "$work"/packages/kubernetes_*.orig.tar.gz --strip-components=1 -C "$tree"
  # The one that comes with it corrupts memory when built by Go 1.18 or newer (modern-go/reflect2 issue 24).
  rm -rf "$tree/vendor/github.com/modern-go/reflect2"
  cp -r "$work/root/usr/share/gocode/src/github.com/modern-go/reflect2" "$tree/vendor/github.com/modern-go/"
}
in_tree() (
  cd "$work/go/src/k8s.io/kubernetes"
  export GOROOT="$work/root/usr/lib/go-1.19" GOPATH="$work/go" GOCACHE="$work/gocache" TMPDIR="$work" HOME="$work"
  # The tree is older than today's module checks; it holds all it needs under vendor/.
  export GO111MODULE=off CGO_ENABLED=0 GOFLAGS= GOPROXY=off
  PATH=$GOROOT/bin:$PATH
  "$@"
)
# The source package leaves pkg/generated/openapi out: it is made from every package that is tagged for it.
generate_openapi() {
  go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  printf '/*\n*/\n' >"$work/boilerplate"
  packages=$(
    grep -rlE '^// \+k8s:openapi-gen=' --include='*.go' pkg cmd staging/src/k8s.io/api staging/src/k8s.io/apimachinery \
      staging/src/k8s.io/apiserver staging/src/k8s.io/kube-aggregator staging/src/k8s.io/apiextensions-apiserver \
      staging/src/k8s.io/client-go | grep -v _test.go | xargs -n1 dirname | sort -u |
      sed 's,^staging/src/,k8s.io/kubernetes/vendor/,; s,^\(pkg\|cmd\),k8s.io/kubernetes/\1,' | paste -sd,
  )
  "$work/openapi-gen" -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h "$work/boilerplate" -r "$work/openapi-report"
}
# kube-proxy is there for bench/, as the peer to compare with.
build() {
  go build -ldflags '-s -w' -o "$work/bin/" ./cmd/kube-apiserver ./cmd/kube-controller-manager ./cmd/kube-proxy
}

say "building a control plane for the cluster tests, once, into $assets"
step "fetching the packages" fetch
step "unpacking them" unpack
step "generating the OpenAPI definitions" in_tree generate_openapi
step "compiling kube-apiserver, kube-controller-manager and kube-proxy (minutes)" in_tree build
cp "$work/root/usr/bin/etcd" "$work/bin/"
# What earlier versions of this file have left and nobody has asked for in a month.
find "$cache" -maxdepth 1 -name 'control-plane-*' -mtime +30 -exec rm -rf {} +
rm -rf "$assets"
mv "$work/bin" "$assets"
is_complete "$assets" || die "the build ended without one of: $programs"
echo "$assets"
