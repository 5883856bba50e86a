#!/usr/bin/env bash
# Remakes requirements/*.lock from pyproject.toml: exact versions and hashes for Python >=3.12 on every Linux, and
# no address of any index, so that each machine asks the index that its own pip is configured for.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/python.sh

install_uv

compile() {  # compile NAME SOURCE...: writes requirements/NAME.lock
  local lock=requirements/$1.lock && shift
  .setup/uv/bin/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --upgrade \
    --no-annotate --no-header --no-emit-index-url --no-emit-find-links "$@" --output-file "$lock.new"
  { echo "# Made by \`make lock\` from pyproject.toml; do not edit."; cat "$lock.new"; } >"$lock"
  rm "$lock.new"
  echo "$lock: $(grep -c == "$lock") packages"
}

compile uv --group uv
compile fuzz --group fuzz
compile run pyproject.toml
compile build --group build --constraint requirements/run.lock
compile dev --group dev --constraint requirements/run.lock --constraint requirements/build.lock
