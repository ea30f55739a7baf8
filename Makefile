# One verb each. All run in .venv at the root; the first call makes it (.ci/venv), a second is quick.
# ARGS go to the tool: make test ARGS='-k ledger -x'
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
python := .venv/bin/python

.PHONY: help demo test lint types mutants bench base payload tools

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: payload ## fine-tune a real model on this computer, from plan to checked artifact
	@$(python) -m orchestrator.cli launch demo --provider local -y $(ARGS)

# Thousands of tests, many of real processes, share a few cores: what fails in the crowd is run once more by itself. Both
# results are printed, and a test that needed the second is a defect to mend.
test: payload tools ## every test, in a random order (the seed is printed), four at a time
	@OMP_NUM_THREADS=1 $(python) -m pytest -n 4 --dist worksteal $(ARGS) \
	  $(if $(ARGS),,|| OMP_NUM_THREADS=1 $(python) -m pytest --last-failed --last-failed-no-failures=none)

lint: base ## ruff: rules and formatting
	@$(python) -m ruff check . $(ARGS)
	@$(python) -m ruff format --check .

types: base ## mypy --strict on all that decides about money and processes
	@$(python) -m mypy $(ARGS)

mutants: payload tools ## seed known bugs, then all that a machine can think of; each must be caught or judged
	@$(python) tests/mutants/run.py $(ARGS)
	@$(if $(ARGS),,$(python) tests/mutants/generated.py)

bench: payload tools ## start-up, installed size, transfer and launch against their peers, as tables and JSON
	@$(python) bench/startup.py
	@$(python) bench/footprint.py
	@$(python) bench/transfer.py
	@$(python) bench/launch.py
	@$(python) bench/estimate.py
	@$(python) bench/store.py
	@$(python) bench/quote.py
	@$(python) bench/truth.py

base:
	@.ci/venv base

payload:
	@.ci/venv payload

tools:
	@.ci/venv tools
