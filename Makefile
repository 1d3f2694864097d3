# The template's own commands. One environment, .venv, serves the template and what it renders;
# it is set up on first use and again when a pin changes.

PYTHON ?= python3
VENV ?= .venv
RUN := "$(VENV)/bin/python"
# Without bytecode each process would compile all it imports: seconds instead of tenths of one.
export PYTHONDONTWRITEBYTECODE :=
TEMPLATE := {{cookiecutter.project_slug}}
LOCK := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-header --no-annotate --no-emit-index-url

ifeq ($(origin VENV),file)
READY := $(VENV)/.ready
CHECKOV := $(VENV)/checkov/.ready
endif

.DEFAULT_GOAL := help
.PHONY: help setup sandbox render test test-fast test-long lint fix bench generate lock

help: ## show this list
	@awk -F ':.* ## ' '/^[a-z-]+:.* ## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make .venv with the pinned packages

# One at a time: a second make waits for the lock that the shell holds on descriptor 9.
.venv/.ready: requirements.lock pyproject.toml
	@echo "Setting up .venv from requirements.lock: once, less than a minute"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: name one, as in 'make PYTHON=python3.12 setup'" >&2; exit 2; }
	@exec 9>>requirements.lock && $(PYTHON) -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' && \
	  { test -x .venv/bin/uv || { $(PYTHON) -m venv --clear .venv && \
	    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements.lock)"; }; } && \
	  .venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock && \
	  .venv/bin/uv pip install --quiet --python .venv/bin/python --offline --no-deps --no-build-isolation --editable . && \
	  touch $@

# Judges infra/ in the tests. It pins an old boto3, so it cannot live in .venv itself.
.venv/checkov/.ready: checkov.lock | .venv/.ready
	@echo "Setting up .venv/checkov from checkov.lock: once, seconds"
	@exec 9>>checkov.lock && $(PYTHON) -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' && \
	  $(PYTHON) -m venv --clear --without-pip .venv/checkov && \
	  .venv/bin/uv pip sync --quiet --python .venv/checkov/bin/python --require-hashes checkov.lock && \
	  touch $@

sandbox: render ## render with default answers and take a model to production, on this laptop
	@$(MAKE) --no-print-directory -C build/sandbox/my-model sandbox VENV="$$(cd "$(VENV)" && pwd)"

# Inside this repository the hook makes none, but a model version should name a commit, and GitHub deploys main.
render: $(READY) ## render with default answers into build/sandbox; what ran there before stays
	@$(RUN) tests/generated.py copy build/template
	@$(RUN) -m cookiecutter --no-input --default-config --overwrite-if-exists --output-dir build/sandbox build/template >/dev/null
	@cd build/sandbox/my-model && { git init --quiet && git add --all && git -c user.name=Template \
	  -c user.email=template@localhost -c commit.gpgsign=false commit --quiet --message "Render the template"; \
	  git branch --move --force main; } >/dev/null 2>&1 || true

test: $(READY) $(CHECKOV) ## all tests but those of `make test-long`
	$(RUN) -m pytest -n auto --dist worksteal -m "not long" --durations 15 $(PYTEST)

test-fast: $(READY) ## the tests that take moments
	$(RUN) -m pytest -n auto --dist worksteal -m "not slow and not long" $(PYTEST)

test-long: $(READY) $(CHECKOV) ## what takes long by nature, and all others three times in random order
	$(RUN) -m pytest -n auto --dist worksteal -m long --durations 15 $(PYTEST)
	@for seed in 1 2 3; do \
	  $(RUN) -m pytest -n auto --dist worksteal -m "not long" -p randomly --randomly-seed $$seed $(PYTEST) || exit 1; \
	done

lint: $(READY) ## formatter, linter and type checker on the template's own code; changes nothing
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

fix: $(READY) ## format, and repair what the linter can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(READY) ## measure; each benchmark prints one ratio
	@for bench in bench/*.py; do echo "$$bench" && $(RUN) "$$bench" || exit 1; done

generate: $(READY) ## renew what is derived: the README's table of questions, the hook's package names
	$(RUN) tests/generated.py

lock: $(READY) ## pin the newest allowed versions, here and in the rendered repo
	rm -rf build/lock
	$(RUN) tests/generated.py copy build/template
	$(RUN) -m cookiecutter --no-input --default-config --output-dir build/lock build/template >/dev/null
	$(MAKE) -C build/lock/my-model lock VENV="$$(cd "$(VENV)" && pwd)"
	cp build/lock/my-model/requirements.lock "$(TEMPLATE)/requirements.lock"
	cp build/lock/my-model/infra/trigger/requirements.lock "$(TEMPLATE)/infra/trigger/requirements.lock"
	$(RUN) -m $(LOCK) --group pyproject.toml:dev --group build/lock/my-model/pyproject.toml:dev \
	  --constraints "$(TEMPLATE)/requirements.lock" --output-file requirements.lock build/lock/my-model/pyproject.toml
	$(RUN) -m $(LOCK) --group pyproject.toml:checkov --output-file checkov.lock
	$(MAKE) generate
