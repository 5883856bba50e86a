#!/usr/bin/env bash
# Makes this clone ready: Debian packages, a Python >=3.12, and the locked environment in .venv. Says what it installs;
# does nothing, silently, when all is there. May be interrupted: the next call repairs.
#
#   scripts/setup.sh          what dnsfw and its tests need
#   scripts/setup.sh bench    also the programs that bench/ compares it with
#   scripts/setup.sh docker   also Docker, unpacked, for the test that guards its containers (65 MB)
#   scripts/setup.sh fuzz     also the fuzzer, which `make fuzz` uses
#   scripts/setup.sh guard    only what dnsfw needs to run
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/python.sh

packages=(
  python3-bpfcc            # bcc: owners of sockets, by BPF
  nftables iptables        # the ruleset; the queue hand-over where nft lacks `queue`
  iproute2                 # interfaces, addresses and routes of namespaces
  gcc libc6-dev            # NetfilterQueue compiles, against
  libnetfilter-queue-dev libnfnetlink-dev
)
tested_with=(
  openssl                  # certificates of the demo's little internet
  curl wget                # the tests' web clients
  sudo                     # what the action takes from a job
)
locks=(build.lock run.lock dev.lock)
case ${1:-} in
  guard) locks=(build.lock run.lock) ;;
  bench) packages+=("${tested_with[@]}" dnsmasq-base dnsperf wrk) ;;
  *) packages+=("${tested_with[@]}") ;;
esac

log=.setup/log
stamp=.venv/dnsfw-setup  # what .venv was made of; written last, so a half-made one has none

say() { printf 'dnsfw set-up: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

# step TEXT COMMAND...: one line of progress, a dot every three seconds; the command's own words only if it fails.
step() {
  local text=$1 started=$SECONDS && shift
  printf 'dnsfw set-up: %s ' "$text"
  while sleep 3 && kill -0 $$ 2>/dev/null; do printf .; done 9>&- & local ticker=$!
  trap 'kill "$ticker" 2>/dev/null' EXIT
  local status=0
  "$@" >"$log" 2>&1 </dev/null 9>&- || status=$?
  kill "$ticker" 2>/dev/null || true
  trap - EXIT
  if [ $status != 0 ]; then echo failed; tail -n 25 "$log" >&2; return $status; fi
  printf 'done (%d s)\n' $((SECONDS - started))
}

# --- Debian packages ---

missing_packages() {
  local name installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
  for name in "${packages[@]}"; do grep -qx "installed $name" <<<"$installed" || echo "$name"; done
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# An unreachable foreign source is no reason to stop: what matters is whether the install that follows succeeds.
update_lists() { as_root apt-get update -q || true; }

install_packages() {
  local keep=()  # $ARCHIVES: where the packages' files are looked for, and left
  [ -z "${ARCHIVES:-}" ] || keep=(-o "Dir::Cache::Archives=$ARCHIVES" -o APT::Keep-Downloaded-Packages=true)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes -q --no-install-recommends "${keep[@]}" "$@"
}

distribution_has_python() {
  local version
  version=$(apt-cache policy python3 | awk '$1 == "Candidate:" {print $2}')
  dpkg --compare-versions "${version:-0}" ge 3.12
}

# install_missing PYTHON PACKAGE...: PYTHON is empty where none was found; then its packages come too.
install_missing() {
  local python=$1 && shift
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "needs Debian packages (${*:-python3-venv}); only root may install them, and" \
      "there is no sudo here. Call it as root once."
    say "uses sudo to install Debian packages"
    sudo true
  fi
  step "lists of Debian packages (apt-get update)" update_lists
  if [ -z "$python" ]; then
    set -- "$@" python3-venv
    ! distribution_has_python || set -- "$@" python3-dev
  fi
  step "Debian packages $* (apt-get install)" install_packages "$@" || fail "apt-get could not install them: see above"
}

# --- the environment ---
# Steps are joined by &&: where a function's status is looked at (`step`), bash ignores `set -e` inside it.

environment_key() {
  sha256sum "${locks[@]/#/requirements/}" scripts/setup.sh scripts/python.sh
  echo "$PWD ${PYTHON:-}"
}

# True where .venv was finished from these very locks and its interpreter and packages can still be loaded.
environment_is_whole() {
  [ "$(cat "$stamp" 2>/dev/null)" = "$(environment_key)" ] && .venv/bin/python -I - 2>/dev/null <<'PYTHON'
import re
from importlib.metadata import distribution, requires
import netfilterqueue  # the one that is compiled here, against a Debian library
for requirement in requires("dnsfw"):
    installed = distribution(re.match(r"[\w.-]+", requirement)[0])
    for line in installed.read_text("RECORD").splitlines():
        installed.locate_file(line.split(",")[0]).stat()
PYTHON
}

project_is_installed() { [ -x .venv/bin/dnsfw ] && cmp -s pyproject.toml .venv/dnsfw-pyproject.toml; }

pip() { PIP_USER=0 .venv/bin/python -I -m pip --disable-pip-version-check --no-input "$@"; }

make_environment() {
  "$1" -I -m venv --clear .venv &&
  pip install --require-hashes -r "requirements/${locks[0]}" &&
  pip install --require-hashes --no-build-isolation $(printf -- "-r requirements/%s " "${locks[@]:1}")
}

install_project() {
  pip install --no-deps --no-build-isolation --editable . &&
  { pip check || { echo "pyproject.toml asks for what the locks don't hold: make lock"; false; }; } &&
  cp pyproject.toml .venv/dnsfw-pyproject.toml
}

# --- the action's lint ---

action_lint_is_installed() { cmp -s action/package-lock.json action/node_modules/dnsfw-package-lock.json; }

# Into action/node_modules, by the Node of .venv; its scripts are not run.
install_action_lint() {
  (cd action && PATH=$PWD/../.venv/bin:$PATH npm ci --ignore-scripts --no-audit --no-fund) &&
  cp action/package-lock.json action/node_modules/dnsfw-package-lock.json
}

# --- nginx, a server under test ---

nginx_is_there() { [ -x .setup/nginx/usr/sbin/nginx ] || command -v nginx || [ -x /usr/sbin/nginx ]; } >/dev/null

# Unpacked, not installed: an installed one begins to serve on port 80.
unpack_nginx() (
  rm -rf .setup/nginx && mkdir .setup/nginx && cd .setup/nginx &&
  { apt-get download -q nginx || { update_lists && apt-get download -q nginx; }; } &&
  dpkg-deb -x nginx_*.deb .
)

# --- containerd, whose word is asked for ---

containerd_is_there() { [ -x .setup/containerd/usr/bin/containerd ] || command -v containerd; } >/dev/null

# Unpacked, not installed: an installed one begins to serve. Of 100 MB, the daemon alone.
unpack_containerd() (
  rm -rf .setup/containerd && mkdir .setup/containerd && cd .setup/containerd &&
  { apt-get download -q containerd || { update_lists && apt-get download -q containerd; }; } &&
  dpkg-deb --fsys-tarfile containerd_*.deb | tar -x ./usr/bin/containerd && rm containerd_*.deb
)

# --- the fuzzer ---

fuzzer_is_there() { cmp -s requirements/fuzz.lock .setup/fuzz/dnsfw-fuzz.lock; }

# Beside .venv, which stays as small as it is.
install_fuzzer() {
  rm -rf .setup/fuzz &&
  pip install --require-hashes --no-deps --target .setup/fuzz -r requirements/fuzz.lock &&
  cp requirements/fuzz.lock .setup/fuzz/dnsfw-fuzz.lock
}

# --- Docker, whose containers are guarded ---

docker_is_there() { [ -x .setup/docker/usr/sbin/dockerd ]; }

# Unpacked, not installed, as above.
unpack_docker() (
  rm -rf .setup/docker && mkdir .setup/docker && cd .setup/docker && update_lists &&
  apt-get download -q docker.io containerd runc &&
  for package in *.deb; do dpkg-deb -x "$package" . && rm "$package" || exit 1; done
)

# --- OpenSnitch, which bench/ compares with ---

opensnitch_is_there() { [ -x .setup/opensnitch/usr/bin/opensnitchd ]; }

# Unpacked, not installed: an installed one begins to filter this machine's packets.
unpack_opensnitch() (
  rm -rf .setup/opensnitch && mkdir .setup/opensnitch && cd .setup/opensnitch &&
  { apt-get download -q opensnitch || { update_lists && apt-get download -q opensnitch; }; } &&
  dpkg-deb -x opensnitch_*.deb .
)

# --- all of it ---

main() {
  command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
    fail "knows Debian and Ubuntu only. Elsewhere install what they call: ${packages[*]}; and a Python >=3.12."
  mkdir -p .setup
  exec 8>&2           # a step's output goes to the log, an interrupted step's last words here
  exec 9>.setup/lock  # two calls at once: the second waits and finds all done
  flock 9
  trap '{ echo; fail "interrupted; the next call begins again"; } >&8 2>&8' INT TERM

  local missing python=.venv/bin/python
  mapfile -t missing < <(missing_packages)
  local whole=no
  if environment_is_whole; then whole=yes; else python=$(find_python) || python=; fi

  if [ -z "$python" ] || [ ${#missing[@]} != 0 ]; then install_missing "$python" "${missing[@]}"; fi
  if [ -z "$python" ] && ! python=$(find_python); then
    step "Python $MANAGED_PYTHON into .setup/python (none >=3.12 here; fetched by uv)" fetch_python ||
      fail "no Python >=3.12, and uv could not fetch one: install one and call: make setup PYTHON=/path/to/python3.12"
    python=$(find_python) || fail "the Python that uv fetched can't be used: see $log"
  fi
  if [ $whole = no ]; then
    step "Python packages of requirements/*.lock into .venv ($("$python" -V))" make_environment "$python" ||
      fail "could not make .venv: see above"
    environment_key >"$stamp"
  fi
  project_is_installed || step "dnsfw itself, editable: .venv/bin/dnsfw" install_project || fail "see above"
  [ "${1:-}" = guard ] || nginx_is_there || step "nginx into .setup/nginx (apt-get download)" unpack_nginx ||
    fail "could not unpack it: see above"
  [ "${1:-}" = guard ] || containerd_is_there || step "containerd into .setup/containerd (apt-get download)" \
    unpack_containerd || say "containerd could not be had; what is asked of a real one is left out"
  [ "${1:-}" != docker ] || docker_is_there || step "Docker into .setup/docker (apt-get download)" unpack_docker ||
    fail "could not unpack it: see above"
  [ "${1:-}" != bench ] || opensnitch_is_there || step "OpenSnitch into .setup/opensnitch (apt-get download)" \
    unpack_opensnitch || say "OpenSnitch could not be had; what is compared with it is left out"
  [ "${1:-}" != fuzz ] || fuzzer_is_there || step "the fuzzer into .setup/fuzz" install_fuzzer || fail "see above"
  [ "${1:-}" = guard ] || action_lint_is_installed || step "ESLint for action/ (npm ci)" install_action_lint || fail "see above"
}

main "$@"
