# make demo    propagate masks through two short clips and write overlays of the result
# make check   linter and fast tests, 1 to 2 minutes on two cores
# make test    linter and all tests
# Each sets up .venv first; only check and test install requirements-dev.txt.

PYTHON ?= python3
RUN = .venv/bin/python
INSTALL = .venv/bin/pip install --quiet --disable-pip-version-check
# One process per core, each with one thread, is faster than one process with all.
TESTS = OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist worksteal

.PHONY: demo check test clean

demo: .venv/.ready
	$(RUN) -m scripts.demo output/demo

check: .venv/.ready-tests
	$(RUN) -m ruff check .
	$(TESTS) -m "not slow"

test: .venv/.ready-tests
	$(RUN) -m ruff check .
	$(TESTS)

.venv/.ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.txt
	touch $@

.venv/.ready-tests: .venv/.ready requirements-dev.txt requirements-extras.txt
	$(INSTALL) -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv output
