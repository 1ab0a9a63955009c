# `make help` lists what there is. Everything installs what it needs first, into .venv.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
NEWEST := .venv-newest
PYTHON := $(VENV)/bin/python
REQUIREMENTS := pyproject.toml constraints.txt scripts/venv scripts/python

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

# --- what a target needs -----------------------------------------------------------------------------

$(VENV)/.demo: $(REQUIREMENTS)
	scripts/venv $(VENV) "$$(scripts/python oldest)" demo
	@touch $@

$(VENV)/.lint: $(REQUIREMENTS) | packages
	scripts/venv $(VENV) "$$(scripts/python oldest)" lint
	@touch $@

$(VENV)/.test: $(REQUIREMENTS) | packages
	scripts/venv $(VENV) "$$(scripts/python oldest)" test
	@touch $@

$(VENV)/.django-suite: $(REQUIREMENTS) | packages
	scripts/venv $(VENV) "$$(scripts/python oldest)" django-suite
	@touch $@

$(VENV)/.bench: $(REQUIREMENTS) | packages
	scripts/venv $(VENV) "$$(scripts/python oldest)" bench
	@touch $@

$(NEWEST)/.test: $(REQUIREMENTS) | packages
	scripts/venv $(NEWEST) "$$(scripts/python newest)" test
	@touch $@

.PHONY: install packages
packages: ## Install the Debian packages the tests need (database servers; needs root if any is missing)
	@scripts/packages

install: $(VENV)/.demo $(VENV)/.lint $(VENV)/.test ## Install everything for work on the project into .venv

# --- what one does with it ---------------------------------------------------------------------------

.PHONY: demo demo-collector test attack django-suite sqlalchemy-suite beside lint format bench bench-instructions docs collector lock clean
demo: $(VENV)/.demo ## Run the example shop, drive it, show its audit trail (DEMO_ONCE=1: then end)
	$(PYTHON) examples/shop/demo.py $(if $(filter-out 0,$(DEMO_ONCE)),--once)

demo-collector: $(VENV)/.demo ## The same, with the Collector between the shop and the store
	$(PYTHON) examples/shop/demo.py --collector "$$(scripts/collector)" $(if $(filter-out 0,$(DEMO_ONCE)),--once)

test: $(VENV)/.test ## Run all tests, on the oldest and on the newest Python here (ARGS='-k …')
	@scripts/test $(ARGS)

attack: $(VENV)/.test ## Run the long forms of the tests that attack what we promise, print counts (hours)
	$(PYTHON) -m pytest -m attack --override-ini=timeout=3600 --durations=20 $(ARGS)

django-suite: $(VENV)/.django-suite ## Run all of Django's own tests with everything captured, on SQLite and PostgreSQL (ARGS='--log DIR')
	$(PYTHON) -m tests.library_suites.django.run --whole --database sqlite --database postgresql $(ARGS)

sqlalchemy-suite: $(VENV)/.test $(NEWEST)/.test ## Run SQLAlchemy's own tests with everything captured, 2.0 and 2.1, on SQLite and PostgreSQL (ARGS='--log DIR')
	$(PYTHON) -m tests.library_suites.sqlalchemy.run --whole --database sqlite --database postgresql $(ARGS)
	$(NEWEST)/bin/python -m tests.library_suites.sqlalchemy.run --whole --database sqlite --database postgresql $(ARGS)

beside: $(VENV)/.test ## Run beside each other distribution and agent, write the table of docs/beside.md (ARGS=aws for one)
	$(PYTHON) -m tests.beside $(ARGS)

lint: $(VENV)/.lint ## Style, types, the direction of imports, links in the documents
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(PYTHON) scripts/links.py

format: $(VENV)/.lint ## Rewrite the code in the project's style
	$(VENV)/bin/ruff check --fix-only --exit-zero .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.bench ## Measure, print figures beside goals, write benchmarks/results/*.json (ARGS='django_writes spans')
	$(PYTHON) -m benchmarks $(ARGS)

bench-instructions: ## Count instructions with valgrind: plain Django, and with otel-audit (ARGS='save POST')
	-@scripts/packages
	@test -e $(VENV)/.bench || $(MAKE) $(VENV)/.bench
	$(PYTHON) -m benchmarks.instructions $(ARGS)

docs: $(VENV)/.demo ## Write what the code knows: docs/configuration.md, the redaction in collector/config.yaml
	$(PYTHON) -m otel_audit.config.reference > docs/configuration.md
	$(PYTHON) -m otel_audit.redaction.collector collector/config.yaml

collector: ## Build the Collector distribution of collector/manifest.yaml, print where it is
	@scripts/collector

lock: $(VENV)/.test ## Write constraints.txt anew (ARGS=--upgrade: to the newest versions)
	scripts/venv $(NEWEST) "$$(scripts/python newest)"
	$(PYTHON) scripts/lock.py $(ARGS) $(PYTHON) $(NEWEST)/bin/python

clean: ## Remove the virtual environments and everything generated
	rm -rf $(VENV) $(NEWEST) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
