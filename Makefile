# What each target does: make help
.PHONY: help setup demo test lint types layers bench lock schema fuzz
SHELL := /bin/bash
BIN := .venv/bin
# Namespaces, nft and BPF want root.
ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)

help:  ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup:  ## install what dnsfw needs: Debian packages, Python >=3.12, the locked environment in .venv
	@scripts/setup.sh

demo: setup  ## a malicious package on a tiny internet, unguarded, then guarded
	@$(ROOT) $(BIN)/dnsfw demo

# Hundreds of processes of ours are started: what is compiled once is kept, whatever the caller prefers.
test: export PYTHONDONTWRITEBYTECODE =
test: lint types layers  ## all checks: lint, types, layers, then every test
	@$(ROOT) $(BIN)/python -m pytest

lint: setup  ## ruff: rules and format; ESLint and GitHub's schemas for the action
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@cd action && ../$(BIN)/node node_modules/eslint/bin/eslint.js .
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions action.yml action/*/action.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

types: setup  ## mypy, strict
	@$(BIN)/mypy

layers: setup  ## rooms import policy and nothing of each other
	@$(BIN)/lint-imports --no-logo

bench:  ## the figures, guarded against unguarded in one run
	@scripts/setup.sh bench
	@$(ROOT) $(BIN)/python -m bench

lock:  ## remake requirements/*.lock from pyproject.toml
	@scripts/lock.sh

schema: setup  ## remake docs/*.schema.json from the types in dnsfw/policies and dnsfw/journal
	@$(BIN)/python -c 'from dnsfw.policies.dump import schema; print(schema(), end="")' > docs/policy.schema.json
	@$(BIN)/python -c 'from dnsfw.journal.records import schema; print(schema(), end="")' > docs/journal.schema.json
	@$(BIN)/python -c 'from dnsfw.journal.report import schema; print(schema(), end="")' > docs/report.schema.json

fuzz:  ## fuzz the policy language and foreign bytes, a minute each, by coverage
	@scripts/setup.sh fuzz
	@for target in policy packets wire; do \
	  PYTHONPATH=.setup/fuzz $(BIN)/python tests/fuzz/fuzz_$$target.py -max_total_time=60 -max_len=1500 || exit 1; done
