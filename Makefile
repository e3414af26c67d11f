# make ablation: the soft-label ablation on embedded data.  make test: the test suite.  Both install into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: ablation test test-through-ray test-sweeps-through-ray test-in-process check benchmark clean

ablation: .venv/installed
	$(BIN)/python -m siamray.sweep ablation=soft_labels

# Three parts at once on two processors: those that train through Ray wait for its processes most of the time.
test: check
	$(MAKE) --jobs=3 --output-sync=target --keep-going test-sweeps-through-ray test-through-ray test-in-process

# Where parts run at once, threads that wait for one another take each other's processor.
test-in-process: export OMP_NUM_THREADS = 1
test-in-process: export OPENBLAS_NUM_THREADS = 1
PYTEST := $(BIN)/python -m pytest --durations=15

test-in-process: .venv/installed
	$(PYTEST) --ignore=tests/benchmarks -m 'not slow'

test-through-ray: .venv/installed
	$(PYTEST) --ignore=tests/benchmarks --ignore=tests/sweeps -m slow

test-sweeps-through-ray: .venv/installed
	$(PYTEST) tests/sweeps -m slow

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: .venv/installed
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only -s

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist results runs
