# Two commands do everything: make demo, make test. The others are for people who change Ketch.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test packing service notebook pages ship conformance soak lint fix docs pictures bench clean

demo: $(VENV)/.demo  ## see the whole road on an example
	$(BIN)/ketch demo

test: $(VENV)/.dev  ## run every test that needs nothing but Python
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term --cov-report=xml:.cache/coverage.xml

packing: $(VENV)/.dev  ## the long tests of packing: real environments, every estimator, hostile files, speed
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m packing

service: $(VENV)/.dev  ## the long tests of the service: workers killed, swaps under load, hostile requests, official clients
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m service

notebook: $(VENV)/.dev  ## the long tests of scripts from notebooks: both are run, and their models compared
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m notebook

pages: $(VENV)/.dev  ## the long tests of the pages for people, in a real browser
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m pages --ignore tests/pages/test_pace.py
	$(BIN)/python -m pytest -q -s -m pages tests/pages/test_pace.py

ship: $(VENV)/.dev  ## the long tests of images and clouds: containers are built and run; they start dockerd if none answers
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m ship

conformance: $(VENV)/.dev  ## large programs of vendors, and images of one model beside others'; writes docs/conformance.md
	$(BIN)/python -m pytest -q -m conformance

soak: $(VENV)/.dev  ## the same for hours
	$(BIN)/python -m pytest -q -m soak --timeout 7200

lint: $(VENV)/.dev  ## style, types on three systems
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 src
	$(BIN)/mypy --platform darwin src

fix: $(VENV)/.dev  ## mend style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.dev  ## build the documentation; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

pictures: $(VENV)/.dev  ## make every picture of the documentation from what Ketch shows now
	$(BIN)/python docs/pictures.py

bench: $(VENV)/.dev  ## measure beside nginx, services written by hand and the peers that are set up; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf $(VENV) docs/_build .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Ketch needs Python 3.11 or newer: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "One package is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[sklearn]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --group dev --editable '.[all]'
	@touch $@ $(VENV)/.demo
