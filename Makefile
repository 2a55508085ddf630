# make setup | demo | test | lint | clean
#   PYTHON=python3.12    the Python interpreter
#   VENV=.venv           the folder of the virtual environment
#   TORCH_INDEX=         empty: PyTorch from PyPI (on Linux, the CUDA build, about 3 GB)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# For Linux, PyPI has only the CUDA build of torch. Without an NVIDIA driver, install the CPU build (0.2 GB) instead.
ifeq ($(shell uname -s)$(shell command -v nvidia-smi 2>/dev/null),Linux)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif

.PHONY: setup demo test lint clean

setup: $(VENV)/.installed

# Install torch first and alone, so that nothing else comes from the other index.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@index=""; \
	if [ -n "$(TORCH_INDEX)" ]; then \
		if $(BIN)/python -c "from urllib.request import urlopen; urlopen('$(TORCH_INDEX)/torch/', timeout=10)" 2>/dev/null; \
		then index="--extra-index-url $(TORCH_INDEX)"; \
		else echo "note: $(TORCH_INDEX) cannot be reached; torch comes from pip's own index"; fi; \
	fi; \
	set -x; $(BIN)/python -m pip install $$index -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[demo,dev,pyctcdecode,tune]'
	@touch $@

demo: setup
	$(BIN)/python recipes/mini/run.py
	$(BIN)/asr transcribe data/mini/audio/test/test-0001.wav -m exp/mini/model.asr --lm exp/mini/words.lm

# One thread: the tests' tensors are tiny, and with more threads the tests took twice as long.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Keeps data and trained models (data/, exp/): they may have taken days.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
