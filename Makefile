# `make` alone lists what can be made. Everything sets up what it needs and can be repeated.
SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test check bench faults up down lock clean java java-if-possible monitoring

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(INSTALLED) java-if-possible ## Show the whole story, on a local Kafka where there can be one
	$(BIN)/driftline demo

test: $(INSTALLED) java monitoring ## Run all tests; they start a Kafka and a registry of their own
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(INSTALLED) ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

faults: $(INSTALLED) java ## Kill, stop, cut and corrupt for 200 rounds, and check the log from outside
	$(BIN)/python -m tests.faults.campaign $(ARGS)

bench: $(INSTALLED) java ## Run the benchmarks, each against a peer or a limit
	@for bench in bench/[a-z]*.py; do echo "== $$bench"; $(BIN)/python "$$bench" || exit 1; done

up: $(INSTALLED) java ## Start the local Kafka and the schema registry
	$(BIN)/driftline kafka start && $(BIN)/driftline registry start

down: $(INSTALLED) ## Stop both; their data stays
	$(BIN)/driftline registry stop; $(BIN)/driftline kafka stop

lock: ## Resolve the dependencies anew into both requirements.lock (needs uv)
	uv pip compile pyproject.toml --all-extras --group dev --universal --generate-hashes \
	  --no-annotate --custom-compile-command "make lock" -o requirements.lock
	uv pip compile pyproject.toml --all-extras --universal --generate-hashes \
	  --no-annotate --custom-compile-command "make lock" -c requirements.lock -o deploy/requirements.lock

clean: ## Remove the environment and the caches; the data in .driftline stays
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml deploy/setup.sh
	@deploy/setup.sh python $(VENV)
	@touch $@

java:
	@deploy/setup.sh java

java-if-possible:
	@deploy/setup.sh java || true

monitoring:
	@deploy/setup.sh monitoring
