# The two commands of this project: `make run` serves jokes, `make test` checks everything.
#
# Serving and telling live in .venv, without PyTorch; training, tests and tools in .venv-dev.

PYTHON ?= python3
RUN := .venv
DEV := .venv-dev
PIP_FLAGS := --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test system check lint types imports docs constraints bench secrets stack dockerfiles clean

run: $(RUN)/.ready  ## Set up what serving needs, serve the page and the API, say where
	$(RUN)/bin/joker serve

test: system $(DEV)/.ready lint types imports  ## Set up everything and run what CI runs
	OMP_NUM_THREADS=1 $(DEV)/bin/pytest -n 2 --dist loadfile

check: $(DEV)/.ready lint types imports  ## The same without the slow tests
	OMP_NUM_THREADS=1 $(DEV)/bin/pytest -n 2 --dist loadfile -m "not integration"

# kubectl comes with Debian's package kubernetes-client.
system:  ## Install the system packages that tests need, where that is allowed
	@for program in redis-server chromium; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
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

docs: $(DEV)/.ready  ## Write docs/cli.md anew from the commands' own help
	$(DEV)/bin/typer joker.cli utils docs --name joker --output docs/cli.md

bench: $(DEV)/.ready  ## Measure; RJOKES=file.csv varies real posts, DATA=prepared-folder trains on it
	$(DEV)/bin/python benchmarks/data_prepare.py $(if $(RJOKES),--rjokes $(RJOKES))
	$(if $(DATA),$(DEV)/bin/python benchmarks/training.py --data $(DATA))

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
