# make run    install, load the sample bucket, find anomalies, show what came of it
# make test   install what tests need, run tests, lint and types
# make check  the same without tests that need a server, a process, a browser or run after run: under a minute
# make dev    open the web page on http://127.0.0.1:3000
# make explore  open the page for looking at sensors on http://127.0.0.1:8080
# make lock   pin the newest versions of all dependencies

PYTHON ?= python3
PORT ?= 3000
EXPLORE_PORT ?= 8080
BIN := .venv/bin
DAGSTER_HOME := $(CURDIR)/dagster_home
EXPLORE_AT := IOT_EXPLORE_URL=$${IOT_EXPLORE_URL:-http://127.0.0.1:$(EXPLORE_PORT)}
DAGSTER := $(EXPLORE_AT) DAGSTER_HOME=$(DAGSTER_HOME) DAGSTER_MODULE_NAME=iot_pipeline.definitions $(BIN)
RUN_LOG := $(DAGSTER_HOME)/make-run.log
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

refuse_taken_port = $(BIN)/python -c "import socket; socket.create_server(('127.0.0.1', $(2)))" 2> /dev/null \
	|| { echo "port $(2) is taken: make $@ $(1)=$$(($(2) + 1))" >&2; exit 1; }

.PHONY: run test check lint dev explore lock clean

run: .venv/installed
	@echo "Materializing all assets …"
	@$(DAGSTER)/dg launch --assets '*' > $(RUN_LOG) 2>&1 || { tail -n 40 $(RUN_LOG); exit 1; }
	@$(BIN)/python -m iot_pipeline.cli.tour

test: lint
	$(BIN)/pytest

check: lint
	$(BIN)/pytest -m "not system and not docker" --hypothesis-profile quick

lint: .venv/installed-for-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

dev: .venv/installed
	@# Dagster would go on with a second daemon and no page.
	@$(call refuse_taken_port,PORT,$(PORT))
	@DAGSTER_HOME=$(DAGSTER_HOME) $(BIN)/python -m iot_pipeline.defs.orphans
	@# The shell may have the activation line's module name set, which excludes a workspace file.
	env -u DAGSTER_MODULE_NAME $(EXPLORE_AT) DAGSTER_HOME=$(DAGSTER_HOME) $(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port $(PORT)

explore: .venv/installed
	@$(call refuse_taken_port,EXPLORE_PORT,$(EXPLORE_PORT))
	@$(BIN)/iot-pipeline explore --port $(EXPLORE_PORT)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt pyproject.toml | .venv/bin/python
	@echo "Installing …"
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

.venv/installed-for-tests: requirements-dev.txt .venv/installed
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

lock: .venv/installed-for-tests
	$(BIN)/uv pip compile pyproject.toml --extra dagster --extra explore --upgrade --universal --python-version 3.11 --no-annotate --no-header --quiet -o requirements.txt
	$(BIN)/uv pip compile pyproject.toml --group dev -c requirements.txt --universal --python-version 3.11 --no-annotate --no-header --quiet -o requirements-dev.txt
	$(BIN)/uv pip compile pyproject.toml --extra alerts --extra compose --extra dagster --extra dask --extra explore -c requirements.txt --universal --python-version 3.11 --no-annotate --no-header --quiet -o requirements-compose.txt
	echo "-e ." >> requirements.txt

clean:
	rm -rf .venv data/warehouse
