# Everything runs in .venv, made from the pinned versions in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run serve test lint setup clean

run: setup          ## the main job on two synthetic studies, with a simulated PACS
	@$(BIN)/willis demo

serve: setup        ## the node, with config.toml, until Ctrl-C
	@$(BIN)/willis serve

test: setup         ## linters, types, import rules, and every test
	@tests/run.sh

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Willis needs Python 3.11 or newer; set PYTHON=...")'
	@echo "setting up .venv (once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv var build *.egg-info
