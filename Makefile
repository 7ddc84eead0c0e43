# The commands behind these stand in README.md, for people without make.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
SCALE ?= paper
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: report test lab notebooks bench clean

report: $(INSTALLED)  ## run the notebooks and write the page, report/lab-report.html
	$(BIN)/labkit report --scale $(SCALE) $(ARGS)

test: export OMP_NUM_THREADS := 1  # each of the processes has a core
test: export OMP_WAIT_POLICY := passive  # and waits without working
test: $(INSTALLED)  ## the whole suite, the notebooks included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest $(PARALLEL) tests
	$(BIN)/pytest $(PARALLEL) --nbval-lax notebooks

lab: $(INSTALLED)  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir notebooks

notebooks: $(INSTALLED)  ## execute the notebooks in place, as they are committed: from shipped records
	LABKIT_RUNS=$$(mktemp -d) $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb

bench: $(INSTALLED)  ## labkit's speed beside other training loops; half an hour in which nothing else may run
	$(BIN)/python -m pip install --quiet --editable '.[dev,pinned,bench]'
	$(BIN)/python tests/benchmarks/bench.py $(ARGS)

clean:  ## remove the environment and the report; recorded runs stay
	rm -rf $(VENV) report

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "labkit needs Python 3.11 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[dev,pinned]'
	touch $@
