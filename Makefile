.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EVENT ?= workflow_dispatch
AUDIT := $(BIN)/pip-audit --progress-spinner off --disable-pip --require-hashes -r requirements.txt
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Each process of the tests would compile all of them anew, which takes five seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check audit coverage soak fuzz bench readme act lock clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.installed ## see what a run does, on a recorded history; no account, no network
	$(BIN)/maintainer demo

test: check $(VENV)/.installed ## all that CI runs: format, lint, types, tests (under five minutes)
	$(BIN)/pytest -n auto -m "not soak"

check: $(VENV)/.installed ## format, lint, layers, types, insecure calls, known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml --severity-level medium --confidence-level medium maintainer migrations
	@told=$$($(AUDIT) --timeout 5 2>&1) && ! echo "$$told" | grep -q "could not be audited" \
	  || if echo "$$told" | grep -q "^Found .* known"; then echo "$$told"; exit 1; \
	  else echo "pip-audit could not ask pypi.org about all that is locked"; fi

audit: $(VENV)/.installed ## known vulnerabilities once more, and fail if pypi.org could not be asked
	@$(AUDIT) --strict \
	  || { echo "make audit: something is vulnerable, or pypi.org could not be asked about it: see above"; exit 1; }

coverage: $(VENV)/.installed ## branches of all that is pure, which must be 100 %; then a figure for the entire package
	HYPOTHESIS_PROFILE=coverage $(BIN)/pytest -n auto -m "not soak" --cov --cov-report=term-missing:skip-covered tests/unit
	$(BIN)/pytest -n auto -m "not soak" --cov --cov-append --cov-report= --cov-fail-under=0 tests/integration tests/stores
	@echo "the entire package, in the tests' own processes: $$($(BIN)/coverage report --format=total --include='maintainer/*' --fail-under=0) %"

soak: $(VENV)/.installed ## the tests that need longer
	HYPOTHESIS_PROFILE=soak $(BIN)/pytest -n auto -m "soak or not soak"

fuzz: $(VENV)/.installed ## look for input that breaks a reader, two minutes each; installs atheris
	$(BIN)/pip install --quiet "atheris>=3,<4"
	for target in decoder keys token settings; do \
	  $(BIN)/python -m tests.fuzz $$target -max_total_time=120 -timeout=20 -rss_limit_mb=2048 || exit 1; done

bench: $(VENV)/.installed ## measure; prints the tables of the README
	$(BIN)/pytest benchmarks --benchmark-only --benchmark-timer=time.process_time --benchmark-columns=min,median,rounds --benchmark-sort=name

readme: $(VENV)/.installed ## write the parts of the README that follow from code
	$(BIN)/python -m tests.readme

act: $(VENV)/.installed ## run the workflows of REPOSITORY by `act`, on an emulated cache
	@$(BIN)/python -m tests.acceptance.try_workflow "$(REPOSITORY)" "$(EVENT)"

lock: ## lock the newest versions that pyproject.toml allows
	$(BIN)/pip install --quiet uv
	$(LOCK) --upgrade --group dev --group third-party -o requirements.txt
	$(LOCK) --constraint requirements.txt --group build -o config/action/requirements.txt

clean: ## remove what the targets above made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks .coverage dist build
