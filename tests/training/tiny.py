"""A model and a data set that are small enough to train in a test."""

import csv
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from dataset_scripts.synthetic_t2v import make_benchmark
from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel
from modeling_aigcvqa.common.presets import default_processor, save_model_folder

TINY = {
    "technical_config": {
        "patch_size": [2, 8, 8],
        "embed_dim": 8,
        "depths": [1, 1, 1],
        "num_heads": [1, 1, 1],
        "fragment_bias": [True, True, False],
        "head_dropout": 0.1,
        "drop_path_rate": 0.1,
    },
    "aesthetic_config": {
        "patch_size": [2, 8, 8],
        "hidden_sizes": [8, 8, 16],
        "depths": [1, 1, 1],
        "layer_scale_init_value": 0.1,
        "head_dropout": 0.1,
    },
    "alignment_config": {
        "patch_size": 32,
        "vision_hidden_size": 16,
        "vision_num_hidden_layers": 2,
        "vision_num_attention_heads": 2,
        "text_hidden_size": 16,
        "text_num_hidden_layers": 2,
        "text_num_attention_heads": 2,
        "text_intermediate_size": 32,
        "max_position_embeddings": 64,
        "adapter_hidden_size": 8,
        "head_hidden_sizes": [8],
        "head_dropouts": [0.1],
    },
    "initializer_range": 0.1,
}


def tiny_model(dropout: bool = True, **overrides) -> AIGCVQAModel:
    config = AIGCVQAConfig(**{**TINY, **overrides})
    if not dropout:
        for part in (config.technical_config, config.aesthetic_config):
            part.head_dropout = 0.0
        config.technical_config.drop_path_rate = 0.0
        config.alignment_config.head_dropouts = [0.0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AIGCVQAModel(config)


def tiny_folder(folder: Path, dropout: bool = True, **overrides) -> Path:
    """Save the tiny model with a processor that reads four frames."""
    model = tiny_model(dropout, **overrides)
    return save_model_folder(model, default_processor(model.config, num_frames=4), folder)


def tiny_data(folder: Path) -> tuple[Path, Path]:
    """Twenty synthetic clips of 64 x 64 pixels, and a split file: 12 for training, 4 for validation, 4 for testing."""
    rows = make_benchmark(folder / "data", num_prompts=5, generators=4, size=64)
    parts = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4
    with (folder / "split.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split"])
        writer.writerows([row["id"], part] for row, part in zip(rows, parts))
    return folder / "data", folder / "split.csv"


def forget_accelerator() -> None:
    """Let the next `Accelerator` of this process start with new settings."""
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
