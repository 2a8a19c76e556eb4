# Trellis. `make` lists the commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
SOURCES := mesh sidecar services tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-quick explore explore-long mutants chaos postgres-versions sim sim-long bench gen clean

help: ## Lists the commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1@\2/' | column -t -s '@'

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) sh scripts/setup.sh run
	@touch $@

$(DEV_READY): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) sh scripts/setup.sh dev
	@touch $(READY) $@

setup: $(DEV_READY) ## Sets up .venv with everything that development needs.

demo: $(READY) ## Three hosts on this machine, real calls, a dead leader. KEEP=1 leaves them running.
	@$(BIN)/trellis demo $(if $(KEEP),--keep) $(DEMO_ARGS)

check: $(DEV_READY) ## Format, lint, types, layers, contracts and quick tests, in about a minute.
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/pytest -q -m 'not integration' tests

test: $(DEV_READY) ## Everything: checks, unit, story, contract and integration tests with real parts.
	@sh scripts/test.sh $(PYTEST_ARGS)

explore: $(DEV_READY) ## Every state of small Raft worlds, in seconds. WORLD=NAME for another, --list in EXPLORE_ARGS names them.
	$(BIN)/python -m tests.explorer --world $(or $(WORLD),small) $(EXPLORE_ARGS)

explore-long: $(DEV_READY) ## Millions of states of the larger Raft worlds, for half an hour or so.
	$(BIN)/python -m tests.explorer --world all --states 1500000 --minutes 30 --jobs 2 $(EXPLORE_ARGS)

mutants: $(DEV_READY) ## Does the simulator notice seeded bugs? One guard after another is broken; survivors are named.
	$(BIN)/python -m tests.mutants --jobs $(or $(JOBS),2) $(MUTANTS_ARGS)

chaos: $(DEV_READY) ## Faults of every kind on three real sidecars and their database. MINUTES=60 SEED=1, more in CHAOS_ARGS.
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

postgres-versions: $(DEV_READY) ## The database with every PostgreSQL that can be had here. VERSIONS="13 16"
	@sh scripts/postgres_versions.sh $(or $(VERSIONS),13 14 15 16 17)

sim: $(DEV_READY) ## Simulates one cluster that fails in many ways, and draws it. SEED=7
	@mkdir -p build
	$(BIN)/python -m tests.sim --seed $(or $(SEED),1) --html build/sim-$(or $(SEED),1).html

sim-long: $(DEV_READY) ## Simulates more than 500 hours of cluster life in 10,000 seeds; may be ended and goes on.
	$(BIN)/python -m tests.sim --seeds 10000 --hours 0.05 --jobs $(or $(JOBS),2) --keep build/sim-long.jsonl

bench: $(DEV_READY) ## Measures; NAME=failover, northbound, consensus, idle, supervision, db_failover or db_overhead (default: all).
	$(BIN)/python -m benchmarks $(NAME)

gen: $(DEV_READY) ## Generates the stubs beside each .proto.
	sh scripts/gen.sh protos

clean: ## Removes what set-up and tests made.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage build dist
