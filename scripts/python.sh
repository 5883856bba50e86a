# Sourced by setup.sh and lock.sh: finds a Python that can run dnsfw, or makes uv fetch one. Installs no Debian package.

MANAGED_PYTHON=3.12   # what uv fetches where the machine has nothing newer than 3.11

# The interpreters worth a try, best known first; $PYTHON goes before all. pyenv's shims may be on PATH and fail when
# run, so its versions are listed too.
python_candidates() {
  local name
  [ -z "${PYTHON:-}" ] || command -v "$PYTHON" || true
  for name in python3.12 python3.13 python3; do type -aP "$name" || true; done
  for name in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3 "$PWD"/.setup/python/*/bin/python3; do
    [ ! -x "$name" ] || echo "$name"
  done
}

# Prints the real path of the first candidate that is >=3.12, can make a virtual environment and has its C headers.
find_python() {
  local candidate
  while read -r candidate; do
    "$candidate" -I - 2>/dev/null <<'PYTHON' && return
import ensurepip, os, sys, sysconfig, venv
headers = os.path.join(sysconfig.get_path("include"), "Python.h")
if sys.version_info < (3, 12) or not os.path.exists(headers):
    sys.exit(1)
print(os.path.realpath(sys.executable))
PYTHON
  done < <(python_candidates)
  return 1
}

# Makes .setup/uv/bin/uv, at its locked version. Any Python that makes virtual environments will do for that.
install_uv() {
  local lock=requirements/uv.lock
  [ -x .setup/uv/bin/uv ] && cmp -s "$lock" .setup/uv/installed.lock && return
  "$(find_python || echo /usr/bin/python3)" -I -m venv --clear .setup/uv &&
  .setup/uv/bin/python -I -m pip --disable-pip-version-check install --quiet --require-hashes -r "$lock" &&
  cp "$lock" .setup/uv/installed.lock
}

# Fetches a Python into .setup/python; find_python sees it there.
fetch_python() {
  install_uv && UV_PYTHON_INSTALL_DIR=$PWD/.setup/python .setup/uv/bin/uv python install --no-bin "$MANAGED_PYTHON"
}
