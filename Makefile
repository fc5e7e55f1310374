# Setup with pip and a plain .venv. `uv run bloomline ...` works as well.
PYTHON ?= python3
BIN := .venv/bin
TEST_WORKERS ?= 2
export RAY_USAGE_STATS_ENABLED ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: help install quickstart test test-fast lint docs lock audit module-list format clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

install: .venv/.installed  ## .venv with bloomline and what it needs to run

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bloomline needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Set PYTHON=.")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing bloomline with all extras into .venv. This takes a few minutes and 3 GB."
	@$(BIN)/pip install --quiet --use-pep517 --editable '.[all]'
	@touch $@
	@echo "Installed: $(BIN)/bloomline. \`source $(BIN)/activate\` puts it on the path."

.venv/.installed-dev: pyproject.toml .venv/.installed
	@echo "Installing the tools for tests, lint and docs into .venv."
	@$(BIN)/pip install --quiet --use-pep517 --editable '.[dev]'
	@touch $@

quickstart: .venv/.installed  ## the whole life of a small model on this machine, in a few minutes
	@$(BIN)/bloomline run pipeline=quickstart

test: .venv/.installed-dev  ## the whole test suite
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup

test-fast: .venv/.installed-dev  ## without the slow tests
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup -m 'not slow'

lint: .venv/.installed-dev  ## style, types, import contracts, spelling and the docs site
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/codespell
	@$(BIN)/python -m tests.project.prose
	@$(MAKE) --no-print-directory audit docs

docs: .venv/.installed-dev  ## the documentation site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# From the index of CPU builds, so that torch does not bring NVIDIA's libraries into the lock.
lock: .venv/.installed-dev  ## requirements.lock: every dependency with its version and hashes
	@$(BIN)/python -m tests.project.lock | CUSTOM_COMPILE_COMMAND="make lock" \
		PIP_EXTRA_INDEX_URL="$${PIP_EXTRA_INDEX_URL-https://download.pytorch.org/whl/cpu}" \
		$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --no-annotate --no-emit-index-url \
		--no-emit-find-links --unsafe-package torch --output-file requirements.lock -

audit: .venv/.installed-dev  ## the locked dependencies against published advisories, where these can be reached
	@$(BIN)/python -m tests.project.audit

module-list: .venv/.installed-dev  ## the list of modules in docs/architecture.md
	@$(BIN)/python -m tests.project.module_list

format: .venv/.installed-dev  ## what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## everything that was made, the store included
	rm -rf .venv .bloomline site outputs multirun .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
