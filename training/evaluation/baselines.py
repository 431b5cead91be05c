"""Scorers of published metrics for `training.evaluate --baseline`, built from AIGC-VQA branches or transformers models.

| name | weights (`--model`) | score |
| --- | --- | --- |
| `fast_vqa` | converted folder with a technical branch | technical score with FAST-VQA's sampling |
| `dover` | folder converted from DOVER | DOVER's fusion of both branches with its sigmoid and its sampling |
| `image_reward` | converted folder with an alignment branch | score of a frame without the adapter, 16-frame mean |
| `blip` | folder or Hub id of a BlipForImageTextRetrieval | probability that frame and prompt match, 16-frame mean |
| `clipsim` | folder or Hub id of a CLIPModel | cosine between frame and prompt, 16-frame mean |

The 16 frames are spread evenly over the clip. Where the published sampling is random, the middle of the range is used,
see `protocols_aigcvqa`.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoProcessor, BlipForImageTextRetrieval, CLIPModel, PreTrainedModel, ProcessorMixin
from transformers.pipelines.pt_utils import PipelineDataset
from transformers.utils import logging

from modeling_aigcvqa import AIGCVQAConfig
from modeling_aigcvqa.conversion.formats import DOVER
from modeling_aigcvqa.loading import DTYPES, load_pipeline
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_reading_aigcvqa import read_video

from .scoring import Scorer, identity_of

NUM_FRAMES = 16
BRANCHES_OF = {"fast_vqa": ["technical"], "dover": ["technical", "aesthetic"], "image_reward": ["alignment"]}
BASELINES = (*BRANCHES_OF, "blip", "clipsim")
logger = logging.get_logger(__name__)


def baseline_scorer(
    name: str, model: str, device: str = "auto", dtype: str | None = None, batch_size: int = 1, num_workers: int = 0
) -> Scorer:
    """Scorer of a baseline, with one score that has the name of the baseline.

    Args:
        name: one of `BASELINES`.
        model: folder or Hub id of the weights, see the table above.
        device, dtype, batch_size, num_workers: see `model_scorer`.

    Raises:
        ValueError: for an unknown name, or if the folder holds the weights of another model.
    """
    if name not in BASELINES:
        raise ValueError(f"--baseline {name!r}: expected one of {list(BASELINES)}.")
    build = _branch_scorer if name in BRANCHES_OF else _frame_scorer
    return build(name, model, device, dtype, batch_size, num_workers)


# --------------------------------------------------------------------------------------------------- AIGC-VQA branches


def _branch_scorer(name: str, model: str, device: str, dtype: str | None, batch_size: int, num_workers: int) -> Scorer:
    pipeline = load_pipeline(model, BRANCHES_OF[name], device, dtype)
    if name == "dover":
        _check_fusion(pipeline.model.config, model)
    if name == "image_reward":
        # ImageReward has no adapter. The adapter of a converted folder is the identity, but a trained adapter is not.
        pipeline.model.alignment_backbone.adapter = None
        pipeline.model.config.alignment_config.adapter = None
    fuse = _sigmoid if name == "dover" else float

    def score(clips: Dataset) -> Iterator[dict]:
        results = pipeline(clips, batch_size=batch_size, num_workers=num_workers, on_error="return", protocol=name)
        for result in results:
            yield result if "error" in result else {name: fuse(result["quality_score"])}

    return Scorer(
        score=score,
        score_names=(name,),
        identity=identity_of(pipeline.model, name, pipeline.processor.to_json_string()),
        note=pipeline.model.config.weights_note,
        prompt_score=name if name == "image_reward" else None,
    )


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _check_fusion(config: AIGCVQAConfig, model: str) -> None:
    """Check that the config has DOVER's constants, with which the sum of the branches is DOVER's fusion."""
    for branch, published in DOVER.affine.items():
        part = getattr(config, f"{branch}_config")
        if not torch.allclose(torch.tensor([part.score_scale, part.score_shift]), torch.tensor(published)):
            raise ValueError(
                f"--baseline dover: the {branch} branch of '{model}' has score_scale={part.score_scale} and "
                f"score_shift={part.score_shift}, not DOVER's {published}; pass a folder from "
                "aigcvqa convert --preset dover."
            )


# ------------------------------------------------------------------------------------------------- transformers models


def _frame_scorer(name: str, model: str, device: str, dtype: str | None, batch_size: int, num_workers: int) -> Scorer:
    """Scorer that compares each of `NUM_FRAMES` frames with the prompt and averages over the frames."""
    network_class, compare = {
        "blip": (BlipForImageTextRetrieval, match_probability),
        "clipsim": (CLIPModel, cosine),
    }[name]
    _check_type(model, network_class)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network, info = network_class.from_pretrained(model, dtype=DTYPES.get(dtype or "float32"), output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"'{model}' lacks the weights {sorted(info['missing_keys'])[:3]} of {network_class.__name__}.")
    network = network.to(device).eval()
    processor = AutoProcessor.from_pretrained(model)

    def score(clips: Dataset) -> Iterator[dict]:
        items = PipelineDataset(clips, read_frames, {"processor": processor})
        for batch in DataLoader(items, batch_size=batch_size, num_workers=num_workers, collate_fn=list):
            scores = iter(score_batch([item for item in batch if "error" not in item], network, processor, compare))
            for item in batch:
                yield item if "error" in item else {name: next(scores)}

    return Scorer(
        score=score,
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
    """A row of `load_clips` -> `pixel_values` (T, 3, H, W) from the image processor and `prompt`, or `error`."""
    try:
        if not (row.get("prompt") or "").strip():
            raise ValueError("the clip has no prompt, but this baseline compares frames with the prompt.")
        frames, _ = read_video(row["video"], lambda total: sample_frame_indices(total, NUM_FRAMES))
        images = list(frames.permute(0, 3, 1, 2))
        pixel_values = processor.image_processor(images, return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixel_values, "prompt": row["prompt"]}
    except (ValueError, TypeError, OSError) as error:
        return {"error": str(error)}


def score_batch(
    items: list[dict], network: PreTrainedModel, processor: ProcessorMixin, compare: Callable
) -> list[float]:
    """Mean score over the frames of each of B clips, given as items of `read_frames` without errors."""
    if not items:
        return []
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
