# Every target installs what it needs. `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help test demo dashboard lock audit clean lint types template unit coverage integration faults flood fuzz build e2e bench \
	deploy status logs send replay job

# An installed uv is used; otherwise one is installed into .uv.
UV := $(shell command -v uv || echo .uv/bin/uv)
UV_TO_MAKE := $(filter .uv/bin/uv,$(UV))
BIN := .venv/bin
# A company's own certificate authority is in the machine's store, which uv does not read by default.
export UV_SYSTEM_CERTS := true
export SAM_CLI_TELEMETRY := 0
export PYTHONDONTWRITEBYTECODE := 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.uv/bin/uv: requirements-uv.txt
	@python3 -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@touch $@

.venv/installed: requirements-dev.txt .python-version | $(UV_TO_MAKE)
	@$(UV) venv --quiet --clear .venv
	@$(UV) pip sync --quiet --require-hashes requirements-dev.txt
	@touch $@

# A file name reaches the command through the environment, so that make and the shell do not interpret it.
override EVENT := $(value EVENT)
export EVENT

demo: .venv/installed ## run the functions on an embedded cloud; EVENT=events/manual.json sends your own event
	@PYTHONPATH=src $(BIN)/python -m local.demo

dashboard: .venv/installed ## run the demo, and draw docs/dashboard.svg from its metrics
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

coverage: .venv/installed ## list the lines and branches of the functions that no unit test runs
	@$(BIN)/pytest -q --cov --cov-report=term tests/unit

integration: .venv/installed
	@$(BIN)/pytest -q -n auto --dist worksteal -m "not long" tests/integration tests/ops tests/faults tests/fuzz

faults: .venv/installed ## run the functions under random faults for half an hour; SEED=… repeats one run, RUNS=… limits them
	@PYTHONPATH=src:. $(BIN)/python -m tests.faults.campaign $(if $(SEED),--seed $(SEED)) $(if $(RUNS),--runs $(RUNS))

flood: .venv/installed ## capture 35,000 agents at once; takes some minutes
	@$(BIN)/pytest -q -m long tests/faults

# An input that fails is saved in this folder, in a file whose name is printed.
fuzz: SECONDS ?= 60
fuzz: .venv/installed ## search for inputs that break the parsers, SECONDS=60 for each parser
	@for target in intake answers; do \
		PYTHONPATH=src:. $(BIN)/python -m tests.fuzz.run $$target -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=512 \
			$$(mktemp -d) tests/fuzz/corpus/$$target events || exit 1; \
	done

# The functions as they are deployed, in Lambda's own runtime. Packing them needs a package registry.
e2e: .venv/installed
	@$(BIN)/pytest -q tests/e2e

build: .venv/installed ## pack the functions as `sam deploy` uploads them, and print their sizes
	@$(BIN)/python -m local.build

# Linux only. Packing needs a package registry; nothing else leaves the loopback.
bench: .venv/installed ## measure speed, cost and size against their goals; takes some minutes
	@PYTHONPATH=src:. $(BIN)/python -m bench

# Daily operation. STAGE chooses the stack, as samconfig.toml names it; REGION and STACK_NAME override the file.
STAGE ?= default
# Values reach the commands through the environment, as they were typed: a shell would run what is between backticks, and
# make what looks like one of its own functions, here or in the make that `sam build` runs.
TYPED := STAGE REGION STACK_NAME SINCE FILE SKIP_BAD BACKUP_REGION YES JOB CSV
$(foreach name,$(TYPED),$(eval override $(name) := $$(value $(name))))
export $(TYPED)
MAKEOVERRIDES :=
SAM = $(BIN)/sam
OPS = PYTHONPATH=src:. $(BIN)/python -m ops
OVERRIDES = $${REGION:+"--region=$$REGION"} $${STACK_NAME:+"--stack-name=$$STACK_NAME"}
STACK = "--stage=$$STAGE" $(OVERRIDES)

deploy: build ## build and deploy STAGE=staging, as samconfig.toml configures it
	@$(SAM) deploy "--config-env=$$STAGE" $(OVERRIDES)
	@echo "Next: put the token, if the secret does not hold it yet (README, Deploy). Then: make status"

logs: .venv/installed ## show the logs of both functions until Ctrl-C; STAGE=…, SINCE=10m
	@$(SAM) logs --tail "--config-env=$$STAGE" $(OVERRIDES) $${SINCE:+"--start-time=$$SINCE ago"}

status: .venv/installed ## show the queue, the dead letters by reason, and the token; STAGE=…
	@$(OPS) status $(STACK)

send: .venv/installed ## send the agents in FILE=agents.txt (- is standard input); STAGE=…, SKIP_BAD=1, BACKUP_REGION=ORD
	@[ "$$FILE" ] || { echo "make send: set FILE=agents.txt, or FILE=- for the standard input" >&2; exit 2; }
	@$(OPS) send $(STACK) $${SKIP_BAD:+--skip-bad} $${BACKUP_REGION:+"--backup-region=$$BACKUP_REGION"} -- "$$FILE"

replay: .venv/installed ## move the dead letters to CaptureQueue; STAGE=…, YES=1 asks for no confirmation
	@$(OPS) replay $(STACK) $$([ "$$YES" = 1 ] && echo --yes)

job: .venv/installed ## show what happened to the agents of JOB="night shift"; STAGE=…, CSV=file.csv
	@[ "$$JOB" ] || { echo "make job: set JOB=… to a job's name, or to the job_id of a notification" >&2; exit 2; }
	@$(OPS) job $(STACK) $${CSV:+"--csv=$$CSV"} -- "$$JOB"

lock: $(UV_TO_MAKE) ## pin the newest versions that are compatible, with hashes
	@echo uv | $(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url - -o requirements-uv.txt
	@$(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --group dev pyproject.toml -o requirements-dev.txt
	@$(UV) pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --python-version 3.13 --python-platform aarch64-manylinux2014 --constraint requirements-dev.txt pyproject.toml -o src/requirements.txt

# Not part of `make test`: it needs the network, and a vulnerability found tomorrow is not a fault of today's change.
# Strict, because a package that the service does not know would pass otherwise.
audit: .venv/installed ## list the packages of the function that have known vulnerabilities
	@$(BIN)/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r src/requirements.txt || \
		{ echo "make audit: see above for the vulnerable packages, or those that could not be checked"; exit 1; }

clean: ## remove what the other targets have created
	@rm -rf .venv .uv .aws-sam .coverage demo.log .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
