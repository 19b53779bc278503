# Two commands do everything on a machine that has Python 3.11 or later: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-slow test-real lint types check clean

install: $(VENV)/installed

$(VENV)/installed: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -e .
	touch $@

# Learns handwritten digits from scratch, offline; writes to demo_output/.
demo: install
	$(BIN)/python -m deep_ranking demo

# All default tests: offline, under two minutes.
test: install
	$(BIN)/python -m pytest -n auto --dist loadfile

# The tests that take longer; they need no data either.
test-slow: install
	$(BIN)/python -m pytest -m slow

# The tests on real images and weights: DEEP_RANKING_DATA names their folder.
test-real: install
	$(BIN)/python -m pytest -m real_data

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo_output
