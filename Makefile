# Everything a newcomer and a CI job run. `make demo` and `make test` need Python 3.11+, git and make.
#
#   make PYTHON=python3.13 test      another interpreter for the environment
#   make VENV=/path/to/env SETUP= …  an environment of your own, used as it is

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed
# Two processes with one thread each: what the test machine has, and safe on a larger one.
WORKERS ?= 2

# A uv that is too old for dependency groups counts as absent.
FIND_UV = if uv pip install --help 2>/dev/null | grep -q -e '--group'; then command -v uv; fi
# torch's wheels are large: uv gives up on a read after 30 s unless told otherwise.
export UV_HTTP_TIMEOUT ?= 300

.DEFAULT_GOAL := help
.PHONY: help demo test quick check fuzz lint format types contracts docs reference notebooks figures bench examples clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(SETUP)  ## set up, then audit the head that ships with the package
	$(BIN)/collapse-audit demo

test: $(SETUP)  ## set up, then run every test and doctest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

quick: $(SETUP)  ## some tests of every file, in half a minute on two cores
	HYPOTHESIS_PROFILE=quick OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m quick

check: lint types contracts test docs  ## all that must hold before a merge

lint: $(SETUP)  ## ruff (rules and format) and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(SETUP)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(SETUP)  ## mypy, strict
	$(BIN)/mypy

contracts: $(SETUP)  ## the import layers of pyproject.toml
	$(BIN)/lint-imports

docs: $(SETUP)  ## the site, warnings as errors, after a check of what scripts write into it
	$(BIN)/python docs/generate_cli_reference.py --check
	$(BIN)/python docs/generate_model_zoo.py --check
	$(BIN)/python docs/draw_landing_figure.py --check
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

reference: $(SETUP)  ## rewrite what scripts write: docs/cli.md, docs/models.md, the landing figure
	$(BIN)/python docs/generate_cli_reference.py
	$(BIN)/python docs/generate_model_zoo.py
	$(BIN)/python docs/draw_landing_figure.py

notebooks: $(SETUP)  ## bring the .ipynb of each pair up to date with its .py
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

figures: $(SETUP)  ## draw the figures of docs/figures.md again; the first call trains heads for minutes
	OMP_NUM_THREADS=1 $(BIN)/python docs/draw_figures.py

fuzz: $(SETUP)  ## 20,000 pickle programs and 10,000 damaged files; FUZZ="--seed 7" for others
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz_readers $(FUZZ)

bench: $(SETUP)  ## the benchmarks, with the packages they compare with; ARGS="--k 4096"
	@set -e; uv=$$($(FIND_UV)); \
	"$${uv:-$(BIN)/uv}" pip install --quiet --python $(BIN)/python --group bench
	$(BIN)/python -m benchmarks $(ARGS)
	$(BIN)/python -m benchmarks.shell $(filter --docs,$(ARGS))

examples: $(SETUP)  ## train the heads that ship with the package again
	$(BIN)/python -m collapse_audit.training.shipped collapse_audit/examples

clean:  ## remove the environment and everything that was built
	rm -rf .venv build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is newer than pyproject.toml once everything in it is installed.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}. Choose another: make PYTHON=python3.12 …")'
	@set -e; uv=$$($(FIND_UV)); \
	if [ -n "$$uv" ]; then \
		"$$uv" venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); \
	else \
		$(PYTHON) -m venv $(VENV); $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; uv=$(BIN)/uv; \
	fi; \
	echo "Installing into $(VENV) (torch is large: the first time takes minutes)"; \
	"$$uv" pip install --quiet --python $(BIN)/python -e . --group dev
	@touch $@
