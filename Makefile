.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SERVE_READY := $(VENV)/.serve-ready
DEV_READY := $(VENV)/.dev-ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## / - /'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "turnwise needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(SERVE_READY): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(DEV_READY): $(SERVE_READY)
	$(PIP) install --quiet --upgrade "pip>=25.1" --constraint constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --group dev --editable ".[training]"
	@touch $@

serve: $(SERVE_READY) ## Set up and serve the starter model on http://127.0.0.1:8000 (ARGS="--port 9000" passes flags)
	$(BIN)/turnwise-server $(ARGS)

chat: $(SERVE_READY) ## Talk to a running server in the terminal
	$(BIN)/turnwise chat $(ARGS)

test: $(DEV_READY) lint types ## Set up, lint, check types and run every test
	$(BIN)/python -m pytest $(ARGS)

lint: $(DEV_READY) ## Check style, layout contracts and the container files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(DEV_READY) ## Check types
	$(BIN)/mypy server training client tests benchmarks

bench: $(DEV_READY) ## Measure serving speed and memory; prints JSON
	$(BIN)/python benchmarks/serving.py $(ARGS)

.PHONY: help serve chat test lint types bench
