# make demo    propagate masks through two short clips and write overlays of the result
# make check   linter and fast tests, under 90 s on two cores
# make test    linter and all tests
# Each sets up .venv first.

PYTHON ?= python3
RUN = .venv/bin/python

.PHONY: demo check test clean

demo: .venv/.ready
	$(RUN) -m scripts.demo output/demo

check: .venv/.ready
	$(RUN) -m ruff check .
	$(RUN) -m pytest -m "not slow"

test: .venv/.ready
	$(RUN) -m ruff check .
	$(RUN) -m pytest

.venv/.ready: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv output
