# `make demo` and `make test` are all one needs: each sets up first what is missing.
SHELL := /bin/bash
# Not PYTHON: that is the interpreter that tools/setup.sh makes .venv with.
VENV_PYTHON := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup demo learn test lint format real benchmark clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 20

setup:  ## .venv with the whole stack; builds mmcv's ops once per machine (about 12 minutes on 2 cores, later 1)
	@bash tools/setup.sh

demo: setup  ## the main job on built-in data: train, test, pictures (about 10 minutes on 2 cores)
	@$(VENV_PYTHON) tools/demo.py $(DEMO_ARGS)

learn: setup  ## train every pairing of backbone and head, small ones on built-in data (about 3 hours on 2 cores; resumable)
	@$(VENV_PYTHON) tools/learn.py $(LEARN_ARGS)

test: setup lint  ## lint and the whole test suite (at most 15 minutes on 2 cores)
	@$(VENV_PYTHON) -m pytest $(PYTEST_ARGS)

lint: setup
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

format: setup  ## let ruff format the code and fix what it can
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

real: setup  ## the benchmark on real COCO and ADE20K pictures (slow; tools/benchmark_real.py says what it needs)
	@$(VENV_PYTHON) tools/benchmark_real.py $(REAL_ARGS)

benchmark: setup  ## time and memory of backbones against their slow forms and the hosts' (20 minutes on 2 idle cores)
	@$(VENV_PYTHON) tools/benchmark.py $(BENCHMARK_ARGS)

clean:  ## remove caches; keeps .venv, data and work_dirs
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
	@rm -rf .pytest_cache .ruff_cache
