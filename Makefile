# Everything is set up in .venv by the first target that needs it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run course docs-check test emulators lint format prove-bigquery clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-15s %s\n", $$1, $$2}'

$(VENV)/ready: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.10 to 3.13 is needed; say which with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs,notebook,postgres,prometheus,report]'
	@touch $@

run: $(VENV)/ready  ## backfill three sample months of yellow and green, offline, into data/sample
	@$(BIN)/pipeline demo --workers 2

course: $(VENV)/ready  ## answer the Data Engineering Zoomcamp's questions from TLC's files (COURSE="2026 module 1" for some)
	@$(BIN)/python tests/course --only "$(COURSE)" $(COURSE_ARGS)

docs-check: $(VENV)/ready  ## run the commands of the pages on the sample (PAGES="docs/tutorial.md" for some)
	@$(BIN)/python docs/check_commands.py $(PAGES)

# The BigQuery emulator needs a DuckDB of its own, and Python 3.11 or newer.
EMULATORS ?= .venv-emulators
EMULATORS_PYTHON ?= $(PYTHON)

$(EMULATORS)/ready: tests/emulators-constraints.txt
	@$(EMULATORS_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "The BigQuery emulator needs Python 3.11 or newer; say which with: make EMULATORS_PYTHON=python3.12 ..." >&2; exit 1; }
	$(EMULATORS_PYTHON) -m venv $(EMULATORS)
	$(EMULATORS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/emulators-constraints.txt
	@touch $@

emulators: $(EMULATORS)/ready  ## set up the BigQuery emulator that tests run against

# Tests of the board in a browser need Debian's chromium, which .ci/run installs; without it they are left out.
test: lint  ## run every check and test (PYTEST_ARGS="-k duckdb" for some)
	@if $(EMULATORS_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	  $(MAKE) --no-print-directory emulators; \
	else \
	  echo "The BigQuery emulator needs Python 3.11 or newer (EMULATORS_PYTHON=...); its tests are left out." >&2; \
	fi
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(VENV)/ready  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/ready  ## fix formatting and what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

prove-bigquery: $(VENV)/ready  ## load months into a real BigQuery project and check them: PROJECT=my-project
	@BIN=$(BIN) PROJECT=$(PROJECT) LOCATION=$(LOCATION) docs/prove-bigquery.sh

clean:  ## remove what make made, but no data
	rm -rf $(VENV) $(EMULATORS) build dist *.egg-info .*_cache
