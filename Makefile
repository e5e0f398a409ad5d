# make demo      the shipped models, and the whole path on drawn phantoms, into demo/ (or demo-2/, demo-3/ … where that is taken)
# make test      the fast tests            make test-all   all of them
# make lint      style, types, layers      make clean      removes the environment
#
# PYTHON=python3.12      another interpreter, 3.10 or newer (make clean first)
# CONSTRAINTS=           without the pinned versions
# OUT=… MINUTES=…        of the demo       ARGS=…          more arguments of pytest
# JOBS=1                 tests in one process; the default is one a core

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= $(wildcard constraints.txt)
MINUTES ?= 4
OUT ?=
ARGS ?=
JOBS ?= auto

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.PHONY: demo test test-all lint env env-dev clean

demo: env
	@out="$(OUT)"; \
	if [ -z "$$out" ]; then \
	  out=demo; n=1; \
	  while [ -e "$$out" ]; do n=$$((n + 1)); out="demo-$$n"; done; \
	  [ "$$n" -eq 1 ] || echo "demo/ is there already and stays as it is; this one goes to $$out/"; \
	fi; \
	$(BIN)/expressivegan demo --out "$$out" --minutes $(MINUTES)

# src holds doctests. A file stays in one process, for its fixtures; torch's threads would get in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile src tests

test: env-dev
	$(PYTEST) -m "not slow" $(ARGS)

test-all: env-dev
	$(PYTEST) $(ARGS)

lint: env-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

env: $(VENV)/.installed
env-dev: $(VENV)/.installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and "Python %d.%d is too old: 3.10 or newer is needed; try make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV)
