# The two main commands: `make run` serves jokes, `make test` checks everything.
#
# Serving uses .venv, without PyTorch; training, tests and tools use .venv-dev.

PYTHON ?= python3
RUN := .venv
DEV := .venv-dev
PIP_FLAGS := --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run setup test test-all system check lint types imports docs site audit wheel-check structure constraints bench \
        secrets stack clean

run: $(RUN)/.ready  ## Install what serving needs and serve the page and the API
	$(RUN)/bin/joker serve

setup: $(DEV)/.ready  ## Install everything for training, tests and tools

# Browsers, databases and queues on a busy machine time out now and then: such a test gets a second
# try, and the summary counts it as rerun. Nothing else does.
test: system $(DEV)/.ready lint types imports  ## Install everything and run what CI runs
	OMP_NUM_THREADS=1 $(DEV)/bin/pytest -n 2 --dist worksteal -m "not long" --reruns 1 --only-rerun 'Timeout|Locator expected' -r fER

test-all: system $(DEV)/.ready lint types imports  ## Like test, with the tests that take longest
	OMP_NUM_THREADS=1 $(DEV)/bin/pytest -n 2 --dist worksteal

check: $(DEV)/.ready lint types imports audit  ## Like test, without the slow tests but with the audit
	OMP_NUM_THREADS=1 $(DEV)/bin/pytest -n 2 --dist worksteal -m "not integration"

# kubectl comes with Debian's package kubernetes-client.
system:  ## Install the system packages that tests need (as root on Debian)
	@for program in redis-server chromium curl jq nodejs tini; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	command -v kubectl >/dev/null || missing="$$missing kubernetes-client"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends $$missing; \
	else echo "Tests that need$$missing are skipped here and fail in CI; install them with your package manager"; fi

lint: $(DEV)/.ready
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .

types: $(DEV)/.ready
	$(DEV)/bin/mypy

imports: $(DEV)/.ready
	$(DEV)/bin/lint-imports

docs: $(DEV)/.ready  ## Regenerate the generated pages and plots of docs/, and Kubernetes's alert rules
	$(DEV)/bin/typer joker.cli utils docs --name joker --output docs/cli.md
	$(DEV)/bin/python tools/settings_page.py > docs/settings.md
	$(DEV)/bin/python tools/diagrams.py
	$(DEV)/bin/python tools/prometheus_rule.py > deploy/kubernetes/monitoring/alerts.yaml

site: $(DEV)/.ready  ## Build the documentation website into site/; warnings are errors
	$(DEV)/bin/zensical build --strict --clean

audit: $(DEV)/.ready  ## Check the pinned versions for known vulnerabilities; needs internet access
	@$(DEV)/bin/python tools/audit.py constraints.txt

structure: $(DEV)/.ready  ## Count lines, modules and repeated names in the source
	$(DEV)/bin/python tools/structure.py

wheel-check: $(DEV)/.ready  ## Build the wheel and use it in a clean environment
	rm -rf dist
	$(DEV)/bin/python -m build
	$(DEV)/bin/python tools/wheel_check.py dist/*.whl constraints.txt

bench: $(DEV)/.ready  ## Run benchmarks; RJOKES=file.csv uses real posts, DATA=prepared-folder adds training
	$(DEV)/bin/python benchmarks/data_prepare.py $(if $(RJOKES),--rjokes $(RJOKES))
	$(if $(DATA),$(DEV)/bin/python benchmarks/training.py --data $(DATA))
	$(DEV)/bin/python benchmarks/api_latency.py

# Containers run as their own users, so the files are world-readable; the folder's mode protects them.
# The API key of a remote engine is not ours to draw: an empty one stands for none.
# Compose reads deploy/.env, and refuses to start before it names the folder.
secrets:  ## Generate the passwords for deploy/, once
	@mkdir -p -m 0700 deploy/secrets
	@for name in joker_broker_password mlflow_password database_password; do \
	  test -s deploy/secrets/$$name || { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > deploy/secrets/$$name; chmod 0444 deploy/secrets/$$name; }; \
	done
	@test -s deploy/secrets/joker_database || { \
	  printf 'postgresql+psycopg://joker:%s@database/joker' "$$(cat deploy/secrets/database_password)" > deploy/secrets/joker_database; \
	  chmod 0444 deploy/secrets/joker_database; }
	@test -e deploy/secrets/joker_engine_api_key || install -m 0644 /dev/null deploy/secrets/joker_engine_api_key
	@grep -qs '^JOKER_SECRETS=' deploy/.env || echo 'JOKER_SECRETS=./secrets' >> deploy/.env

stack: $(RUN)/.postgres  ## Run the web server, two workers and the databases as local processes; Ctrl-C stops them
	$(RUN)/bin/python deploy/stack.py

constraints: $(DEV)/.ready  ## Pin the installed versions
	$(DEV)/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf $(RUN) $(DEV)

$(RUN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(RUN)
	$(RUN)/bin/pip install $(PIP_FLAGS) --editable '.[server]'
	touch $@

# The web server of the stack keeps jokes in a PostgreSQL where the system has one.
$(RUN)/.postgres: $(RUN)/.ready
	$(RUN)/bin/pip install $(PIP_FLAGS) --editable '.[postgres]'
	touch $@

# PyTorch is installed first, so that pip picks a CPU build where its configured indexes have one.
# optimum-intel depends on torchvision without needing it. Where torchvision cannot be imported beside
# the installed PyTorch, it is removed, because Transformers would fail to import as well.
$(DEV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install $(PIP_FLAGS) torch
	$(DEV)/bin/pip install $(PIP_FLAGS) --editable '.[train,server,postgres,tracing,dev]'
	$(DEV)/bin/python -c 'import torchvision' 2>/dev/null || $(DEV)/bin/pip uninstall --quiet --disable-pip-version-check --yes torchvision
	touch $@
