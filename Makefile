# Everything a newcomer runs. Each target sets up its own environment; only Python (3.11 or newer) and make are needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export OMP_NUM_THREADS := 1

.PHONY: demo test lint docs bench lab-report clean

demo: $(VENV)/.core  ## merge, verify and score real small models, and print one table
	$(BIN)/python examples/demo.py

test: $(VENV)/.test lint  ## lint, type check and run the test suite
	$(BIN)/python -m pytest -n 2 --dist loadscope

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs  ## build the documentation into site/
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.bench  ## time rlmerge against the disk and against mergekit
	$(BIN)/python bench/limit.py
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/peers.py

LABS := full characters words words-128 words-256 words-512

lab-report: $(VENV)/.lab  ## train, study and report every laboratory in .lab/ (hours), and compare their sizes
	for lab in $(LABS); do $(BIN)/rlmerge lab run -o .lab/$$lab --profile $$lab || exit 1; done
	$(BIN)/rlmerge lab compare $(LABS:%=.lab/%) -o .lab/sizes

clean:
	rm -rf $(VENV) .bench .demo site

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[test]'
	touch $@

$(VENV)/.lab: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[lab]'
	touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet -e '.[docs]'
	touch $@
