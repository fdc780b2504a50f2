# Every target that needs the environment makes it first; `make` or `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
STAMP := .venv/.coeval-setup
SOURCES := sdk pipelines parity_checks feature_repo tests infra benchmarks

.PHONY: help setup demo test mutations exactness chaos chaos-offline chaos-replay faults soak soak-online
.PHONY: bench-catalog bench-stream bench-online bench-offline bench-backfill bench-freshness bench-drift bench-quality
.PHONY: bench-parity
.PHONY: lint types format lock up down status clean distclean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make the environment from locked files and fetch the Java artefacts
	@$(BIN)/python -m coeval_pipelines.local.artefacts >/dev/null

$(STAMP): requirements.lock requirements-bootstrap.lock pyproject.toml infra/setup.sh pipelines/coeval_pipelines/local/artefacts.lock
	@infra/setup.sh
	@touch $@

demo: setup ## Run the whole main job on real data; the exit code is the parity result
	@$(BIN)/python -m coeval_pipelines.demo

test: setup ## Run every test
	@infra/browser.sh
	@$(BIN)/pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder

mutations: setup ## Break every rule of the contract in every engine and show that the suite sees it
	@$(BIN)/python -m tests.support.contract

exactness: setup ## Compare two thousand generated training sets with the oracle, in both engines
	@COEVAL_TRAINING_SETS=$(or $(SETS),2000) $(BIN)/pytest tests/integration/test_training_exactness.py --durations=5 -o timeout=3600

chaos: setup ## Kill, wipe, pause and change a whole stack while a million records flow, and compare every value
	@$(BIN)/python -m tests.chaos

chaos-offline: setup ## Kill ingests, training sets and backfills twenty times, run them again, and compare every value
	@$(BIN)/python -m tests.chaos.offline

chaos-replay: setup ## Kill a stack while its answers are logged, and compute a hundred thousand of them again
	@$(BIN)/python -m tests.chaos.replay

faults: setup ## Put each known fault into a sound world, with three seeds, and see whether parity names it
	@$(BIN)/python -m tests.faults

bench-catalog: setup ## Measure imports, help, manifest, plan and apply, beside plain Feast
	@$(BIN)/python benchmarks/bench_catalog.py

bench-stream: setup ## Measure the stream's throughput and growth, beside Flink alone, Feast and plain Python
	@$(BIN)/python -m benchmarks.bench_stream

bench-online: setup ## Measure reads and the feature server beside redis-py's bare MGET and Feast
	@$(BIN)/python -m benchmarks.bench_online
	@$(BIN)/python -m benchmarks.bench_server

soak-online: setup ## Read for MINUTES=30 while Redis is killed, stopped and cut off
	@$(BIN)/python -m benchmarks.soak_online

bench-offline: setup ## Measure as-of joins and windows beside Feast, Spark's and DuckDB's own, and bare numpy
	@$(BIN)/python -m benchmarks.bench_offline

bench-backfill: setup ## Load a million keys while the stream runs and readers are served, and compare them all
	@$(BIN)/python -m benchmarks.bench_backfill

bench-freshness: setup ## Measure from producing an event to reading it, at 100, 1,000 and 10,000 a second
	@$(BIN)/python -m benchmarks.bench_freshness

bench-parity: setup ## Explain and replay a hundred thousand differences, and compare five million events beside plain diffs
	@$(BIN)/python -m benchmarks.bench_parity

bench-drift: setup ## Plant problems in real purchases and count what drift finds, and what it finds on clean days
	@$(BIN)/python -m benchmarks.bench_drift

bench-quality: setup ## Plant problems in real purchases and count what rules of quality find, and what on clean days
	@$(BIN)/python -m benchmarks.bench_quality

soak: setup ## Run the stream at a steady rate (MINUTES=60 RATE=500) and see whether it stays flat
	@MINUTES=$(or $(MINUTES),60) RATE=$(or $(RATE),500) $(BIN)/python -m benchmarks.soak

lint: setup ## Check style, format and the import rules between rooms
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/lint-imports --no-cache

types: setup ## Check types, strictly
	@$(BIN)/mypy

format: setup ## Format the code
	@$(BIN)/ruff check --fix --quiet $(SOURCES) || true
	@$(BIN)/ruff format $(SOURCES)

lock: setup ## Resolve pyproject.toml to requirements.lock again
	@$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 --constraint constraints.txt \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet -o requirements.lock

up: setup ## Start the local stack
	@$(BIN)/coeval up

down: ## Stop the local stack
	@if [ -x $(BIN)/coeval ]; then $(BIN)/coeval down; fi

status: setup ## Say how the local stack is
	@$(BIN)/coeval status

clean: down ## Stop the stack and forget its state
	@rm -rf $${COEVAL_HOME:-var}

distclean: clean ## Forget the environment too
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
