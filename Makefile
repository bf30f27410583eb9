# Everything lives in .venv: a second `make` of anything installs nothing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
TORCH := $(shell grep ^torch== requirements.txt)
UV := uv==0.13.9
PYTHONS := 3.11 3.12 3.13 3.14
# Tests start thousands of processes, each of which would compile flowrun anew where no bytecode is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-readers torture torch-by-uv check bench bench-batch clean

run: $(STAMP)
	$(BIN)/flowrun specs/weather.yaml

# The quick tests, four at once for they wait a lot; those that need the machine for themselves; then the quick ones on
# each other Python that is here.
test: $(STAMP)
	$(BIN)/pytest -q -n 4 -m "not vllm and not slow and not readers"
	$(BIN)/pytest -m "(vllm or slow) and not readers"
	@sh tests/other_pythons.sh $(PYTHONS)

# What others read of exports, and what asks served flows, each in an environment that its test makes: datasets, LangChain.
# And the newest vLLM, by its source.
test-readers: $(STAMP)
	$(BIN)/pytest -m readers tests/readers tests/clients -o timeout=3000

# As in the tests, but 1,000 kills (400 of command lines) and 2,000 specs; each time with another seed, which it tells.
torture: $(STAMP)
	FLOWRUN_TORTURE_KILLS=1000 FLOWRUN_TORTURE_SPECS=2000 FLOWRUN_TORTURE_SEED=$${FLOWRUN_TORTURE_SEED:-$$(date +%s)} $(BIN)/pytest tests/torture -v -rP -o timeout=3600

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry engine

bench: $(STAMP)
	$(BIN)/python -m tests.bench

bench-batch: $(STAMP)
	$(BIN)/python -m tests.bench.batch

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps $(TORCH) || $(MAKE) --no-print-directory torch-by-uv
	$(BIN)/pip install --quiet --no-deps -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $(STAMP)

# The CPU build of torch is not on PyPI, where pip looks by itself; uv knows the index that PyTorch has for it.
torch-by-uv:
	@echo "pip as it is configured here has no $(TORCH): uv looks for it"
	$(BIN)/pip install --quiet $(UV)
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --torch-backend=cpu $(TORCH)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
