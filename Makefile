# h2lite: everything a contributor runs.  `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
PEERS_VENV ?= .venv-peers
PLOT_VENV ?= .venv-plot
PYTEST_ARGS ?=
# Simulated lives of an hour each.
SEEDS ?= 100
SIM_ARGS ?=
# Processes: as many as CPUs for what computes, more for what mostly waits.
TESTS_AT_ONCE ?= auto
SCENARIOS_AT_ONCE ?= 4
# Turns of each variant, jobs of bench/side_by_side.py (none named: all), and where figures are kept.
ROUNDS ?= 200
JOBS ?=
RESULTS ?= bench/results
# Of real threads and sockets.
MINUTES ?= 10
SOAK_ARGS ?=
# A folder for JUnit reports, one a run; .ci/run sums them up.
REPORTS ?=
LOCK_ARGS ?=

PY = $(VENV)/bin/python
PEERS_PY = $(PEERS_VENV)/bin/python
PLOT_PY = $(PLOT_VENV)/bin/python
report = $(if $(REPORTS),--junitxml=$(REPORTS)/$(1).xml)
# The peers' tests import what only their own environment has.
QUICK = --ignore=tests/peers
PIP_FLAGS = --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types scenarios peers sim soak soak-chaos bench \
    bench-peers bench-check bench-report spec lock test-all clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.ready  ## make .venv with the locked development set (once; again when it changes)

demo: $(VENV)/.ready  ## watch connections die without a word, and who notices
	@$(VENV)/bin/h2lite demo

test: $(VENV)/.ready  ## the quick tests
	$(PY) -m pytest $(QUICK) -n $(TESTS_AT_ONCE) $(call report,test) $(PYTEST_ARGS)

check: lint types  ## lint, types, the quick tests without a warning, coverage, benches once
	$(PY) -m coverage erase
	$(PY) -bb -W error -m coverage run -m pytest $(QUICK) -n $(TESTS_AT_ONCE) $(call report,check) \
	    $(PYTEST_ARGS)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report
	$(PY) -bb -W error -m pytest bench --benchmark-disable $(call report,check-bench)

lint: $(VENV)/.ready
	$(PY) -m ruff check .

types: $(VENV)/.ready
	$(PY) -m mypy

scenarios: $(VENV)/.ready  ## real sockets and real processes, a few side by side
	$(PY) -m pytest $(QUICK) -m scenario -n $(SCENARIOS_AT_ONCE) $(call report,scenarios) $(PYTEST_ARGS)

peers: $(PEERS_VENV)/.ready  ## other people's HTTP/2, and their side of the benches once
	$(PEERS_PY) -m pytest tests/peers bench -m peer --benchmark-disable \
	    $(call report,peers) $(PYTEST_ARGS)

sim: $(VENV)/.ready  ## random hours of a pool's life, SEEDS=N of them, and what must hold
	$(PY) -m tests.simulation --seeds $(SEEDS) $(SIM_ARGS)

soak: $(VENV)/.ready  ## full load on 1000 connections checked every second, for MINUTES=N
	$(PY) -bb -m tests.soak --load 1000 --minutes $(MINUTES) $(SOAK_ARGS)

soak-chaos: $(VENV)/.ready  ## fifty threads share a pool while everything breaks, for MINUTES=N
	$(PY) -bb -m tests.soak --minutes $(MINUTES) $(SOAK_ARGS)

bench: $(VENV)/.ready  ## measure h2lite beside its floors, in minutes; JOBS=ping for that alone
	$(if $(JOBS),,$(PY) -m pytest bench $(PYTEST_ARGS))
	@$(PY) -m bench.side_by_side $(JOBS) --rounds $(ROUNDS) --json .benchmarks/ours

bench-peers: $(PEERS_VENV)/.ready  ## the same beside the peers, kept in RESULTS=bench/results
	@$(PEERS_PY) -m bench.side_by_side $(JOBS) --peers --rounds $(ROUNDS) --json $(RESULTS)

bench-check: $(VENV)/.ready  ## hold those figures against bench/budgets.toml: met or short
	@$(PY) -m bench.check $(RESULTS)

bench-report: $(PLOT_VENV)/.ready  ## write bench/README.md and its pictures from them
	@$(PLOT_PY) -m bench.report --results $(RESULTS)

spec: $(VENV)/.ready  ## which requirements of the RFCs are done, which not, and why
	@$(PY) tests/spec.py

test-all:  ## the quick tests under every CPython 3.10 to 3.14 on this machine
	@MAKE="$(MAKE)" tests/every_python.sh

clean:  ## remove what the targets above made, environments included
	rm -rf .venv .venv-* .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	    .benchmarks reports build dist
	find h2lite tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments.  $(call environment,FOLDER,LOCKED SET): exactly the locked set, then h2lite itself.

define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "h2lite needs Python 3.10 or later; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, ssl, venv' || { \
	    echo "$(PYTHON) lacks venv, pip or ssl; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(1) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $(2)
	@$(1)/bin/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation -e .
	@touch $@
endef

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	$(call environment,$(VENV),requirements/dev.txt)

$(PEERS_VENV)/.ready: requirements/peers.txt pyproject.toml
	$(call environment,$(PEERS_VENV),requirements/peers.txt)

$(PLOT_VENV)/.ready: requirements/plot.txt pyproject.toml
	$(call environment,$(PLOT_VENV),requirements/plot.txt)

# Locked sets: one resolution for every platform and every Python from 3.10 up, with the hashes of
# all published files.  Pins stay as they are unless asked: make lock LOCK_ARGS=--upgrade

UV_COMPILE = uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
    --no-config --no-python-downloads --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" $(LOCK_ARGS)
OURS = pyproject.toml --extra test --extra bench --extra certs -c requirements/dev.txt

lock:  ## resolve requirements/*.txt again (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv in PATH" >&2; exit 1; }
	$(UV_COMPILE) pyproject.toml --extra dev -o requirements/dev.txt
	$(UV_COMPILE) requirements/peers.in $(OURS) -o requirements/peers.txt
	$(UV_COMPILE) requirements/fuzz.in $(OURS) -o requirements/fuzz.txt
	$(UV_COMPILE) requirements/plot.in -c requirements/dev.txt -o requirements/plot.txt
