.DEFAULT_GOAL := help
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
DATA_DIR ?= data
BIN := .venv/bin
# Tests write much and none is about a cut of power: in memory, where there is room, they do not wait for a disk.
export PYTEST_DEBUG_TEMPROOT := $(shell [ "$$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 6000000 ] 2>/dev/null && echo /dev/shm)
# Compiled once and kept: else each process of the tests compiles and instruments a thousand modules for itself.
unexport PYTHONDONTWRITEBYTECODE
SOURCES := hatch_build.py $(shell find src -type f -not -name '*.pyc')

.PHONY: help run install install-dev install-finetune services lock check test test-long bench docs vendor screenshots

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "%-14s %s\n", $$1, $$2}'

run: install ## Install everything, create the first organization, serve, print the keys
	@$(BIN)/keepless serve --data-dir $(DATA_DIR) --host $(HOST) --port $(PORT) $(if $(wildcard keepless.toml),--config keepless.toml)

install: .venv/.package ## The environment alone, from the lock file with hashes

install-dev: .venv/.dev .venv/.finetune .venv/.package services ## What tests need: tools, torch, PostgreSQL, faketime

install-finetune: .venv/.finetune .venv/.package ## What fine-tuning needs on the machines that do it: torch

.venv/.run: requirements/run.lock
	@bash requirements/install run

.venv/.package: .venv/.run pyproject.toml $(SOURCES)
	@bash requirements/package

.venv/.dev: .venv/.run requirements/dev.lock
	@bash requirements/install dev

.venv/.finetune: .venv/.run requirements/finetune.lock requirements/finetune-cpu.lock requirements/finetune-cuda.lock
	@bash requirements/install finetune

services:
	@bash requirements/services

lock: ## Resolve the dependencies anew
	@bash requirements/lock

check: install-dev ## Fast: lint, types, import contracts, house rules, unit tests
	@bash lint/check
	@$(BIN)/pytest tests/unit tests/typing

test: install-dev ## README's second command: every test
	@$(BIN)/pytest --collect-only -qq > /dev/null 2>&1 & bash lint/check && wait # what is collected is compiled meanwhile
	@KEEPLESS_TEST_INSTALLED=1 $(BIN)/pytest -m "not long" -n 3 --dist loadfile --no-loadscope-reorder

test-long: install-dev ## Million-row cases and long runs
	@$(BIN)/pytest -m long

bench: install-dev ## Speed, against peers, in one run (see benchmarks/README.md)
	@$(BIN)/python -m benchmarks

vendor: ## Take the console's third-party files anew from npm, as pinned in web/
	@bash web/vendor

screenshots: install-dev ## Pictures of the console, on a deployment made for it, into dist/screenshots
	@PYTHONPATH=src:. $(BIN)/python -m tests.support.screenshots

docs: install-dev ## Write the generated documents anew
	@UPDATE_GOLDEN=1 $(BIN)/pytest tests/unit/test_docs.py
