.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SERVE_READY := $(VENV)/.serve-ready
DEV_READY := $(VENV)/.dev-ready
CLIENTS := tests/foreign_clients
CLIENTS_VENV := .venv-clients
CLIENTS_READY := $(CLIENTS_VENV)/.ready
WORKERS ?= 2
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

# Other people's clients, for the tests that use them: they need other versions than we do, and Node.js, which comes as a wheel.
$(CLIENTS_READY): $(CLIENTS)/requirements.txt $(CLIENTS)/package-lock.json | $(BIN)/python
	$(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-compile --requirement $(CLIENTS)/requirements.txt
	cd $(CLIENTS) && PATH="$(CURDIR)/$(CLIENTS_VENV)/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

serve: $(SERVE_READY) ## Set up and serve the starter model on http://127.0.0.1:8000 (ARGS="--port 9000" passes flags)
	$(BIN)/turnwise-server $(ARGS)

chat: $(SERVE_READY) ## Talk to a running server in the terminal
	$(BIN)/turnwise chat $(ARGS)

test: $(DEV_READY) $(CLIENTS_READY) lint types ## Set up, lint, check types and run every test (WORKERS=4: on four cores)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

lint: $(DEV_READY) ## Check style, layout contracts and the container files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(DEV_READY) ## Check types
	$(BIN)/mypy server training client tests benchmarks

bench: $(DEV_READY) ## Measure serving speed and memory; prints JSON
	$(BIN)/python benchmarks/serving.py $(ARGS)

.PHONY: help serve chat test lint types bench
