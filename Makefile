# All that a newcomer needs; `make` alone lists the targets. Further arguments: make test ARGS="-k refund"
PYTHON ?= python3.11
ARGS   ?=
JOBS   ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
CODE   := server ledger pos_adapters benchmarks tests proto
SOURCES_OF_API := $(shell find proto -name '*.proto') proto/generate.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo serve test check schema bench bench-full adversity fuzz proto released wheel lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## Make .venv with all dependencies and the project; the other targets do it by themselves

demo: setup ## Start everything, replay a month of real receipts, print a report
	$(BIN)/tallypoint demo $(ARGS)

serve: setup ## Run the service on an embedded database, with keys of its own
	$(BIN)/tallypoint serve --development $(ARGS)

test: setup ## Run all tests, in JOBS=2 processes; JOBS=0 for one
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup ## Run linters, formatter, type checker, layer contracts, and what the API must keep
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint .generated/api.binpb --config proto/buf.yaml
	$(BIN)/buf breaking .generated/api.binpb --against proto/released.binpb.gz --config proto/buf.yaml

schema: setup ## Prove that each schema.sql is what its migrations make; says what differs
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile $(ARGS) tests/integration/test_schema.py

bench: setup ## Measure everything in short rounds, and write a report with plots (about 8 minutes)
	$(BIN)/python -m benchmarks.report $(ARGS)

bench-full: setup ## The same in long rounds
	$(BIN)/python -m benchmarks.report --long $(ARGS)

adversity: setup ## Harm a running service 500 times under load, and prove that no promise was broken
	$(BIN)/python -m tests.adversity.run $(ARGS)

fuzz: setup ## Call every method with whatever anybody could send, and prove that nothing gave way
	$(BIN)/python -m tests.fuzz.run $(ARGS)

proto: setup ## Generate the Python API again
	$(BIN)/python proto/generate.py

released: setup ## Keep the API as it is now: later ones must not break it. To be run at each release
	$(BIN)/python proto/generate.py --released

wheel: setup ## Build the wheel into dist/
	$(BIN)/python -m hatchling build -t wheel

lock: setup ## Pin the newest dependencies that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev $(LOCK_FLAGS) -o .requirements/dev.txt
	$(BIN)/uv pip compile pyproject.toml -c .requirements/dev.txt $(LOCK_FLAGS) -o .requirements/runtime.txt

LOCK_FLAGS := --upgrade --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11

clean: ## Remove what was made here; databases in .data stay
	rm -rf $(VENV) .generated dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# The installer is one of the pinned packages: its lines are cut out of the file, the rest is its work.
$(VENV)/installed: .requirements/dev.txt
	@$(PYTHON) -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Python 3.11 or newer \
	with its module venv is missing. On Debian 12: apt-get install python3 python3-venv. Another name for it: \
	make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/^    # via/p' $< > $(VENV)/installer.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/installer.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r $<
	@touch $@

$(VENV)/ready: $(VENV)/installed pyproject.toml $(SOURCES_OF_API)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
