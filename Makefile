# make demo      the whole path on drawn phantoms, into demo/ (or demo-2/, demo-3/ … where that is taken)
# make test      the fast tests            make test-all   all of them
# make lint      style, types, layers      make clean      removes the environment
#
# PYTHON=python3.12      another interpreter, 3.10 or newer (make clean first)
# CONSTRAINTS=           without the pinned versions
# OUT=… MINUTES=…        of the demo       ARGS=…          more arguments of pytest

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= $(wildcard constraints.txt)
MINUTES ?= 4
OUT ?=
ARGS ?=

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

# src holds doctests
test: env-dev
	$(BIN)/python -m pytest src tests -m "not slow" $(ARGS)

test-all: env-dev
	$(BIN)/python -m pytest src tests $(ARGS)

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
