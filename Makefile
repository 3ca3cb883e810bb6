# Two commands for a new user: `make demo` and `make test`. Both set up a virtual
# environment first; nothing is installed outside this folder.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
COLAB_PYTHON ?= $(or $(lastword $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python)),python3.12)
COLAB := .venv-colab
DATA ?=
OUT ?= runs/demo
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help setup demo test test-backends test-colab test-full lint format clean \
	bench-balancing bench-census bench-fold bench-input bench-layers bench-serving \
	bench-sparsity bench-two-stage bench-finetuning bench-peers

help:
	@echo "make demo                 train, fold, export and verify on synthetic tasks"
	@echo "make demo DATA=<folder>   the same on files of Census-Income or KuaiRand-Pure"
	@echo "make test                 unit, reference, conformance and end-to-end tests"
	@echo "make test-backends        the layers on JAX and PyTorch, against TensorFlow"
	@echo "make test-colab           notebooks and conformance tests with Colab's versions"
	@echo "make test-full            the long property runs and data sets"
	@echo "make lint                 lint, format and type checks"
	@echo "make bench-balancing      the README's figures of balanced tasks"
	@echo "make bench-census         the README's Census-Income figures (DATA=<folder>)"
	@echo "make bench-fold           the README's figures of a folded 2 x 8 x 64 network"
	@echo "make bench-input          the input pipeline against the step (DATA=<folders>)"
	@echo "make bench-layers         the README's figures of stacked layers"
	@echo "make bench-peers          training steps against DeepCTR's (PEER_PYTHON=<python>)"
	@echo "make bench-serving        latency, disk and loading of versions (CENSUS=<folder>)"
	@echo "make bench-finetuning     added tasks, distillation (CENSUS= and KUAIRAND=<folder>)"
	@echo "make bench-two-stage      retrieval and ranking in one version (MOVIELENS=<folder>)"
	@echo "make bench-sparsity       targets against AUC (CENSUS=<folder> KUAIRAND=<folder>)"

setup: $(VENV)/.ready

$(VENV)/.ready: setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable ".[dev]"
	touch $@

$(VENV)/.backends: $(VENV)/.ready
	$(RUN) -m pip install --quiet --editable ".[backends]"
	touch $@

$(COLAB)/.ready: setup.cfg constraints-colab.txt
	@$(COLAB_PYTHON) -c "import sys; assert sys.version_info[:2] == (3, 12)" || \
		{ echo "make test-colab needs Python 3.12, as Colab has: COLAB_PYTHON=<path of" \
		"python3.12>. Received: COLAB_PYTHON=$(COLAB_PYTHON)" >&2; exit 1; }
	$(COLAB_PYTHON) -m venv $(COLAB)
	$(COLAB)/bin/python -m pip install --quiet --upgrade pip
	$(COLAB)/bin/python -m pip install --quiet --constraint constraints-colab.txt \
		--editable ".[report,keras-rs,serving,tuner,test]"
	touch $@

demo: setup
	$(VENV)/bin/tfmtl demo $(if $(DATA),--data "$(DATA)") --out "$(OUT)"

test: setup
	$(RUN) -m pytest -n auto --dist loadfile -m "not slow and not backends"

test-backends: $(VENV)/.backends
	$(RUN) -m pytest -m backends tests/conformance

test-colab: $(COLAB)/.ready
	$(COLAB)/bin/python -m pytest -n auto --dist load tests/integration/test_notebooks.py
	$(COLAB)/bin/python -m pytest -n auto --dist loadfile -m "not slow and not backends" \
		tests/conformance

test-full: setup
	$(RUN) -m pytest -n auto --dist loadfile -m slow

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench-balancing: setup
	$(RUN) benchmarks/balancing.py
	$(RUN) benchmarks/balancing.py --studies

bench-input: setup
	$(RUN) benchmarks/input.py --data "$(DATA)"

bench-layers: setup
	$(RUN) benchmarks/layers.py

bench-peers: setup
	$(RUN) benchmarks/peers.py --peer-python "$(PEER_PYTHON)"

bench-census: setup
	$(RUN) benchmarks/census.py --data "$(DATA)"

bench-fold: setup
	$(RUN) benchmarks/fold.py

bench-serving: setup
	$(RUN) benchmarks/serving.py --census "$(CENSUS)"

bench-sparsity: setup
	$(RUN) benchmarks/sparsity.py share --census "$(CENSUS)" --kuairand "$(KUAIRAND)"
	$(RUN) benchmarks/sparsity.py fields --kuairand "$(KUAIRAND)"
	$(RUN) benchmarks/sparsity.py finetune --census "$(CENSUS)"

bench-finetuning: setup
	$(RUN) benchmarks/finetuning.py task --kuairand "$(KUAIRAND)"
	$(RUN) benchmarks/finetuning.py distil --census "$(CENSUS)" --seeds 0 1 2 3 4 5 6 7 8 9

bench-two-stage: setup
	$(RUN) benchmarks/two_stage.py --movielens "$(MOVIELENS)"

clean:
	rm -rf $(VENV) $(COLAB) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
