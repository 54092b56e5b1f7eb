# make demo | test | check | docs | bench : each works on a fresh machine with Python 3.11+
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
SHARED_DATA := $(abspath ../shared/data)
export RECDISTILL_DATA ?= $(if $(wildcard $(SHARED_DATA)),$(SHARED_DATA),)

.PHONY: demo test check docs bench clean

PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[dev]'
	touch $@

$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -e $(VENV)/.installed || $(PIP) -e '.[llm,report]'
	touch $@

demo: $(VENV)/.demo  ## a simulated shop, a teacher, a student with and without it: a table and a picture
	$(BIN)/recdistill demo --out demo

test: $(VENV)/.installed  ## the tests, in JOBS processes
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: $(VENV)/.installed  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py tests/test_public_names.py tests/test_docs.py

docs: $(VENV)/.installed  ## rewrite the pages that are made from the code
	$(BIN)/python docs/make.py

bench: $(VENV)/.installed  ## every claim of speed, compared in one process run
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
