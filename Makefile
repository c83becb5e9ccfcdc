# `make` lists the targets. Needs Python >= 3.11 and make, nothing else.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0
unexport PYTHONDONTWRITEBYTECODE  # every process that a test starts would compile all modules

.PHONY: help install run test check format bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(INSTALLED)  ## make .venv with the pinned dependencies

run: $(INSTALLED)  ## run the default experiment (ARGS="num_rounds=10 …" adds overrides)
	$(BIN)/fedmia run $(ARGS)

test: $(INSTALLED)  ## run the tests (ARGS="-k name" picks some)
	$(BIN)/python -m pytest $(ARGS)

check: $(INSTALLED)  ## lint, types, and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## put the code into its one layout
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## measure speed side by side; results belong in benchmarks/README.md
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/signals.py
	$(BIN)/python benchmarks/signals.py --resnet --long
	$(BIN)/python benchmarks/shadows.py
	$(BIN)/python benchmarks/attacks.py
	$(BIN)/python benchmarks/secagg.py
	$(BIN)/python benchmarks/secagg.py --many 1000
	$(BIN)/python benchmarks/secagg_legacy.py
	$(BIN)/python benchmarks/accounting.py
	$(BIN)/python benchmarks/central_dp.py
	$(BIN)/python benchmarks/dp_sgd.py
	$(BIN)/python benchmarks/mods.py
	$(BIN)/python benchmarks/training_defenses.py
	$(BIN)/python benchmarks/default_run.py

clean:  ## remove what the other targets made, except runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
