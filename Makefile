# make demo   a small clip, propagated, with pictures of the result
# make test   all tests and the linter
# Both set up everything they need in .venv first.

PYTHON ?= python3
RUN = .venv/bin/python

.PHONY: demo test clean

demo: .venv/.ready
	$(RUN) -m scripts.demo output/demo

test: .venv/.ready
	$(RUN) -m ruff check .
	$(RUN) -m pytest

.venv/.ready: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv output
