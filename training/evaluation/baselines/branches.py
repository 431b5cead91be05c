"""FAST-VQA, DOVER and ImageReward as branches of an AIGC-VQA model with their published weights."""

import math
from collections.abc import Iterator

import torch
from datasets import Dataset

from modeling_aigcvqa import AIGCVQAConfig
from modeling_aigcvqa.conversion.formats import DOVER
from modeling_aigcvqa.loading import load_pipeline

from ..scoring import Scorer, identity_of

BRANCHES_OF = {"fast_vqa": ["technical"], "dover": ["technical", "aesthetic"], "image_reward": ["alignment"]}


def branch_scorer(name: str, model: str, device: str, dtype: str | None, batch_size: int, num_workers: int) -> Scorer:
    """Scorer with the branches of a converted folder, sampled as the published metric samples."""
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
