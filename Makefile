# Every target does its own set-up in .venv: a clone, Python 3.10 or newer, and `make test`.
PYTHON ?= python3
BIN := .venv/bin
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
ARGS ?=

.PHONY: help demo test lint sanitize bench docs clean
.DEFAULT_GOAL := help

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/ready  ## train on real sequences without the padding (ARGS='--quick' for a short one)
	$(BIN)/padless demo $(ARGS)

test: .venv/ready  ## run every test, docstring example and document (ARGS='-k name' for some)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: .venv/ready  ## ruff, pyright, and the contracts on who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

FUZZ_SECONDS ?= 20
sanitize: .venv/ready  ## test the kernels of every instruction set under sanitizers and fuzz them (FUZZ_SECONDS=20 each)
	@$(BIN)/cmake --version >/dev/null 2>&1 && $(BIN)/ninja --version >/dev/null 2>&1 || $(PIP) install cmake ninja
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DPADLESS_SANITIZE=ON -DPADLESS_FUZZ_SECONDS=$(FUZZ_SECONDS) >/dev/null
	$(BIN)/cmake --build build/sanitize >/dev/null
	ASAN_OPTIONS=detect_leaks=1 $(BIN)/ctest --test-dir build/sanitize --output-on-failure --tests-regex 'fuzz|flags|checks|values'

bench: .venv/ready  ## time padless against torch packed and torch padded on this machine
	$(BIN)/padless bench $(ARGS)

docs: .venv/docs-ready  ## build the documentation in build/docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs build/docs

clean:  ## remove everything that the other targets made
	rm -rf .venv build dist runs .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage htmlcov

# torch comes first and under its own version: asked for as a mere dependency, pip would take a
# newer one, gigabytes of CUDA with it. The second call then finds it and leaves it alone.
.venv/ready: pyproject.toml Makefile CMakeLists.txt $(wildcard csrc/*.* csrc/cells/*)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("padless needs Python 3.10 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PIP) install $(TORCH) numpy
	$(PIP) install $(TORCH) --editable '.[dev,plot]'
	@touch $@

.venv/docs-ready: .venv/ready
	$(PIP) install $(TORCH) --editable '.[docs]'
	@touch $@
