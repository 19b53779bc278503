# Two commands do everything on a machine that has Python 3.11 or later: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests start many programs: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
# Temporary files of tests lie in memory where 4 GiB are free: commits of SQLite wait for disks.
export PYTEST_DEBUG_TEMPROOT := $(shell df --output=avail /dev/shm 2>/dev/null | \
	awk 'END { if ($$1 > 4194304) print "/dev/shm" }')

.PHONY: install demo test test-slow test-spark test-real test-milvus milvus-server test-browser browser \
	torture torture-files torture-endings options docs wheel light release lint types layers check clean

install: $(VENV)/installed

$(VENV)/installed: requirements.txt requirements-search.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt \
		-r requirements-dev.txt -e .
	touch $@

# Learns handwritten digits, offline; writes to demo_output/.
demo: install
	$(BIN)/python -m deep_ranking demo

# All default tests: offline, under two minutes on two cores.
test: install
	$(BIN)/python -m pytest -n auto --dist worksteal

# The tests that take longer; they need no data either.
test-slow: install
	$(BIN)/python -m pytest -m 'slow and not milvus' -n auto --dist worksteal

# The recipe for Spark, as the guide shows it. Spark is 450 MB, so no other target installs it. It needs
# Java, which apt-get installs where there is none and the user is root.
test-spark: $(VENV)/installed-spark
	command -v java || (apt-get update --quiet && \
		apt-get install --quiet --yes --no-install-recommends default-jre-headless)
	CI=true $(BIN)/python -m pytest -m slow tests/test_spark_recipe.py

$(VENV)/installed-spark: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pyspark>=4,<5'
	touch $@

# The tests on real images and weights: DEEP_RANKING_DATA names their folder.
test-real: install
	$(BIN)/python -m pytest -m real_data

# The tests of a real Milvus server, which this starts on the loopback and stops.
test-milvus: install milvus-server
	CI=true $(BIN)/python -m pytest -m milvus

# The server, in an environment of its own: it needs an old setuptools.
milvus-server: .venv-milvus/installed

.venv-milvus/installed:
	$(PYTHON) -m venv .venv-milvus
	.venv-milvus/bin/python -m pip install --quiet --disable-pip-version-check 'milvus==2.3.5' 'setuptools<81'
	touch $@

# The tests of the page in Chromium; they fail where there is none. Each file has a server of its own.
test-browser: browser
	CI=true $(BIN)/python -m pytest -m browser -n 2 --dist loadfile

# A Chromium, if there is none yet.
browser: install
	$(BIN)/python tools/browser.py

# Hostile files, kills, full disks: tried and counted, in two halves at a time.
torture: install
	$(MAKE) --no-print-directory -j2 torture-files torture-endings

torture-files torture-endings: PARTS = $(if $(findstring files,$@),readers loaders flips server fuzz compiled commands,kills interrupts faults raters)
torture-files torture-endings:
	cd tests && ../$(BIN)/python -m torture --parts $(PARTS)

# The tables of flags in docs/options.md.
options: install
	$(BIN)/python docs/options.py

# The pages as a site in site/; a broken link or a missing reference fails.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed-docs: docs/requirements.txt $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	touch $@

# The package in dist/, tried as its users get it: installed anew, in a folder without this project.
wheel: install
	rm -rf build dist .venv-wheel
	$(BIN)/python -m build
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --no-compile --disable-pip-version-check "$$(echo dist/*.whl)[train]"
	PATH="$(CURDIR)/.venv-wheel/bin:$$PATH" PYTHONPATH= tools/try_wheel.sh

# The light installation in .venv-light: made anew, measured and tried, without TensorFlow.
light: install
	rm -rf .venv-light
	$(PYTHON) -m venv .venv-light
	.venv-light/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-search.txt
	tools/try_light.sh

# What CHANGELOG.md lists as unreleased becomes a version: make release VERSION=1.2.3
release: install
	$(BIN)/python tools/release.py "$(VERSION)"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The order of the wings, in pyproject.toml.
layers: install
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

check: lint types layers test

clean:
	rm -rf $(VENV) .venv-milvus .venv-wheel .venv-light build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo_output
