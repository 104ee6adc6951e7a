# Everything is set up in .venv by the first target that needs it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder
PYTEST_ARGS ?=
EXTRAS := dev,docs,notebook,postgres,prometheus,report
# uv trusts the certificates of the system, as pip does.
export UV_SYSTEM_CERTS := true

.DEFAULT_GOAL := help
.PHONY: help run course test test-matrix emulators lint format docs docs-check prove-bigquery clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-15s %s\n", $$1, $$2}'

$(VENV)/ready: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.10 to 3.13 is needed; say which with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
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
	$(BIN)/python $(PYTEST) $(PYTEST_ARGS)

# Both ends of what setup.cfg allows. uv takes a Python that is in PATH, or downloads it.
MATRIX ?= lowest newest
LOWEST_PYTHON ?= 3.10
NEWEST_PYTHON ?= 3.13
ifneq ($(and $(filter test-matrix,$(MAKECMDGOALS)),$(filter-out lowest newest,$(MATRIX))),)
$(error MATRIX=$(MATRIX): lowest and newest are allowed)
endif

test-matrix: $(VENV)/ready emulators  ## run the tests on Python 3.10 with the lowest allowed versions, then on 3.13 with the newest (MATRIX=lowest for one)
	@for name in $(MATRIX); do \
	  case $$name in \
	    lowest) python=$(LOWEST_PYTHON); resolution=lowest-direct ;; \
	    newest) python=$(NEWEST_PYTHON); resolution=highest ;; \
	  esac; \
	  if $(BIN)/uv venv --clear --seed --python $$python .venv-$$name \
	    && $(BIN)/uv pip install --python .venv-$$name --resolution $$resolution --editable '.[$(EXTRAS)]' \
	    && .venv-$$name/bin/python $(PYTEST) $(PYTEST_ARGS); \
	  then result=passed; else result=failed; fi; \
	  results="$$results$$name versions on Python $$python: $$result\n"; \
	done; printf "$$results"; case "$$results" in *failed*) exit 1 ;; esac

lint: $(VENV)/ready  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/ready  ## fix formatting and what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/ready  ## build the documentation site into build/docs, and check its links (Python 3.11 or newer)
	@$(BIN)/python -c 'import sphinx' 2>/dev/null || { echo "Sphinx needs Python 3.11 or newer; say which with: make VENV=.venv-docs PYTHON=python3.12 docs" >&2; exit 1; }
	$(BIN)/python -m sphinx --quiet --nitpicky --fail-on-warning --keep-going --doctree-dir build/doctrees docs build/docs
	$(BIN)/python docs/check_links.py build/docs

prove-bigquery: $(VENV)/ready  ## load months into a real BigQuery project and check them: PROJECT=my-project
	@BIN=$(BIN) PROJECT=$(PROJECT) LOCATION=$(LOCATION) docs/prove-bigquery.sh

clean:  ## remove what make made, but no data
	rm -rf $(VENV) $(EMULATORS) .venv-lowest .venv-newest build dist *.egg-info .*_cache
