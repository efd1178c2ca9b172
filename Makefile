# Daily commands. Each works on a fresh machine with Python 3.11 and make; CI runs the same ones.
PYTHON ?= $(firstword $(shell command -v python3.11 || command -v python3) python3.11)
VENV := .venv
BIN := $(VENV)/bin
# Two tests at a time suit the smallest machine we test on.
JOBS ?= 2
ROUNDS ?= 200
EXAMPLES ?= 300
SECONDS ?= 300
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo up test unit contracts integration e2e chaos chaos-fleet schemathesis fuzz lint bench bench-peers format clean

help: ## list these commands
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-18s %s\n", $$1, $$2}'

# $(call install,EXTRAS): uv when it is there, since it is ten times faster; pip otherwise, and when uv cannot resolve.
define install
	@if command -v uv >/dev/null 2>&1; then \
	  echo "installing with uv"; \
	  if [ -n "$${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS="$$PIP_FIND_LINKS"; fi; \
	  uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(1)]' && exit 0; \
	  echo "uv could not install; trying pip"; \
	fi; \
	echo "installing with pip, which takes a minute or two"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]'
endef

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "Modelyard needs Python 3.11 or later: install python3.11 and python3.11-venv, or name one: make PYTHON=python3.12"; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than 3.11; name another one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "the virtual environment could not be made; on Debian and Ubuntu: apt-get install python3.11-venv"; \
	  rm -rf $(VENV); exit 1; }

# What running needs, without the tools of development.
$(VENV)/.installed-run: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,local$(,)xgboost$(,)torch)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,dev)
	@touch $@ $(VENV)/.installed-run

, := ,

demo: $(VENV)/.installed-run ## train and predict on real data, print what was done, stop
	@$(BIN)/python -m deploy.demo

up: $(VENV)/.installed-run ## run the whole stack in the foreground until Ctrl-C
	@$(BIN)/modelyard up

test: $(VENV)/.installed-dev ## all tests and short kill loops
	$(PYTEST) -n $(JOBS) --dist loadfile tests/unit tests/contracts tests/integration tests/e2e
	$(MAKE) --no-print-directory chaos ROUNDS=3
	$(MAKE) --no-print-directory chaos-fleet ROUNDS=1

unit: $(VENV)/.installed-dev ## tests that need no server, in seconds
	$(PYTEST) -n $(JOBS) --dist loadfile tests/unit

contracts: $(VENV)/.installed-dev ## one suite per interface, on every driver
	$(PYTEST) -n $(JOBS) --dist loadfile tests/contracts

integration: $(VENV)/.installed-dev ## tests with real servers
	$(PYTEST) -n $(JOBS) --dist loadfile tests/integration

e2e: $(VENV)/.installed-dev ## tests that speak HTTP to a running stack
	$(PYTEST) tests/e2e

chaos: $(VENV)/.installed-dev ## kill everything at random moments: ROUNDS=200
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS)

chaos-fleet: $(VENV)/.installed-dev ## the same on PostgreSQL and S3, which are killed too: ROUNDS=200
	$(BIN)/python -m tests.chaos --records postgresql --objects rclone --rounds $(ROUNDS)

schemathesis: $(VENV)/.installed-dev ## ask for all that the OpenAPI document describes: EXAMPLES=300
	$(BIN)/python -m tests.described.run --examples $(EXAMPLES)

fuzz: $(VENV)/.installed-dev ## feed every parser with inputs of all kinds: SECONDS=300
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

bench: $(VENV)/.installed-dev ## figures, each against the bare library
	$(BIN)/python -m benchmarks

bench-peers: $(VENV)/.installed-dev ## predictions beside those of other servers, which it installs in .venv-peers
	$(BIN)/python -m benchmarks.peers

lint: $(VENV)/.installed-dev ## style, types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment, caches and what the demo left
	rm -rf $(VENV) .venv-peers .modelyard build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
