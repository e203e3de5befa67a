# demo   the whole way on drawn clips, or on yours: make demo DATA=folder
# test   all tests
# lint   style and types
# docs   the documentation as a site, in site/
# bench  how fast reading and training are: make bench DATA=folder measures on your clips
#
# PYTHON is the interpreter that makes .venv (3.10 or newer); JOBS test processes run at a time; TORCH_INDEX is the
# address of a package index with CPU builds of torch, where the default one has CUDA builds only.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
DATA ?=
TORCH_INDEX ?=

BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")

.PHONY: demo test lint docs bench
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/python -m kinegru demo $(if $(DATA),"$(DATA)")

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-benchmarks
	$(if $(DATA),,$(BIN)/python -m kinegru.video.synthetic runs/bench-clips)
	set -e; for script in benchmarks/*.py; do \
		echo "$$script"; $(BIN)/python "$$script" "$(or $(DATA),runs/bench-clips)"; \
	done

# .venv is made once; what is in it is installed anew only where the pins or the requirements changed.

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	$(INSTALL) --editable ".[$*]"
	@touch $@
