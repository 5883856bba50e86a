#!/usr/bin/env bash
# Puts dnsfw into a folder of root's, for a job's guard: what runs as root must not be in reach of the job's user.
# Called by the action, as root. Done twice it finds all in place; interrupted it leaves nothing half-made.
#
#   scripts/install.sh PREFIX [CACHE]    PREFIX/bin/dnsfw; CACHE holds wheels and Debian packages of an earlier call
#   scripts/install.sh --fetch PREFIX CACHE    fill CACHE, as any user, with what PREFIX was made of
set -euo pipefail
cd "$(dirname "$0")/.."
rooms=(policy resolver firewall bpf proxy dnsfw)

say() { printf 'dnsfw install: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

# Wheels for this machine's Python, and the Debian packages that were missing.
fetch() {
  local prefix=$1 cache=$2
  mkdir -p "$cache/wheels" "$cache/packages"
  "$prefix/.venv/bin/python" -I -m pip --disable-pip-version-check download --quiet --no-deps --require-hashes \
    --no-build-isolation --dest "$cache/wheels" -r requirements/build.lock -r requirements/run.lock
  cp "$prefix"/packages/*.deb "$cache/packages/" 2>/dev/null || true
}

# A package's file is taken only if it is the one that the signed lists name: who could write the cache is nobody to trust.
take_packages() { # FROM TO
  local file name version
  for file in "$1"/*.deb; do
    [ -f "$file" ] || continue
    name=$(dpkg-deb -f "$file" Package) version=$(dpkg-deb -f "$file" Version)
    if apt-cache show "$name=$version" 2>/dev/null | grep -qx "SHA256: $(sha256sum <"$file" | cut -d' ' -f1)"; then
      cp "$file" "$2"
    else
      say "${file##*/} is not what the lists of packages name; left out"
    fi
  done
}

# Who may write to a folder above can put another in PREFIX's place, unless it is sticky, as /tmp is.
require_roots_alone() { # PREFIX
  local folder=$1
  while [ "$folder" != / ]; do
    folder=$(dirname "$folder")
    if [ -d "$folder" ] && [ -n "$(find "$folder" -maxdepth 0 \( ! -user 0 -o -perm /022 ! -perm -1000 \))" ]; then
      fail "others than root may write to $folder: install below a folder that is root's alone, such as /var/lib"
    fi
  done
}

# PREFIX/bin/dnsfw is made last: where it is, all is.
install() {
  prefix=$1 # not local: the trap reads it
  local cache=${2:-}
  [ "$(id -u)" = 0 ] || fail "only root may write to $prefix"
  require_roots_alone "$prefix"
  [ ! -x "$prefix/bin/dnsfw" ] || return 0
  umask 022
  rm -rf "$prefix"
  trap '[ -x "$prefix/bin/dnsfw" ] || rm -rf "$prefix"' EXIT
  trap 'exit 130' INT TERM
  mkdir -p "$prefix/bin" "$prefix/packages/partial"
  cp -r --no-preserve=ownership "${rooms[@]}" requirements scripts pyproject.toml README.md LICENSE "$prefix/"
  if [ -n "$cache" ] && [ -d "$cache" ]; then
    cp -r --no-preserve=all "$cache" "$prefix/.cache" # root's own copy: its hashes are checked, then it is read again
    find "$prefix/.cache" ! -type d ! -type f -delete # a link would lead to what is not
    take_packages "$prefix/.cache/packages" "$prefix/packages"
    export PIP_FIND_LINKS=$prefix/.cache/wheels PIP_NO_INDEX=1
  fi
  ARCHIVES=$prefix/packages "$prefix/scripts/setup.sh" guard
  rm -rf "$prefix/.cache"
  "$prefix/.venv/bin/python" -m compileall -q "${rooms[@]/#/"$prefix/"}"
  ln -s ../.venv/bin/dnsfw "$prefix/bin/dnsfw"
}

case ${1:-} in
  --fetch) fetch "${2:?PREFIX}" "${3:?CACHE}" ;;
  /*) install "$@" ;;
  *) fail "usage: scripts/install.sh PREFIX [CACHE] | --fetch PREFIX CACHE" ;;
esac
