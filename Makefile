# Two commands for a fresh machine with Python 3.11, pip and make:
#   make quickstart   install, generate data, train, test, draw (about 10 minutes on 2 cores)
#   make test         install, run the tests
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# Real photos and references for the tests that want them; they are skipped where it is absent.
SIMPLESEG_DATA ?= $(wildcard ../shared/data)
export SIMPLESEG_DATA

.PHONY: install quickstart test test-slow clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements/lock.txt setup.cfg setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else \
	    f"the lock is for Python 3.11, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.11, or see docs/get_started.md for other versions")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/lock.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

quickstart: install
	$(BIN)/python tools/quickstart.py

test: install
	$(BIN)/python -m pytest -m 'not slow'

test-slow: install
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf $(VENV) work_dirs build dist *.egg-info
