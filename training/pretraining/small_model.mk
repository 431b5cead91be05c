# Recipe of the small model that ships in the package: `make small-model` (several hours on two cores).
# Every step is one command. After an interruption, the same call continues with the first step that is not finished; an
# unfinished data folder has to be removed first, and the step then says so. Pre-training runs on the CPU.
# Pre-training uses clips of other prompts (seeds 1 and 2) than the benchmark (seed 0), just as the paper's model starts
# from weights of other data (LSVQ, ImageReward). Only the last pre-training step uses the benchmark's train part, and
# nothing reads the benchmark's test part before the final evaluation.
PYTHON := .venv/bin/python
LAUNCH ?= $(PYTHON) -m accelerate.commands.launch --num_processes 1
OUT := outputs/small
CONFIGS := training/configs/small
SPLIT := --data $(OUT)/synthetic --split_file $(OUT)/synthetic/splits/prompt_disjoint_00.csv
PRETRAINING := --data $(OUT)/pretraining_data --split_file $(OUT)/pretraining_data/splits/prompt_disjoint_00.csv
MORE := --data $(OUT)/more_data --split_file $(OUT)/more_data/splits/prompt_disjoint_00.csv
export HF_HUB_OFFLINE ?= 1
export MALLOC_MMAP_THRESHOLD_ ?= 100000000
export MALLOC_TRIM_THRESHOLD_ ?= 2000000000

.DELETE_ON_ERROR:
all: $(OUT)/evaluation/metrics.json
	cp $< modeling_aigcvqa/assets/small/metrics.json

$(OUT)/synthetic/splits/leakage.json:
	$(PYTHON) -m dataset_scripts.synthetic_t2v --output $(OUT)/synthetic --num_prompts 1000 --seed 0 --size 256
	$(PYTHON) -m dataset_scripts.make_splits --data $(OUT)/synthetic --output $(OUT)/synthetic/splits

$(OUT)/pretraining_data/splits/leakage.json:
	$(PYTHON) -m dataset_scripts.synthetic_t2v --output $(OUT)/pretraining_data --num_prompts 1000 --seed 1 --size 256 \
		--skip_baselines
	$(PYTHON) -m dataset_scripts.make_splits --data $(OUT)/pretraining_data --output $(OUT)/pretraining_data/splits \
		--num_splits 1 --fractions 0.94 0.05 0.01

$(OUT)/more_data/splits/leakage.json:
	$(PYTHON) -m dataset_scripts.synthetic_t2v --output $(OUT)/more_data --num_prompts 2000 --seed 2 --size 256 \
		--unlike_seeds 0 1 --skip_baselines
	$(PYTHON) -m dataset_scripts.make_splits --data $(OUT)/more_data --output $(OUT)/more_data/splits \
		--num_splits 1 --fractions 0.94 0.05 0.01

$(OUT)/untrained/config.json:
	.venv/bin/aigcvqa init --preset small --output $(OUT)/untrained

$(OUT)/technical/training.json: $(OUT)/untrained/config.json $(OUT)/pretraining_data/splits/leakage.json
	$(PYTHON) -m training.pretraining.failures --config $(CONFIGS)/pretraining_technical.yaml $(PRETRAINING) \
		--init_from $(OUT)/untrained --output $(@D)

$(OUT)/technical_more/training.json: $(OUT)/technical/training.json $(OUT)/more_data/splits/leakage.json
	$(PYTHON) -m training.pretraining.failures --config $(CONFIGS)/pretraining_technical.yaml $(MORE) \
		--init_from $(OUT)/technical --no-whiten --epochs 2 --learning_rate 8e-4 --output $(@D)

$(OUT)/aesthetic/training.json: $(OUT)/technical_more/training.json
	$(PYTHON) -m training.pretraining.failures --config $(CONFIGS)/pretraining_aesthetic.yaml $(PRETRAINING) \
		--init_from $(OUT)/technical_more --output $(@D)

$(OUT)/alignment/training.json: $(OUT)/aesthetic/training.json
	$(PYTHON) -m training.pretraining.alignment --config $(CONFIGS)/pretraining_alignment.yaml $(PRETRAINING) \
		--init_from $(OUT)/aesthetic --output $(@D)

$(OUT)/mismatches/training.json: $(OUT)/alignment/training.json
	$(PYTHON) -m training.pretraining.mismatches --config $(CONFIGS)/pretraining_mismatches.yaml $(PRETRAINING) \
		--init_from $(OUT)/alignment --output $(@D)

$(OUT)/mismatches_more/training.json: $(OUT)/mismatches/training.json $(OUT)/more_data/splits/leakage.json
	$(PYTHON) -m training.pretraining.mismatches --config $(CONFIGS)/pretraining_mismatches.yaml $(MORE) \
		--init_from $(OUT)/mismatches --epochs 4 --output $(@D)

# The last pre-training step, on the train part of the benchmark itself.
$(OUT)/mismatches_own/training.json: $(OUT)/mismatches_more/training.json $(OUT)/synthetic/splits/leakage.json
	$(PYTHON) -m training.pretraining.mismatches --config $(CONFIGS)/pretraining_mismatches.yaml $(SPLIT) \
		--init_from $(OUT)/mismatches_more --epochs 4 --learning_rate 5e-4 --output $(@D)

$(OUT)/stage1/training.json: $(OUT)/mismatches_own/training.json
	$(LAUNCH) training/stage1.py --config $(CONFIGS)/stage1.yaml $(SPLIT) --init_from $(OUT)/mismatches_own --output $(@D)

$(OUT)/stage2/training.json: $(OUT)/stage1/training.json
	$(LAUNCH) training/stage2.py --config $(CONFIGS)/stage2.yaml $(SPLIT) --init_from $(OUT)/stage1 --output $(@D)

$(OUT)/stage3/training.json: $(OUT)/stage2/training.json
	$(LAUNCH) training/stage3.py --config $(CONFIGS)/stage3.yaml $(SPLIT) --init_from $(OUT)/stage2 --output $(@D)

modeling_aigcvqa/assets/small/config.json: $(OUT)/stage3/training.json
	$(PYTHON) -m training.pretraining.package_small --model $(OUT)/stage3

$(OUT)/evaluation/metrics.json: modeling_aigcvqa/assets/small/config.json
	$(PYTHON) -m training.evaluate --model small $(SPLIT) --output $(@D) --prompt_swap --overwrite
