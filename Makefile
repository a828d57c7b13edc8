# Commands for a fresh machine with Python 3.11, pip and make:
#   make quickstart   install, generate data, SFT, RL, test, draw (about 10 minutes on 2 quiet cores)
#   make test         install, run the tests
#   make bench        install, run the benchmarks beside their peers
#   make test-compat  model, data and runner tests on the oldest and newest transformers and Python
#   make release      build what is published, install it into fresh environments, try it there
#   make test-vllm    what needs vLLM, on its CPU build
#   make test-readers data sets through the readers of other tools
#   make notebooks    run the notebooks of the tutorials and write their outputs back
#   make docs         the pages and the API reference as a site, in docs/_build/index.html
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
IS_LOCKED = $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else \
    f"the lock is for Python 3.11, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.11, or see docs/get_started.md for other versions")'
# Real photos and references for the tests that want them; they are skipped where it is absent.
SIMPLESEG_DATA ?= $(wildcard ../shared/data)
export SIMPLESEG_DATA
# torch takes huge pages on the CPU: a training step of nano is a tenth faster.
export THP_MEM_ALLOC_ENABLE = 1

.PHONY: install quickstart test test-slow test-compat test-vllm test-readers release notebooks docs \
    bench clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements/lock.txt setup.cfg setup.py
	@$(IS_LOCKED)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements/lock.txt
	$(INSTALL) --no-build-isolation -e .
	touch $@

# pytest-xdist, and what single tests hold this project against
$(VENV)/.installed-test: $(VENV)/.installed requirements/lock-test.txt
	$(INSTALL) -r requirements/lock-test.txt
	touch $@

quickstart: install
	$(BIN)/python tools/quickstart.py

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n auto --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

# environments of its own in .compat/; one alone: make test-compat COMPAT=transformers-oldest
test-compat:
	$(PYTHON) tests/compat.py $(COMPAT)

# an environment of its own in .vllm/
test-vllm:
	$(PYTHON) tests/vllm_env.py

# dist/, and environments of its own in .release/; one Python alone: make release RELEASE=3.11
release:
	$(PYTHON) tests/release.py $(RELEASE)

# an environment of its own in .readers/
test-readers:
	$(PYTHON) tests/readers_env.py

notebooks: $(VENV)/.installed-test
	$(BIN)/python docs/tutorials/run_notebooks.py

# an environment of its own in .docs/, without torch; a warning is an error
docs: .docs/.installed
	.docs/bin/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env docs docs/_build
	.docs/bin/python docs/readability.py
	@echo docs/_build/index.html

.docs/.installed: requirements/lock-docs.txt
	@$(IS_LOCKED)
	$(PYTHON) -m venv .docs
	.docs/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

# every benchmark that this machine can run; rewrites docs/benchmarks.md
bench: install
	$(BIN)/python benchmarks/run.py all --write

clean:
	rm -rf $(VENV) .compat .vllm .readers .release .docs docs/_build work_dirs build dist *.egg-info
