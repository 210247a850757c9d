# Every target makes its own environment in .venv from the hashed lock, once, and again when the lock changes.
.SUFFIXES:
.DEFAULT_GOAL := help
.PHONY: help demo serve test test-long coverage compiled bench installed measured lint lock clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILED := $(VENV)/compiled
PROVIDERS := build/openfeature/.installed
CONFIG ?= deploy/routes.example.yaml
PYTHON ?=
PYTEST_WORKERS ?= 2
UPGRADE ?=
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-header --no-emit-index-url --no-emit-find-links $(UPGRADE)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## watch a challenger earn its crown on real data, then a broken one lose its traffic
	@$(BIN)/kingmaker demo

serve: $(STAMP) ## run gateway and control plane here, with CONFIG=deploy/routes.example.yaml
	@$(BIN)/kingmaker serve --config $(CONFIG)

test: lint $(PROVIDERS) ## lint, then the quick tests
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS)

test-long: $(STAMP) ## the slow tests: simulations, faults, long runs
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m long --timeout 1800

coverage: $(STAMP) ## how much of the gateway the quick tests reach; less than 95 % fails
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -q tests/app/gateway tests/app/events
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

compiled: $(COMPILED)/.built ## compile the request path for this machine: a wheel, installed in .venv/compiled

bench: $(STAMP) ## measure the gateway beside its peers; BENCH="proxy latency --rounds 9" measures less, or longer
	@quick="$(if $(PYTHON),,$$($(BIN)/python -m benchmarks.interpreters))"; \
	if [ -z "$$quick" ] || ! $(MAKE) --no-print-directory installed VENV="$$quick"; then quick="$(VENV)"; fi; \
	$(MAKE) --no-print-directory measured VENV="$$quick"

installed: $(STAMP)

measured: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt \
		|| echo "make: the peers of requirements/bench.txt cannot be installed here: they are skipped" >&2
	@$(MAKE) --no-print-directory compiled VENV="$(VENV)" \
		|| echo "make: only pure Python is measured, as nothing could be compiled; it needs gcc and libc6-dev" >&2
	@$(BIN)/python -m benchmarks $(BENCH)

lint: $(STAMP) ## ruff, mypy --strict and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

lock: $(STAMP) ## pin every dependency with its hashes again; UPGRADE=--upgrade takes newer versions
	$(COMPILE) --all-extras --output-file requirements/development.txt pyproject.toml
	$(COMPILE) --extra otel --extra postgres --constraint requirements/development.txt \
		--output-file requirements/runtime.txt pyproject.toml
	$(COMPILE) --constraint requirements/development.txt --output-file requirements/build.txt requirements/build.in
	$(COMPILE) --constraint requirements/development.txt --output-file requirements/bench.txt requirements/bench.in

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(COMPILED)/.built: $(STAMP) hatch_build.py pyproject.toml $(shell find app routing policies migrations -name '*.py')
	@echo "Compiling the request path (half a minute, only when it changed) ..."
	@rm -rf $(VENV)/wheel $(COMPILED)
	@KINGMAKER_COMPILED=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--wheel-dir $(VENV)/wheel .
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index --target $(COMPILED) $(VENV)/wheel/*.whl
	@touch $@

# OpenFeature's JavaScript providers, for the tests with them; without npm it says that these are skipped.
$(PROVIDERS): $(STAMP) tests/openfeature/package.json tests/openfeature/package-lock.json
	@$(BIN)/python -m tests.openfeature.packages

# The first interpreter that is new enough and can make environments; PYTHON=… names one outright.
$(STAMP): pyproject.toml requirements/development.txt
	@set -eu; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		found=; \
		for candidate in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
			if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
			then found=$$candidate; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "make: no suitable Python among: $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python)" >&2; \
			echo "make: needed is Python 3.11 or newer with its venv and ensurepip modules" >&2; \
			echo "make: (on Debian and Ubuntu: apt install python3-venv), or name one: make PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "Making $(VENV) with $$("$$found" --version) ..."; \
		rm -rf "$(VENV)"; \
		"$$found" -m venv "$(VENV)"; \
	fi; \
	echo "Installing the locked dependencies into $(VENV) (a minute or so, only when they changed) ..."; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/development.txt; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	touch $(STAMP)
