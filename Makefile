# The two commands of this project: `make run` serves jokes, `make test` checks everything.
#
# Serving and telling live in .venv, without PyTorch; training, tests and tools in .venv-dev.

PYTHON ?= python3
RUN := .venv
DEV := .venv-dev
PIP_FLAGS := --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run setup test system check lint types imports docs site audit wheel-check constraints bench \
        secrets stack dockerfiles clean

run: $(RUN)/.ready  ## Set up what serving needs, serve the page and the API, say where
	$(RUN)/bin/joker serve

setup: $(DEV)/.ready  ## Set up training, tests and tools, and run nothing

test: system $(DEV)/.ready lint types imports  ## Set up everything and run what CI runs
	OMP_NUM_THREADS=1 $(DEV)/bin/pytest -n 2 --dist loadfile

check: $(DEV)/.ready lint types imports audit  ## The same without the slow tests, and the audit
	OMP_NUM_THREADS=1 $(DEV)/bin/pytest -n 2 --dist loadfile -m "not integration"

# kubectl comes with Debian's package kubernetes-client.
system:  ## Install the system packages that tests need, where that is allowed
	@for program in redis-server chromium curl jq nodejs; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	command -v kubectl >/dev/null || missing="$$missing kubernetes-client"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends $$missing; \
	else echo "Without$$missing some tests are skipped, and fail in CI; install them with your package manager"; fi

lint: $(DEV)/.ready
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .

types: $(DEV)/.ready
	$(DEV)/bin/mypy

imports: $(DEV)/.ready
	$(DEV)/bin/lint-imports

docs: $(DEV)/.ready  ## Write anew what of docs/ is written by programs: commands, settings, figures
	$(DEV)/bin/typer joker.cli utils docs --name joker --output docs/cli.md
	$(DEV)/bin/python tools/settings_page.py > docs/settings.md
	$(DEV)/bin/python tools/figures.py

site: $(DEV)/.ready  ## Build the website of docs/ into site/; a warning is an error
	$(DEV)/bin/zensical build --strict --clean

audit: $(DEV)/.ready  ## Compare the pinned versions with published advisories, where the internet is
	@$(DEV)/bin/python tools/audit.py constraints.txt

wheel-check: $(DEV)/.ready  ## Build the package and let it tell and serve a joke in an empty environment
	rm -rf dist
	$(DEV)/bin/python -m build
	$(DEV)/bin/python tools/wheel_check.py dist/*.whl constraints.txt

bench: $(DEV)/.ready  ## Measure; RJOKES=file.csv varies real posts, DATA=prepared-folder trains on it
	$(DEV)/bin/python benchmarks/data_prepare.py $(if $(RJOKES),--rjokes $(RJOKES))
	$(if $(DATA),$(DEV)/bin/python benchmarks/training.py --data $(DATA))
	$(DEV)/bin/python benchmarks/api_latency.py

# Containers run as users of their own, so the files can be read by all; the folder keeps others out.
secrets:  ## Draw the passwords that deploy/ asks for, once
	@mkdir -p -m 0700 deploy/secrets
	@for name in joker_broker_password mlflow_password; do \
	  test -s deploy/secrets/$$name || { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > deploy/secrets/$$name; chmod 0444 deploy/secrets/$$name; }; \
	done

stack: $(RUN)/.ready  ## Run web server, two workers and Redis as processes; Ctrl-C stops them
	$(RUN)/bin/python deploy/stack.py

dockerfiles: $(DEV)/.ready  ## Rehearse the Dockerfile without a container engine: root, debootstrap, 10 minutes
	$(DEV)/bin/python deploy/rehearse.py .rehearsal

constraints: $(DEV)/.ready  ## Pin what is installed now
	$(DEV)/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf $(RUN) $(DEV)

$(RUN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(RUN)
	$(RUN)/bin/pip install $(PIP_FLAGS) --editable .
	touch $@

# PyTorch comes first, so that a CPU build found beside this machine's pip settings is taken.
# optimum-intel asks for torchvision, which it does not need and which cannot be imported beside
# every build of PyTorch; where it cannot, it goes again, because it would take Transformers down.
$(DEV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install $(PIP_FLAGS) torch
	$(DEV)/bin/pip install $(PIP_FLAGS) --editable '.[train,dev]'
	$(DEV)/bin/python -c 'import torchvision' 2>/dev/null || $(DEV)/bin/pip uninstall --quiet --disable-pip-version-check --yes torchvision
	touch $@
