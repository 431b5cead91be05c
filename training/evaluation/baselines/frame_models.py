"""CLIPSim and BLIP: models of transformers that compare frames with the prompt."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, BlipForImageTextRetrieval, CLIPModel, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from modeling_aigcvqa.loading import DTYPES
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_reading_aigcvqa import read_video

from ..scoring import Scorer, identity_of
from .clips import chosen_device, prompt_of, scored_in_batches

NUM_FRAMES = 16
FRAME_MODELS = ("blip", "clipsim")
logger = logging.get_logger(__name__)


def frame_scorer(name: str, model: str, device: str, dtype: str | None, batch_size: int, num_workers: int) -> Scorer:
    """Scorer that compares each of `NUM_FRAMES` frames with the prompt and averages over the frames."""
    network_class, compare = {
        "blip": (BlipForImageTextRetrieval, match_probability),
        "clipsim": (CLIPModel, cosine),
    }[name]
    _check_type(model, network_class)
    network, info = network_class.from_pretrained(model, dtype=DTYPES.get(dtype or "float32"), output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"'{model}' lacks the weights {sorted(info['missing_keys'])[:3]} of {network_class.__name__}.")
    network = network.to(chosen_device(device)).eval()
    processor = AutoProcessor.from_pretrained(model)

    return Scorer(
        score=scored_in_batches(
            name,
            partial(read_frames, processor=processor),
            partial(score_batch, network=network, processor=processor, compare=compare),
            batch_size,
            num_workers,
        ),
        score_names=(name,),
        identity=identity_of(network, name, NUM_FRAMES, processor.to_json_string()),
        prompt_score=name,
    )


def _check_type(model: str, network_class: type[PreTrainedModel]) -> None:
    config = Path(model) / "config.json"
    if not Path(model).exists():
        return  # `model` is a Hub id
    expected = network_class.config_class.model_type
    found = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None
    if found != expected:
        raise ValueError(
            f"'{model}' holds a model of type {found!r}, not {expected!r}; pass a folder or Hub id of a "
            f"{network_class.__name__} with its processor."
        )


def read_frames(row: dict, processor: ProcessorMixin) -> dict[str, Any]:
    """A row of `load_clips` -> `pixel_values` (T, 3, H, W) from the image processor, and `prompt`."""
    prompt = prompt_of(row)
    frames, _ = read_video(row["video"], lambda total: sample_frame_indices(total, NUM_FRAMES))
    images = list(frames.permute(0, 3, 1, 2))
    pixel_values = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixel_values, "prompt": prompt}


def score_batch(
    items: list[dict], network: PreTrainedModel, processor: ProcessorMixin, compare: Callable
) -> list[float]:
    """Mean score over the frames of each of B clips, given as items of `read_frames`."""
    tokens = _tokenize([item["prompt"] for item in items], network, processor)
    pixel_values = torch.stack([item["pixel_values"] for item in items])
    with torch.no_grad():
        scores = compare(
            network,
            pixel_values.to(network.device, network.dtype),
            tokens["input_ids"].to(network.device),
            tokens["attention_mask"].to(network.device),
        )
    return scores.float().mean(1).tolist()


def _tokenize(prompts: list[str], network: PreTrainedModel, processor: ProcessorMixin) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` (B, L), truncated to the network's number of positions (77 for CLIP)."""
    limit = network.config.text_config.max_position_embeddings
    longest = max(len(ids) for ids in processor.tokenizer(prompts, verbose=False)["input_ids"])
    if longest > limit:
        logger.warning_once(f"Prompts of up to {longest} tokens are truncated to {limit} tokens for this baseline.")
    return processor.tokenizer(prompts, padding=True, truncation=True, max_length=limit, return_tensors="pt")


def cosine(network: CLIPModel, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Frames (B, T, 3, H, W) and prompts (B, L) -> cosine between frame and prompt embeddings (B, T)."""
    output = network(input_ids=input_ids, pixel_values=pixel_values.flatten(0, 1), attention_mask=attention_mask)
    frames = output.image_embeds.unflatten(0, pixel_values.shape[:2])  # all embeddings have length 1
    return torch.einsum("btc,bc->bt", frames, output.text_embeds)


def match_probability(
    network: BlipForImageTextRetrieval, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """Frames (B, T, 3, H, W) and prompts (B, L) -> probability (B, T) that frame and prompt match, from BLIP's head."""
    num_frames = pixel_values.shape[1]
    output = network(
        input_ids=input_ids.repeat_interleave(num_frames, 0),
        pixel_values=pixel_values.flatten(0, 1),
        attention_mask=attention_mask.repeat_interleave(num_frames, 0),
    )
    return output.itm_score.softmax(-1)[:, 1].unflatten(0, pixel_values.shape[:2])
