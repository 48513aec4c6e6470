# The commands of this project; `make` lists them.

MODEL ?= models/demo
PORT ?= 8000
URL ?= http://127.0.0.1:8000
ARGS ?=
# Whoever tries the demonstration may look at its thoughts.
DEMO_ARGS = $(if $(filter models/demo,$(MODEL)),--allow-return-thoughts)
DEVICE ?= $(shell nvidia-smi -L > /dev/null 2>&1 && echo cuda || echo cpu)

export VENV ?= .venv
export PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help serve loadtest benchmark test check lint format install demo-model clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

serve: ## install what is missing, then serve MODEL (models/demo) on PORT (8000); more options in ARGS
	@scripts/install $(DEVICE) pins project
	@scripts/serve $(MODEL) --port $(PORT) $(DEMO_ARGS) $(ARGS)

loadtest: ## what thoughts cost and buy at URL (127.0.0.1:8000; MODEL is started if none answers); options in ARGS
	@scripts/install $(DEVICE) pins loadtest project
	@scripts/loadtest $(URL) $(MODEL) $(ARGS)

benchmark: ## what thinking costs on this machine beside stock vLLM (docs/performance.md); options in ARGS
	@scripts/install $(DEVICE) pins loadtest project
	@scripts/benchmark table --model $(MODEL) $(ARGS)

test: lint ## lint, then run all tests, in two processes (-n); options for pytest in ARGS
	$(VENV)/bin/python -m pytest -n 2 $(ARGS)

check: lint ## lint, then run the fast tests, those that start no engine, server or training run
	$(VENV)/bin/python -m pytest -n 2 -m 'not slow' $(ARGS)

lint: install ## ruff, mypy and shellcheck, hadolint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/shellcheck scripts/* .ci/run
	$(VENV)/bin/hadolint Dockerfile

format: install ## let ruff rewrite the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

install: ## make the virtual environment (DEVICE=cpu|cuda; found by itself)
	@scripts/install $(DEVICE) pins training loadtest harness project dev browser balancer

demo-model: install ## make the demonstration model anew, from nothing, in models/demo (about an hour)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m training demo-model --out models/demo --force $(ARGS)

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
