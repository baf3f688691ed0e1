# Every target sets up what is missing first, so that a new clone needs only `make demo` or `make test`.
SHELL := /bin/bash
# Not PYTHON: tools/dev/setup.sh uses that for the interpreter that creates .venv.
VENV_PYTHON := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup demo convergence test test-fast test-all lint format real benchmark gpu clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 20

setup:  ## create .venv with the stack (STACK=, TORCH=, PYTHON= choose another); about 3 minutes on 2 cores, later 2
	@bash tools/dev/setup.sh

demo: setup  ## train and test a detector and a segmentor on built-in data (about 6 minutes on 2 cores)
	@$(VENV_PYTHON) tools/dev/demo.py $(DEMO_ARGS)

convergence: setup  ## train every combination of backbone and head on built-in data (about 4 hours on 2 cores; resumable)
	@$(VENV_PYTHON) tools/dev/convergence_check.py $(CONVERGENCE_ARGS)

test: setup lint  ## lint and the tests (about 15 minutes on 2 cores)
	@$(VENV_PYTHON) -m pytest -m "not nightly" $(PYTEST_ARGS)

test-fast: setup  ## the tests that do not train (about 3 minutes on 2 cores)
	@$(VENV_PYTHON) -m pytest -m "not slow and not nightly and not campaign" $(PYTEST_ARGS)

test-all: setup lint  ## everything, with coverage: also many kills, full disks and damaged files, and development tools
	@RELIABILITY=long $(VENV_PYTHON) -m pytest --cov --cov-report=term --durations-min=60 $(PYTEST_ARGS)

lint: setup  ## ruff, codespell and mypy
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/codespell && .venv/bin/mypy

format: setup  ## format with ruff and apply its fixes
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

real: setup  ## overfit small sets of real COCO and ADE20K images (slow; tools/dev/benchmark_real.py lists the data)
	@$(VENV_PYTHON) tools/dev/benchmark_real.py $(REAL_ARGS)

benchmark: setup  ## time and memory of backbones, reference implementations and mmdet's (20 minutes on 2 idle cores)
	@$(VENV_PYTHON) tools/benchmark.py $(BENCHMARK_ARGS)

gpu: setup  ## check and measure on a GPU; writes gpu-report.md for an issue (GPU_ARGS=--quick: 8 minutes)
	@$(VENV_PYTHON) tools/check_gpu.py $(GPU_ARGS)

clean:  ## remove caches; keeps .venv, data and work_dirs
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
	@rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage*
