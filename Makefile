# Everything lives in .venv: a second `make` of anything installs nothing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: run test check bench bench-batch clean

run: $(STAMP)
	$(BIN)/flowrun specs/weather.yaml

test: $(STAMP)
	$(BIN)/pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m tests.bench

bench-batch: $(STAMP)
	$(BIN)/python -m tests.bench.batch

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $(STAMP)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
