# `make tour` and `make test` set everything up on a fresh machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: tour test lint goldens clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test,lint]"
	touch $@

tour: $(VENV)/.ready
	$(BIN)/tinyrnn tour $(ARGS)

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n auto $(ARGS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/mypy

# The recorded answers of PyTorch; needs `pip install torch==2.13.0`.
goldens: $(VENV)/.ready
	$(BIN)/python -m tinyrnn_tests.goldens

clean:
	rm -rf $(VENV) tour build dist
