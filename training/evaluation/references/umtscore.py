"""UMTScore: the arrays of umtscore*_seed*.npz."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from modeling_aigcvqa.common.presets import default_tokenizer

from ..baselines.umtscore import UMTScore, cleaned, frame_indices, normalised, token_ids

SIZES = {"umtscore_tiny": (4, 4, 32)}  # heads of vision and text, side of the frames; the defaults are the published
CHANNELS, STEP = 64, 14  # kept of tokens, and of pixels
OF_VIDEO = ("pooled", "proj", "itc", "fusion_cls", "itm", "score")
LIMIT = 1e-5


def umtscore(name: str, recipe: ModuleType, seed: int, stored: Mapping[str, np.ndarray], _: Path | None) -> dict:
    """Our arrays by their names in the reference."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save({"model": recipe.state_dict(name, seed)}, path)
        model = UMTScore.from_checkpoint(path, *SIZES.get(name, ()))
    ids, mask = recipe.token_ids(seed)
    prompt_ids, prompt_mask = token_ids(default_tokenizer(), recipe.PROMPTS)
    found: dict[str, Tensor] = {"text_ids": ids, "text_mask": mask}
    found |= {"prompt_ids": prompt_ids, "prompt_mask": prompt_mask}
    texts = torch.from_numpy(stored["text.pick"]).long()
    for count in (12, 4, 1):
        tag = f"T{count}"
        if f"{tag}.score" not in stored:
            continue
        output = model(recipe.video(name, count, seed), ids, mask)
        pick = torch.from_numpy(stored[f"{tag}.pick"]).long()
        for part in ("patch", "block0", "block_mid", "norm"):
            found[f"{tag}.{part}"] = output[part][:, pick, :CHANNELS]
        found[f"{tag}.pos"] = output["pos"][pick]
        found |= {f"{tag}.{part}": output[part] for part in OF_VIDEO}
        found[f"{tag}.fusion_first_cls"] = output["fusion_first_cls"][..., :CHANNELS]
        for part in ("embeddings", "layer0", "layer_last"):
            found[f"text.{part}"] = output[f"text.{part}"][:, texts, :CHANNELS]
        found |= {f"text.{part}": output[f"text.{part}"] for part in ("cls", "proj")}
    clips, chosen = recipe.video(name, 12, seed), [0, 3]
    scores = model(clips, prompt_ids[chosen], prompt_mask[chosen])["score"]
    found["published.UMTScore"] = scores.diagonal()
    for key in stored:
        if key.startswith("frames."):
            found[key] = torch.tensor(frame_indices(int(key.removeprefix("frames."))))
        elif key.startswith("prep.") and not key.endswith(".stats"):
            raw = recipe.raw_frames(*map(int, key.removeprefix("prep.").split("x")), seed)
            values = normalised(raw.permute(0, 2, 3, 1))
            found[key] = values[None, :, :, ::STEP, ::STEP] if stored[key].ndim == 5 else values[:, :, ::STEP, ::STEP]
            found[f"{key}.stats"] = torch.stack([values.mean(), values.std(), values.min(), values.max()])
    arrays = {key: value.numpy() for key, value in found.items()}
    return arrays | {"prompt_clean": np.array([cleaned(prompt) for prompt in recipe.PROMPTS])}


def limit_of(key: str) -> float:
    """The largest difference that is allowed of an array."""
    return LIMIT
