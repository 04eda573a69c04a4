# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN = .venv/bin
WORKERS ?= 2
# What one process of the tests has compiled of this package, the others need not.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-fast test-slow lint format figures benchmarks lock clean
.DEFAULT_GOAL := demo

# The environment: the locked versions, then this package itself, editable.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rlkit needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: .venv/ready ## the main result on scikit-learn's digits: predicted and measured learning
	$(BIN)/python -m experiments.stepwise --quiet

test: lint ## what CI runs: lint, import contracts, all tests but the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow"

test-fast: .venv/ready ## the library alone, without notebooks and whole experiments
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" tests/losses tests/metrics tests/theory tests/data

test-slow: .venv/ready ## the rest, and random tests on many more examples: a nightly job's
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "slow or hypothesis" --hypothesis-profile=thorough

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

figures: .venv/ready ## the figures of README, from scratch
	$(BIN)/python -m experiments.stepwise --quiet --overwrite --name=readme
	cp runs/stepwise/readme/figure.png docs/stepwise.png

benchmarks: .venv/ready ## benchmarks/README.md anew, beside what is installed of the extra `bench`
	mkdir -p runs/benchmarks
	for name in runs losses metrics manifolds poincare probabilistic; do \
		$(BIN)/python -m benchmarks.$$name --json=runs/benchmarks/$$name.json || exit 1; done
	$(BIN)/python -m benchmarks.page --records=runs/benchmarks > runs/benchmarks/page.md
	cp runs/benchmarks/page.md benchmarks/README.md

lock: ## newest versions that pyproject.toml allows, for Python 3.11
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check ".[dev]"
	.venv-lock/bin/python -m pip freeze --exclude rlkit --exclude setuptools | grep '==' | LC_ALL=C sort -f > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock build *.egg-info
