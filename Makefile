PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
KERNELS := $(VENV)/.kernels
# A process a core, each of one thread, file by file.
PYTEST := OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check fix bench nano eval docs clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Start the service, edit the samples through its API, lay out what came of it
	$(BIN)/python scripts/demo.py

test: $(KERNELS) ## Run the tests
	$(PYTEST) -m "not slow"

test-slow: $(KERNELS) ## Run the long tests too
	$(PYTEST)

check: $(INSTALLED) ## Lint, types, import contracts, lengths
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/lengths.py

fix: $(INSTALLED) ## Mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## Time an edit against the reference pipeline, on this machine: some fifteen minutes
	PYTHONPATH=tests $(BIN)/python -m benchmarks.run
	PYTHONPATH=tests $(BIN)/python -m benchmarks.loras
	PYTHONPATH=tests $(BIN)/python -m benchmarks.nano

nano: $(INSTALLED) ## Train the small checkpoint into build/nano: hours on a CPU, resumed where it was stopped
	$(BIN)/python -m training.run --out build/nano

eval: $(INSTALLED) ## Measure the shipped checkpoint's edits through the API, and write docs/nano-figures.md: half an hour
	$(BIN)/python -m training.evaluate --page docs/nano-figures.md

docs: $(INSTALLED) ## Write the docs pages that come from the code
	$(BIN)/python scripts/settings_page.py
	$(BIN)/python scripts/errors_page.py
	$(BIN)/python scripts/sizes_page.py

clean: ## Remove what the commands above have made
	rm -rf $(VENV) build

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Darkroom needs Python 3.11 or newer; name one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Triton, which interprets the GPU's kernels on a CPU: for the tests alone, it is large.
$(KERNELS): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[kernels]'
	@touch $@
