# Every target prepares what it needs: the first one that runs makes .venv and fills it from the pinned requirements.

# The first Python that is new enough and can make virtual environments; another one: make PYTHON=/path/to/python ...
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; \
	done)

VENV := .venv/bin/python
INSTALL := $(VENV) -m pip install -qq --disable-pip-version-check --no-input

export PYTHONPATH := $(CURDIR)/plugins:$(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: help demo loop picture test test-long test-snowflake bench lint vulnerabilities migrate forget restored check airflow clean

help: ## what there is to run (the default)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: .venv/installed ## the whole pipeline on a made-up warehouse; ONCE=1: end by itself with the verdict
	@$(VENV) -m sandbox demo

loop: .venv/installed ## a stand-in for Loop's API with a made-up shop's returns, to try loop_attentive_sync on
	@$(VENV) -m sandbox loop

test: .venv/installed-dev ## every test but the long ones, by two processes; ARGS="-k pace": some of them
	@$(VENV) -m pytest -m "not long" -p tests.by_file -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: .venv/installed-dev ## the tests that take minutes
	@$(VENV) -m pytest -m long $(ARGS)

test-snowflake: .venv/snowflake/installed ## connectors on Snowflake and DuckDB by their providers; a sync into Snowflake
	@.venv/snowflake/bin/python -m pytest $(addprefix tests/connectors/,test_story.py test_beside.py test_sync.py) \
		-k "snowflake or (duckdb and story)" $(ARGS)

picture: .venv/installed-dev ## the pictures of the UI in docs anew: the demo, and what the UI shows then (needs chromium)
	@$(VENV) -m sandbox picture

bench: .venv/installed-bench ## every benchmark, in an hour or two; ARGS="--quick": in minutes; ARGS="--only sending": one
	@$(VENV) -m benchmarks $(ARGS)

lint: .venv/installed-dev ## style (ruff) and types (mypy)
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy

vulnerabilities: .venv/installed .venv/audit/installed ## whether any pin has a known vulnerability
	@$(VENV) -m sandbox.vulnerabilities .venv/audit/bin/pip-audit -r requirements.txt --no-deps --disable-pip

migrate: .venv/installed ## bring mirror and ledger up to date; TO=revision or TO=base: to there, forwards or backwards
	@$(VENV) -m sandbox migrate $(TO)

forget: .venv/installed ## the people whose phones or e-mails come in by standard input; SHOP=name, DELETE_AT_ATTENTIVE=yes
	@$(VENV) -m sandbox forget $(if $(SHOP),--shop "$(SHOP)") $(if $(DELETE_AT_ATTENTIVE),\
		$(if $(filter yes,$(DELETE_AT_ATTENTIVE)),--delete-at-attentive,$(error DELETE_AT_ATTENTIVE is yes, or left out)))

restored: .venv/installed ## after the ledger came back from a backup, before its DAGs run again (docs/restore.md); SHOP=name
	@$(VENV) -m sandbox restored $(if $(SHOP),--shop "$(SHOP)")

check: .venv/installed ## what the warehouse tells, and what it would have made, before anything is sent; SHOP=name
	@$(VENV) -m sandbox check $(if $(SHOP),--shop "$(SHOP)")

airflow: .venv/installed ## ARGS="dags test loop_attentive_hourly": any Airflow command, in the sandbox where you set nothing else
	@$(VENV) -m sandbox airflow $(ARGS)

clean: ## remove the virtual environment, the sandbox with all its data, and caches
	rm -rf .venv .sandbox .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: requirements.txt
	@test -n "$(PYTHON)" || { \
		echo "No Python 3.11 or newer with the module venv was found (on Debian: apt install python3-venv)." \
			"Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Installing requirements.txt into .venv with $(PYTHON): once, a minute or two ..."
	@$(PYTHON) -m venv --clear .venv
	@$(INSTALL) -r requirements.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	@echo "Installing requirements-dev.txt into .venv ..."
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

.venv/installed-bench: requirements-bench.txt .venv/installed
	@echo "Installing requirements-bench.txt into .venv ..."
	@$(INSTALL) -r requirements-bench.txt
	@touch $@

# By itself: Snowflake's provider needs an older SQLAlchemy than the project's pins.
.venv/snowflake/installed: requirements-snowflake.txt .venv/installed
	@echo "Installing requirements-snowflake.txt into .venv/snowflake ..."
	@$(PYTHON) -m venv --clear .venv/snowflake
	@.venv/snowflake/bin/python -m pip install -qq --disable-pip-version-check --no-input -r requirements-snowflake.txt
	@touch $@

# By itself: what it needs is none of the project's pins.
.venv/audit/installed: .venv/installed
	@echo "Installing pip-audit into .venv/audit ..."
	@$(PYTHON) -m venv --clear .venv/audit
	@.venv/audit/bin/python -m pip install -qq --disable-pip-version-check --no-input pip-audit==2.10.1
	@touch $@
