# Every target does its own set-up. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ROOT := $(CURDIR)
PY = "$(ROOT)/.venv/bin/python"
export PYTHONUNBUFFERED = 1
# Images of containers like to set this. Every process would then compile all it imports anew: half of a start.
unexport PYTHONDONTWRITEBYTECODE

# `make demo LANDING=/path/to/your/files` runs the pipeline on your own data.
ifneq ($(origin LANDING),undefined)
export PLUMBLINE__LANDING = $(LANDING)
endif

# `make demo SYSTEMS="a b"` runs these systems of training/ and no others.
ifdef SYSTEMS
comma := ,
space := $() $()
export PLUMBLINE__SYSTEMS = [$(subst $(space),$(comma),$(strip $(SYSTEMS)))]
endif

.PHONY: help setup demo test test-unit lint up down report bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: ## build the one environment (.venv); does nothing when it is there
	@bash scripts/setup.sh

.quiet-setup:
	@bash scripts/setup.sh --quiet

demo: .quiet-setup ## the whole pipeline on the bundled data, or on LANDING=path, under the real scheduler
	@$(PY) -m infra.demo

test: .quiet-setup ## all tests, two at a time (TIER=unit for one tier)
	@$(PY) -m pytest -n 2 --no-loadscope-reorder $(if $(TIER),tests/$(TIER),)

lint: .quiet-setup ## ruff and mypy (strict) on our packages
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

up: .quiet-setup ## Airflow, MLflow, Feast server and the report site on loopback
	@$(PY) -m infra.services up

down: ## stop what `make up` started
	@if [ -x $(PY) ]; then $(PY) -m infra.services down; else echo "stopped: nothing was running"; fi

report: .quiet-setup ## rebuild the analysts' report from what is committed
	@$(PY) -m dags.steps.report

bench: .quiet-setup ## benchmarks with ratios (NAME=publish for one)
	@$(PY) -m infra.bench $(NAME)

clean: ## stop what runs on build/ and remove it (all state and results); keeps the environment
	@if [ -f "$(ROOT)/build/run/services.json" ]; then PLUMBLINE__HOME="$(ROOT)/build" $(PY) -m infra.services down; fi
	@rm -rf "$(ROOT)/build"
