# `make setup` makes .venv/ with everything to run; the other targets call it.
# Python 3.11 or newer and a C compiler are all that must be there before; the tests' Kafka broker needs
# Java 17 and Maven too, which `make test-setup` installs where it may, or says what else to set.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --disable-pip-version-check -c constraints.txt
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
# Of pip's many lines, those that say how far it is.
TELL := sed -u -n -e 's/^ *Downloading \([^ ]*\/\)\?\([^ ]*\)/  \2/p' -e 's/^Installing.*/  unpacking/p' -e '/^ERROR/p'
SOURCES := setup.py pyproject.toml constraints.txt $(wildcard fastpath/*.pyx fastpath/*.pxd fastpath/*.h) $(shell find proto -name '*.proto')

# What pyproject.toml says that the engine needs, and each extra that is named.
needs = $(shell $(PYTHON) -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*(f"\x27{n}\x27" for n in sum((p["optional-dependencies"][e] for e in sys.argv[1:]), p["dependencies"])))' $(1))

.PHONY: setup test-setup demo test chaos bench clean

setup: $(VENV)/.kernels

test-setup: $(VENV)/.test $(VENV)/.broker

$(VENV)/.packages: constraints.txt pyproject.toml
	@echo "setup 1/4: a virtual environment"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "setup: Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; give another one with PYTHON=...")'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "setup 2/4: packages (about 1 GB; some minutes on a slow line)"
	@$(PIP) --progress-bar off setuptools cython grpcio-tools numpy $(call needs) | $(TELL)
	@touch $@

$(VENV)/.built: $(VENV)/.packages $(SOURCES)
	@echo "setup 3/4: the compiled parts"
	@$(RUN) setup.py --quiet build_ext --inplace
	@$(PIP) --quiet --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.kernels: $(VENV)/.built engine/shared.py engine/contract/names.py $(wildcard engine/inference/*.py engine/inference/models/*.py)
	@echo "setup 4/4: the kernels"
	@$(RUN) -m engine.inference.warm
	@touch $@

$(VENV)/.test: $(VENV)/.kernels
	@echo "setup: packages for the tests"
	@$(PIP) --progress-bar off $(call needs,test bench) | $(TELL)
	@touch $@

$(VENV)/.broker: tests/system/broker/pom.xml tests/system/broker/get.sh
	@echo "setup: a Kafka broker for the tests (about 40 MB)"
	@mkdir -p $(VENV)
	@sh tests/system/broker/get.sh $(VENV)/kafka
	@touch $@

demo: setup
	@$(RUN) -m engine demo

test: test-setup
	@$(RUN) -m pytest

# Faults at random instants for CHAOS_SECONDS; TICKPATH_CHAOS_SEED repeats a run's.
CHAOS_SECONDS ?= 3600
chaos: test-setup
	@TICKPATH_CHAOS_SECONDS=$(CHAOS_SECONDS) $(RUN) -m pytest -s -m chaos tests/system/test_chaos.py

bench: test-setup
	@$(RUN) -m bench

clean:
	rm -rf $(VENV) build *.egg-info .numba bench/results
	find fastpath \( -name '*.so' -o -name '*.c' \) -delete
	rm -rf engine/contract/common engine/contract/ml engine/contract/trading
