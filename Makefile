# `make demo` and `make test` set up what they need in .venv and reuse it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOORS := .venv-floors
PACKAGES := modeling_aigcvqa training dataset_scripts
export HF_HUB_OFFLINE ?= 1

.PHONY: demo space small-model test test-slow test-floors test-integrations lint docs drawings clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[train,demo,test]'
	touch $@

demo: $(VENV)/.installed
	rm -rf outputs/demo
	$(BIN)/python -m dataset_scripts.synthetic_t2v --output outputs/demo --num_prompts 2 --generators 4 --size 256 \
		--skip_baselines
	$(BIN)/aigcvqa score --manifest outputs/demo/data/train/metadata.jsonl --output outputs/demo/scores.jsonl --scale

space: $(VENV)/.installed
	$(BIN)/python space/app.py

# Trains the model that ships in the package anew, some hours on two cores.
small-model: $(VENV)/.installed
	$(MAKE) -f training/pretraining/small_model.mk

# Two processes, each with one thread; the tests of a file stay together. Then those that kill processes, one by one.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not alone"
	$(BIN)/python -m pytest -q -m "alone and not slow"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m slow

# The lowest versions that pyproject.toml allows, in an environment of their own.
test-floors:
	$(PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python -m pip install --quiet --upgrade pip uv
	$(FLOORS)/bin/uv pip install --quiet --python $(FLOORS) --resolution lowest-direct --editable '.[train,demo,test]'
	$(FLOORS)/bin/python -m pytest -q

# The adapters in integrations/ with the real packages, each in an environment of its own.
test-integrations:
	for package in nemo-curator py-data-juicer; do \
		$(PYTHON) -m venv $(VENV)-$$package && \
		$(VENV)-$$package/bin/python -m pip install --quiet --editable . $$package pytest aiohttp "ray[data]" && \
		$(VENV)-$$package/bin/python -m pytest -q tests/integrations || exit 1; done

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	for package in $(PACKAGES); do \
		$(BIN)/import-linter drawgraph $$package | diff docs/drawings/$$package.dot - || exit 1; done

# The pictures of rooms and arrows in docs/, from the imports; needs Graphviz.
drawings: $(VENV)/.installed
	for package in $(PACKAGES); do \
		$(BIN)/import-linter drawgraph $$package > docs/drawings/$$package.dot && \
		dot -Tsvg docs/drawings/$$package.dot -o docs/drawings/$$package.svg || exit 1; done

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir outputs/site

clean:
	rm -rf $(VENV) $(VENV)-* $(FLOORS) outputs
