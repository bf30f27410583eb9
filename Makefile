# Everything lives in .venv: a second `make` of anything installs nothing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: run test torture check bench bench-batch clean

run: $(STAMP)
	$(BIN)/flowrun specs/weather.yaml

test: $(STAMP)
	$(BIN)/pytest

# As in the tests, but 1,000 kills; each time with another seed, which it tells.
torture: $(STAMP)
	FLOWRUN_TORTURE_KILLS=1000 FLOWRUN_TORTURE_SEED=$${FLOWRUN_TORTURE_SEED:-$$(date +%s)} $(BIN)/pytest tests/torture -v -rP -o timeout=3600

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
