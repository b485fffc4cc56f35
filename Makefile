# From a bare checkout: Python 3.11 or newer and make are enough for "make demo".
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check bench test-long clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/demo ## run the bridge with a simulated house; prints what to try
	@$(BIN)/smgw-bridge demo

test: .venv/test check ## install what the tests need, then run checks and all tests
	@.ci/system-parts
	$(BIN)/python -m pytest

check: .venv/test ## style and types only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/test ## measure speed
	$(BIN)/python -m bench

test-long: .venv/test ## the same tests, trying much harder (hours)
	@.ci/system-parts
	HYPOTHESIS_PROFILE=long KILLS=200 $(BIN)/python -m pytest --timeout=0

clean: ## remove what make has made
	rm -rf .venv build dist *.egg-info

# Stamps: each virtual environment is made once and renewed when the requirements change.
.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/demo: .venv/python setup.cfg pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

.venv/test: .venv/python setup.cfg pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo,test]'
	@touch $@
