# The project's commands. Each makes .venv and installs what it needs on first use; after that it starts at once.
# On a machine without a GPU, torch's CPU build saves some gigabytes: set PIP_EXTRA_INDEX_URL to the index of CPU builds
# that pytorch.org names under "Get started".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Quiet twice: errors only.
INSTALL := $(PIP) install --quiet --quiet --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test check docs bench pins clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## install the package with everything a user needs into .venv
	@echo "Installed in $(VENV). Try: make demo, or $(BIN)/pplx-embed --help"

demo: $(VENV)/.installed ## what context, int8 and bits are worth on forty articles, with LangChain and LlamaIndex
	@$(BIN)/pplx-embed demo

# Containers tend to forbid bytecode, and then each process that the tests start compiles the package again.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.installed-test ## run the tests
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

check: $(VENV)/.installed-lint ## lint, format, types, layering
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-site ## build the documentation with its API reference into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Built. Open build/site/index.html"

bench: $(VENV)/.installed-benchmarks ## run the benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

pins: $(VENV)/.installed-test $(VENV)/.installed-lint $(VENV)/.installed-site $(VENV)/.installed-benchmarks ## rewrite constraints.txt
	@$(BIN)/python tools/pin.py > constraints.new && mv constraints.new constraints.txt
	@touch $(VENV)/.installed $^

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.created:
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; type: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "The venv module is missing; on Debian or Ubuntu type: apt install python3-venv"; exit 1; }
	@$(PIP) install --quiet --quiet "pip>=25.1"
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(INPUTS)
	@echo "Installing the package (torch is large: some minutes on a slow line)"
	@$(INSTALL) --editable ".[all]"
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	@echo "Installing what is needed for: $*"
	@$(INSTALL) --group $*
	@$(if $(filter test,$*),$(INSTALL) --no-deps --group test-no-deps)
	@touch $@
