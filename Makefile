# The template's own commands. One environment, .venv, serves the template and what it renders;
# it is set up on first use and again when a pin changes.

PYTHON ?= python3
VENV ?= .venv
RUN := "$(VENV)/bin/python"
# One test process more than cores: they often wait for others.
PROCESSES = $(shell $(PYTHON) -c "import os; print(1 + os.cpu_count())")
# Without bytecode each process would compile all it imports: seconds instead of tenths of one.
export PYTHONDONTWRITEBYTECODE :=
# Threads of XGBoost that wait sleep: beside other processes, spinning takes ten times as long.
export OMP_WAIT_POLICY := PASSIVE
# By default also in the folder that cookiecutter renders, which cannot render it.
export RUFF_CACHE_DIR := $(CURDIR)/.ruff_cache
IMAGES := $(basename $(wildcard src/sm_mlops/sandbox/images/*.in))
TEMPLATE := {{cookiecutter.project_slug}}
UV ?= $(VENV)/bin/uv
# The pinned uv, where there is none yet. It then makes the environment that it is a part of.
GET_UV = { test -x $(RUN) || $(PYTHON) -m venv $(VENV); } && { command -v "$(UV)" >/dev/null || \
  awk '/^uv==/ {found = 1} found {print; if (!/\\$$/) exit}' requirements.lock | $(RUN) -m pip install --quiet \
  --disable-pip-version-check --only-binary :all: --require-hashes --requirement /dev/stdin; }
# $(call pin,file,options): what is pinned there stays, conflict markers aside, unless it has to change or UPGRADE=1.
pin = sed -E '/^(<<<<<<<|=======|>>>>>>>|\|{7})/d' "$(1)" >build/lock/new && "$(UV)" pip compile --quiet --generate-hashes \
  --no-header --no-annotate --no-emit-index-url $(if $(UPGRADE),--upgrade) $(2) --output-file build/lock/new && mv build/lock/new "$(1)"

ifeq ($(origin VENV),file)
READY := $(VENV)/.ready
CHECKOV := $(VENV)/checkov/.ready
SKLEARN := $(VENV)/images/sklearn-1.9-0/ready
endif

.DEFAULT_GOAL := help
.PHONY: help setup sandbox render test test-fast test-long lint fix bench generate lock

help: ## show this list
	@awk -F ':.* ## ' '/^[a-z-]+:.* ## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make .venv with the pinned packages

# A second make waits for the lock that the shell holds on descriptor 9.
.venv/.ready: requirements.lock pyproject.toml cookiecutter.json $(filter %/xgboost-3.2-0.lock,$(IMAGES:=.lock))
	@echo "Setting up .venv from requirements.lock: once, less than a minute"
	@exec 9>>requirements.lock && $(PYTHON) -c 'import fcntl, sys; fcntl.flock(9, fcntl.LOCK_EX); (3, 11) <= sys.version_info < (3, 14) \
	  or sys.exit("$(PYTHON) is not Python 3.11, 3.12 or 3.13: name one, as in make PYTHON=python3.12 setup")' && $(GET_UV) && \
	  "$(UV)" pip sync --quiet --python $(RUN) --require-hashes --build-constraints requirements.lock requirements.lock && \
	  "$(UV)" pip install --quiet --python $(RUN) --offline --no-deps --no-build-isolation --editable . && \
	  $(RUN) -c "from sm_mlops.sandbox import images; images.make()" && touch $@

# Judges infra/ in the tests. It pins an old boto3, so it cannot live in .venv itself.
.venv/checkov/.ready: checkov.lock | .venv/.ready
	@echo "Setting up .venv/checkov from checkov.lock: once, seconds"
	@exec 9>>checkov.lock && $(PYTHON) -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' && \
	  $(PYTHON) -m venv --clear --without-pip .venv/checkov && \
	  .venv/bin/uv pip sync --quiet --python .venv/checkov/bin/python --require-hashes checkov.lock && \
	  touch $@

# The tests run it, if its Python is here; anybody else makes it with the first use.
.venv/images/sklearn-1.9-0/ready: src/sm_mlops/sandbox/images/sklearn-1.9-0.lock | .venv/.ready
	@$(RUN) -c "from sm_mlops.sandbox import images; images.interpreter() and images.make(images.HERE / 'sklearn-1.9-0.lock')" && \
	  { test ! -e $@ || touch $@; }

sandbox: render ## render with default answers and take a model to production, on this laptop
	@$(MAKE) --no-print-directory -C build/sandbox/my-model sandbox VENV="$$(cd "$(VENV)" && pwd)"

# Inside this repository the hook makes none, but a model version should name a commit, and GitHub deploys main.
render: $(READY) ## render with default answers into build/sandbox; keeps what ran there before
	@$(RUN) tests/support/generated.py copy build/template
	@$(RUN) -m cookiecutter --no-input --default-config --overwrite-if-exists --output-dir build/sandbox build/template >/dev/null
	@cd build/sandbox/my-model && { git init --quiet && git add --all && git -c user.name=Template \
	  -c user.email=template@localhost -c commit.gpgsign=false commit --quiet --message "Render the template"; \
	  git branch --move --force main; } >/dev/null 2>&1 || true

test: $(READY) $(CHECKOV) $(SKLEARN) ## all tests but those of `make test-long`
	$(RUN) -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder -m "not long" --durations 15 $(PYTEST)

test-fast: $(READY) ## the unit tests, in half a minute
	$(RUN) -m pytest -n auto --dist worksteal -m "not slow and not long" $(PYTEST)

test-long: $(READY) $(CHECKOV) $(SKLEARN) ## the slowest tests, and all others three times in random order
	$(RUN) -m pytest -n auto --dist worksteal -m long --durations 15 $(PYTEST)
	@for seed in 1 2 3; do \
	  $(RUN) -m pytest -n auto --dist worksteal -m "not long" -p randomly --randomly-seed $$seed $(PYTEST) || exit 1; \
	done

lint: $(READY) ## formatter, linter and type checker on the template's own code; changes nothing
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	"$(VENV)/bin/bandit" --quiet --configfile pyproject.toml --recursive src hooks
	"$(VENV)/bin/lint-imports" --no-cache --no-logo

fix: $(READY) ## format, and fix what the linter can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(READY) ## measure; each benchmark prints one ratio
	@for bench in bench/*.py; do echo "$$bench" && $(RUN) "$$bench" || exit 1; done

generate: $(READY) ## regenerate what is derived: the README's table of questions, the tree of a render, the regions
	$(RUN) tests/support/generated.py

# Of an image, whose Python is 3.12; the default one's packages run on 3.11, too.
%.pin:
	@$(GET_UV) && mkdir -p build/lock && $(call pin,$*.lock,--universal --python-version $(if $(findstring xgboost,$*),3.11,3.12) \
	  --override "$*.in" "$*.in")

# The rendered repo's lock first, by its own Makefile, with the tool from here.
lock: $(IMAGES:=.pin) ## pin what pyproject.toml needs, here and in the rendered repo, and change nothing else; UPGRADE=1 takes the newest
	@$(GET_UV) && rm -rf build/lock && mkdir -p build/lock && cp "$(TEMPLATE)"/Makefile "$(TEMPLATE)"/requirements.lock build/lock
	@sed -E 's/\{\{.*\}\}/x/' "$(TEMPLATE)/pyproject.toml" >build/lock/pyproject.toml && echo ../.. >build/lock/tool.txt
	@$(MAKE) --no-print-directory -C build/lock lock VENV="$$(cd "$(VENV)" && pwd)" && mv build/lock/requirements.lock "$(TEMPLATE)"
	@$(call pin,src/sm_mlops/platform/trigger/requirements.lock,--python-platform aarch64-manylinux2014 --python-version 3.13 \
	  --only-binary :all: --group pyproject.toml:trigger --constraints "$(TEMPLATE)/requirements.lock")
	@$(call pin,requirements.lock,--universal --python-version 3.11 --extra sandbox --group dev --no-emit-package sm-mlops \
	  --constraints "$(TEMPLATE)/requirements.lock" pyproject.toml)
	@$(call pin,checkov.lock,--universal --python-version 3.11 --group pyproject.toml:checkov)
