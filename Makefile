# vlmlab: `make report`, `make test` and `make lab` each work on a fresh machine that has only Python 3.11 or newer.
# They make their own environment in .venv on first use, and nothing is done twice. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= reports/adaptation
SITE ?= site
# Processes of `make test` and `make book`, with one thread each. With the kernel that it starts, each may take 3.5 GB of memory.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help environment report lab book shots site test torture lint coverage clean

help:                      ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "vlmlab needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (once; some minutes, most of it torch)"
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(READY)

environment: $(READY)      ## make the environment in .venv and stop

report: $(READY)           ## adapt a VLM and write the report (OUT=folder)
	$(BIN)/vlmlab report --out $(OUT)

lab: $(READY)              ## open the book in JupyterLab
	$(BIN)/vlmlab lab

book: $(READY)            ## execute all chapters and write them back
	$(BIN)/vlmlab book --workers $(WORKERS)

shots: $(READY)            ## screenshots of every panel, light, dark, narrow and at 150 %, into reports/shots (needs Chromium)
	$(BIN)/python -m tests.book.shots reports/shots

site: $(READY)             ## build the book and the reference as a website into site/
	$(BIN)/python -m vlmlab.book.website $(SITE) --reference

test: $(READY)            ## lint, types, tests, and every chapter of the book
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q vlmlab tests
	$(BIN)/python -m compileall -q vlmlab tests  # else each of some hundred processes compiles where PYTHONDONTWRITEBYTECODE is set
	$(BIN)/mypy & types=$$!; \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder; tests=$$?; \
		wait $$types && exit $$tests
	OMP_NUM_THREADS=1 VLMLAB_STATIC=1 VLMLAB_STRICT=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
		--no-loadscope-reorder -p tests.book.longest_first \
		--timeout=3600 --nbval-lax --nbval-cell-timeout=600 notebooks --ignore=notebooks/reports

torture: $(READY)         ## the long form of the tests under load and faults (an hour or two)
	OMP_NUM_THREADS=1 VLMLAB_TORTURE=1 $(BIN)/python -m pytest -s tests/torture

lint: $(READY)             ## ruff and mypy only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q vlmlab tests
	$(BIN)/mypy

coverage: $(READY)         ## the tests again, with the share of lines that they run (it has a floor)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

clean:                     ## remove the environment and what reports wrote
	rm -rf $(VENV) reports
