# `make` lists the targets. pip's own options work too: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL (see README).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help next test browser lint format soak mutants bench sample-run clean
.DEFAULT_GOAL := help

# The environment was made with another Python than the one that is named now: make it anew.
VERSION := import sys; print(sys.version_info[:2])
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(PYTHON) -c '$(VERSION)'),$(shell $(BIN)/python -c '$(VERSION)' 2>/dev/null))
.PHONY: $(VENV)/.run
CLEAR := --clear
endif
endif

help:  ## list the targets
	@echo "make TARGET [PYTHON=python3.12]"
	@awk -F ':.*  ## ' 'NF == 2 && /^[a-z]/ { printf "  %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}; name another one: make next PYTHON=python3.12")'
	$(PYTHON) -m venv $(CLEAR) $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@

# Exit 4: the phase waits for its approver. The runner has printed what to review and to type, so it is no error here.
next: $(VENV)/.run  ## run the next phase up to its checkpoint (it commits: use a clone)
	@$(BIN)/python -m phases run --next || { code=$$?; [ $$code -eq 4 ] || exit $$code; }

test: lint browser  ## everything that CI runs: lint, types, layers, tests with coverage
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

# Debian's package: playwright's own browser is no Python package. `test` needs it for the pages of the lab.
browser:  ## install chromium, if it is missing
	@command -v chromium > /dev/null || { apt-get update && apt-get install -y --no-install-recommends chromium; } || { echo "error: the tests of pages need chromium; install it: sudo apt-get install chromium" >&2; exit 1; }

lint: $(VENV)/.test  ## style, types, layers, dead code, spelling; in seconds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/codespell

format: $(VENV)/.test  ## lay out the code, fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: $(VENV)/.test mutants  ## the long tests: mutants of the code, hours of faults and kills
	$(BIN)/python -m pytest -m soak
	$(BIN)/python tests/phases/faults/soak.py

mutants: $(VENV)/.test  ## tests must kill mutants of the code that keeps and checks the record
	$(BIN)/python -m tests.mutation

bench: $(VENV)/.test  ## the benchmarks behind docs/performance.md
	$(BIN)/python -m tests.benchmarks

# It approves nothing but its own temporary clone, whose record says that a script did it.
sample-run: $(VENV)/.test  ## run the whole plan once in a temporary clone, keep it in docs/sample-run (hours)
	$(BIN)/python docs/sample-run/make_sample_run.py

clean:  ## remove the virtual environment and builds
	rm -rf $(VENV) build dist *.egg-info
