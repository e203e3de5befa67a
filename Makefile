# demo   the whole way on drawn clips, or on yours: make demo DATA=folder
# test   all tests
# lint   style and types
# docs   the documentation as a site, in site/
# bench  every figure that needs neither a GPU nor a trained model, 15 minutes each at most, into runs/bench;
#        DATA=folder reads your clips
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

# gpu.py needs a GPU, timeline_weizmann.py the models of `kinegru train ... --split leave-one-group-out`
bench: $(VENV)/.installed-benchmarks
	$(if $(DATA),,$(BIN)/python -m kinegru.video.synthetic runs/bench-clips)
	failed=; for script in startup decode shrink cache_epoch recipe_costs convgru stream engines peers memory; do \
		case $$script in decode|shrink|cache_epoch|recipe_costs) clips="$(or $(DATA),runs/bench-clips)";; *) clips=;; esac; \
		echo "benchmarks/$$script.py"; \
		$(if $(shell command -v timeout),timeout 900) $(BIN)/python benchmarks/$$script.py $${clips:+"$$clips"} --json runs/bench/$$script.json \
			|| failed="$$failed $$script"; \
	done; test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

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
