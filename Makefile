# Everything a person does here, by name. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile  # two processes, a file of tests in one of them
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test slow check docs smoke bench clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/demo  ## set up, run the quickstart, print its table and where report.html lies
	$(BIN)/trainflat run quickstart --threads 1  # the models are small: a second thread gains little

test: $(VENV)/test  ## set up with the test extras, run the tests (offline, under 6 minutes on two cores)
	$(TESTS)

slow: $(VENV)/test  ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

check: $(VENV)/check  ## what a change has to pass: format, lint, types, docs, tests with their doctests
	$(BIN)/ruff format --check src tests bench examples docs
	$(BIN)/ruff check src tests bench examples docs
	$(BIN)/pyright
	$(BIN)/python docs/reference.py
	$(TESTS)

docs: $(VENV)/check  ## the reference of the library as pages, from its docstrings: docs/reference/index.html
	$(BIN)/python docs/reference.py

smoke: $(VENV)/test  ## every shipped recipe in its small size
	@for recipe in $$($(BIN)/trainflat list --json | $(BIN)/python -c 'import json, sys; print(*[r["recipe"] for r in json.load(sys.stdin)["recipes"]])'); do \
		$(BIN)/trainflat run $$recipe --smoke --store .trainflat/smoke || exit 1; done

bench: $(VENV)/bench  ## ours against the peers, as ratios (two hours; see bench/README.md)
	@for script in sam_step rules radius prune_round masked_step imp_overhead shrunk service trainer by_hand ray_sweep; do $(BIN)/python -m bench.$$script || exit 1; done

clean:  ## remove the environment, the pages and the results of this folder
	rm -rf $(VENV) .trainflat docs/reference

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/test: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/check: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[check]'
	@touch $@

$(VENV)/bench: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[bench]'
	@touch $@
