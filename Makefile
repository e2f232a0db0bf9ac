# make next    make a virtual environment, then run the next phase up to its checkpoint (it commits: use a clone)
# make test    run everything that CI runs: lint, types, layers, tests
# Another Python: make next PYTHON=python3.12.  pip's own options: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL (see README).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: next test soak lint format bench clean
.DEFAULT_GOAL := next

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}; name another one: make next PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@

# Exit 4: the phase waits for its approver. The runner has printed what to review and to type, so it is no error here.
next: $(VENV)/.run
	@$(BIN)/python -m phases run --next || { code=$$?; [ $$code -eq 4 ] || exit $$code; }

test: lint
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: $(VENV)/.test
	$(BIN)/python -m pytest -m soak
	$(BIN)/python tests/phases/faults/soak.py

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info
