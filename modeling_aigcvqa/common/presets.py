"""Models and processors that the installed package can make without a download."""

from pathlib import Path

import torch
from transformers import BertTokenizer

from ..configuration_aigcvqa import AIGCVQAConfig
from ..modeling_aigcvqa import AIGCVQAModel
from ..processing_aigcvqa import AIGCVQAProcessor
from ..provenance_aigcvqa import Provenance
from ..video_processing_aigcvqa import AIGCVQAVideoProcessor

VOCABULARY = Path(__file__).parents[1] / "assets" / "small" / "vocab.txt"
# ImageReward cuts prompts at 35 tokens; prompts of today's generators are longer, and BERT's positions go to 512.
MAX_PROMPT_TOKENS = 256
ARCHITECTURES = {"full": AIGCVQAConfig, "small": AIGCVQAConfig.small}
FRAGMENT_GRID = 7  # fragments a side, as many as the maps have places


def default_tokenizer(max_length: int = MAX_PROMPT_TOKENS) -> BertTokenizer:
    """BERT-uncased with [DEC] (30522) and [ENC] (30523), the vocabulary of BLIP and ImageReward."""
    tokens = VOCABULARY.read_text(encoding="utf-8").splitlines()
    tokenizer = BertTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, do_lower_case=True, model_max_length=max_length
    )
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def default_processor(config: AIGCVQAConfig, num_frames: int = 16) -> AIGCVQAProcessor:
    """The processor that fits `config`: both views have the size of the alignment branch's frames."""
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
    """A model with random weights, in eval mode; its provenance says so.

    Args:
        architecture: "full" (the paper's size) or "small".
        seed: of the weights.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"preset={architecture!r}: expected one of {list(ARCHITECTURES)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AIGCVQAModel(ARCHITECTURES[architecture]()).eval()
    model.config.set_provenance(Provenance(untrained=parts_of(model)))
    return model


def parts_of(model: AIGCVQAModel) -> list[str]:
    """The parts of a model as `Provenance.untrained` names them: "technical_backbone", "technical_head", ..."""
    parts = [f"{branch}_{part}" for branch in model.config.branches for part in ("backbone", "head")]
    if "alignment" in model.config.branches and model.config.alignment_config.adapter is not None:
        parts.append("alignment_adapter")
    return parts


def save_model_folder(model: AIGCVQAModel, processor: AIGCVQAProcessor, folder: str | Path, **options) -> Path:
    """One folder that the Auto classes and `pipeline` load: weights, config, processor, tokenizer, code.

    Options go to the model's `save_pretrained` (`max_shard_size`, ...).
    """
    model.save_pretrained(folder, **options)
    processor.save_pretrained(folder)
    return Path(folder)
