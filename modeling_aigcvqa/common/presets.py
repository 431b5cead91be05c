"""Models and processors that the installed package can create without a download."""

from pathlib import Path

import torch
from transformers import BertTokenizer

from ..configuration_aigcvqa import AIGCVQAConfig
from ..modeling_aigcvqa import AIGCVQAModel
from ..processing_aigcvqa import AIGCVQAProcessor
from ..provenance_aigcvqa import Provenance
from ..video_processing_aigcvqa import AIGCVQAVideoProcessor
from .choices import ARCHITECTURES
from .files import apply_umask

VOCABULARY = Path(__file__).parents[1] / "assets" / "small" / "vocab.txt"
# ImageReward cuts prompts at 35 tokens, but prompts for today's generators are longer; BERT has 512 positions.
MAX_PROMPT_TOKENS = 256
FRAGMENT_GRID = 7  # fragments per side, the size of the maps


def default_tokenizer(max_length: int = MAX_PROMPT_TOKENS) -> BertTokenizer:
    """BERT-uncased with the tokens [DEC] (30522) and [ENC] (30523): the vocabulary of BLIP and ImageReward."""
    tokens = VOCABULARY.read_text(encoding="utf-8").splitlines()
    tokenizer = BertTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, do_lower_case=True, model_max_length=max_length
    )
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def default_processor(config: AIGCVQAConfig, num_frames: int = 16) -> AIGCVQAProcessor:
    """The processor for a model of `config`. Both views have the image size of the alignment branch."""
    part = config.alignment_config
    return AIGCVQAProcessor(
        AIGCVQAVideoProcessor(
            num_frames=num_frames,
            size={"height": part.image_size, "width": part.image_size},
            fragment_grid=FRAGMENT_GRID,
            fragment_size=part.image_size // FRAGMENT_GRID,
        ),
        default_tokenizer(min(MAX_PROMPT_TOKENS, part.max_position_embeddings)),
        requires_prompt="alignment" in config.branches,
    )


def untrained_model(architecture: str = "small", seed: int = 0) -> AIGCVQAModel:
    """A model with random weights, in eval mode; its provenance says that it is untrained.

    Args:
        architecture: "full" (the size in the paper) or "small".
        seed: seed of the weights.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"preset={architecture!r}: expected one of {list(ARCHITECTURES)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AIGCVQAModel(AIGCVQAConfig() if architecture == "full" else AIGCVQAConfig.small()).eval()
    parts = [f"{branch}_{part}" for branch in model.config.branches for part in ("backbone", "head")]
    model.config.set_provenance(Provenance(untrained=[*parts, "alignment_adapter"]))
    return model


def save_model_folder(model: AIGCVQAModel, processor: AIGCVQAProcessor, folder: str | Path, **options) -> Path:
    """Save weights, config, processor, tokenizer and code to one folder that the Auto classes and `pipeline` load.

    Args:
        options: passed to the model's `save_pretrained` (`max_shard_size`, ...).
    """
    model.save_pretrained(folder, **options)
    processor.save_pretrained(folder)
    apply_umask(Path(folder).iterdir())
    return Path(folder)
