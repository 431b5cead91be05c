# `make demo` and `make test` set up what they need in .venv and reuse it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo space small-model test test-slow lint clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[train,demo,test]'
	touch $@

demo: $(VENV)/.installed
	rm -rf outputs/demo
	$(BIN)/python -m dataset_scripts.synthetic_t2v --output outputs/demo --num_prompts 2 --generators 4 --size 256 \
		--skip_baselines
	$(BIN)/aigcvqa score --manifest outputs/demo/data/train/metadata.jsonl --output outputs/demo/scores.jsonl

space: $(VENV)/.installed
	$(BIN)/python space/app.py

# Trains the model that ships in the package anew, some hours on two cores.
small-model: $(VENV)/.installed
	$(MAKE) -f training/small_model.mk

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) outputs
