# Every target does its own set-up. `make` alone says what there is.
.DEFAULT_GOAL := help
.PHONY: help test demo dashboard lock audit clean lint types template unit coverage integration faults flood fuzz build e2e bench \
	deploy status logs send replay

# A uv that is installed is used; otherwise one is put into .uv, beside the project's own .venv.
UV := $(shell command -v uv || echo .uv/bin/uv)
UV_TO_MAKE := $(filter .uv/bin/uv,$(UV))
BIN := .venv/bin
# A company's own certificate authority is known to the machine, not to uv.
export UV_SYSTEM_CERTS := true
export SAM_CLI_TELEMETRY := 0
export PYTHONDONTWRITEBYTECODE := 1

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.uv/bin/uv: requirements-uv.txt
	@python3 -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@touch $@

.venv/installed: requirements-dev.txt .python-version | $(UV_TO_MAKE)
	@$(UV) venv --quiet --clear .venv
	@$(UV) pip sync --quiet --require-hashes requirements-dev.txt
	@touch $@

# A file's name goes through the environment as it was typed, so that make and the shell do not interpret it.
override EVENT := $(value EVENT)
export EVENT

demo: .venv/installed ## run the main job on the embedded cloud; EVENT=events/manual.json sends an event of your own
	@PYTHONPATH=src $(BIN)/python -m local.demo

dashboard: .venv/installed ## run the demo, and draw docs/dashboard.svg from what it has measured
	@EVENT= PYTHONPATH=src $(BIN)/python -m local.demo
	@PYTHONPATH=src $(BIN)/python -m local.dashboard

test: lint types template unit integration e2e ## install, lint, type-check and test

lint: .venv/installed
	@$(BIN)/ruff format --check --quiet . || { echo "make lint: run $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@echo "lint      ok"

types: .venv/installed
	@$(BIN)/mypy --no-error-summary
	@echo "types     ok"

template: .venv/installed
	@AWS_DEFAULT_REGION=us-east-1 $(BIN)/sam validate --lint >/dev/null
	@echo "template  ok"

unit: .venv/installed
	@$(BIN)/pytest -q -n auto --dist worksteal tests/unit

coverage: .venv/installed ## say which lines and branches of the functions the unit tests do not run
	@$(BIN)/pytest -q --cov --cov-report=term tests/unit

integration: .venv/installed
	@$(BIN)/pytest -q -n auto --dist worksteal -m "not long" tests/integration tests/ops tests/faults tests/fuzz

faults: .venv/installed ## break whatever can break, for half an hour; SEED=… repeats one run, RUNS=… does so many
	@PYTHONPATH=src:. $(BIN)/python -m tests.faults.campaign $(if $(SEED),--seed $(SEED)) $(if $(RUNS),--runs $(RUNS))

flood: .venv/installed ## let 35,000 agents be asked for at once, which takes some minutes
	@$(BIN)/pytest -q -m long tests/faults

# What it finds is written into a file beside this one, whose name it says.
fuzz: SECONDS ?= 60
fuzz: .venv/installed ## look for input that breaks something, for SECONDS=60 at each target
	@for target in intake answers; do \
		PYTHONPATH=src:. $(BIN)/python -m tests.fuzz.run $$target -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=512 \
			$$(mktemp -d) tests/fuzz/corpus/$$target events || exit 1; \
	done

# The functions as they are deployed, in Lambda's own runtime. Packing them takes a package registry.
e2e: .venv/installed
	@$(BIN)/pytest -q tests/e2e

build: .venv/installed ## pack the functions as `sam deploy` uploads them, and say how large they are
	@$(BIN)/python -m local.build

# On Linux alone. Packing takes a package registry; nothing else leaves the loopback.
bench: .venv/installed ## measure how fast, frugal and small the function is, in some minutes
	@PYTHONPATH=src:. $(BIN)/python -m bench

# What an operator does. Which stack is meant says STAGE, as samconfig.toml names it; REGION and STACK_NAME go before it.
STAGE ?= default
# What is typed reaches the commands through the environment, as it was typed: a shell would run what stands in backticks,
# and make what looks like one of its own functions, here or in the make that `sam build` runs.
TYPED := STAGE REGION STACK_NAME SINCE FILE SKIP_BAD BACKUP_REGION YES
$(foreach name,$(TYPED),$(eval override $(name) := $$(value $(name))))
export $(TYPED)
MAKEOVERRIDES :=
OPS = PYTHONPATH=src:. $(BIN)/python -m ops
WHERE = "--stage=$$STAGE" $${REGION:+"--region=$$REGION"} $${STACK_NAME:+"--stack-name=$$STACK_NAME"}

deploy: .venv/installed ## build and deploy STAGE=staging, as samconfig.toml has it
	@$(OPS) deploy $(WHERE)

status: .venv/installed ## say what waits, what was given up and whether there is a token; STAGE=…
	@$(OPS) status $(WHERE)

logs: .venv/installed ## show what both functions log, until Ctrl-C; STAGE=…, SINCE=10m
	@$(OPS) logs $(WHERE) $${SINCE:+"--since=$$SINCE"}

send: .venv/installed ## send the agents in FILE=agents.txt (- for stdin); STAGE=…, SKIP_BAD=1, BACKUP_REGION=ORD
	@[ "$$FILE" ] || { echo "make send: say which list: FILE=agents.txt, or FILE=- for the standard input" >&2; exit 2; }
	@$(OPS) send $(WHERE) $${SKIP_BAD:+--skip-bad} $${BACKUP_REGION:+"--backup-region=$$BACKUP_REGION"} -- "$$FILE"

replay: .venv/installed ## move the dead letters back into CaptureQueue; STAGE=…, YES=1 asks nothing
	@$(OPS) replay $(WHERE) $$([ "$$YES" = 1 ] && echo --yes)

lock: $(UV_TO_MAKE) ## pin the newest versions that fit, with hashes
	@echo uv | $(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url - -o requirements-uv.txt
	@$(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --group dev pyproject.toml -o requirements-dev.txt
	@$(UV) pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --python-version 3.13 --python-platform aarch64-manylinux2014 --constraint requirements-dev.txt pyproject.toml -o src/requirements.txt

# No part of `make test`: it needs the network, and a vulnerability that is found tomorrow is no fault of today's change.
# Strict, or a package that the service does not know would pass.
audit: .venv/installed ## ask which packages of the function have known vulnerabilities
	@$(BIN)/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r src/requirements.txt || \
		{ echo "make audit: above stands what is vulnerable, or why not every package could be asked about"; exit 1; }

clean: ## remove what the other targets made
	@rm -rf .venv .uv .aws-sam .coverage demo.log .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
