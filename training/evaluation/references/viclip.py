"""ViCLIP: the arrays of viclip_*_seed*.npz."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ..baselines.clip_tokenizer import tokenizer_of
from ..baselines.viclip import ViCLIP, frame_indices, normalised, token_ids

HEADS = {"viclip_tiny": (4, 4)}  # of vision and text; those of published sizes follow from the widths
CHANNELS, STEP = 64, 14  # kept of tokens, and of pixels
LIMITS = {
    ".video_unit": 1e-6,
    "_unit": 1e-6,
    "cosine": 1e-6,
    ".video": 1e-5,
    "prep.": 0.0176,  # one grey level: OpenCV rounds resized pixels
    "": 1e-4,  # intermediates
}


def viclip(name: str, recipe: ModuleType, seed: int, stored: Mapping[str, np.ndarray], vocabulary: Path | None) -> dict:
    """Our arrays by their names in the reference."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save({"model": recipe.state_dict(name, seed)}, path)
        model = ViCLIP.from_checkpoint(path, *HEADS.get(name, (None, None)))
    ids = recipe.token_ids(seed)
    found: dict[str, Tensor] = {"text_ids": ids}
    prompts = None
    if vocabulary is not None:
        found["prompt_ids"] = token_ids(tokenizer_of(vocabulary), recipe.PROMPTS)
        prompts = torch.nn.functional.normalize(model.encode_text(found["prompt_ids"])["text"], dim=-1)
        found["prompt_unit"] = prompts
    frames = {f"T{count}": recipe.video(name, count, seed) for count in (8, 1, 4)}
    for tag, clips in {**frames, "faint": 0.01 * frames["T8"]}.items():
        if f"{tag}.video" not in stored:
            continue
        output = model(clips, ids)
        pick = torch.from_numpy(stored[f"{tag}.pick"]).long()
        for part in ("ln_pre", "block0", "block_mid", "block_last"):
            found[f"{tag}.{part}"] = output[part][:, pick, :CHANNELS]
        for part in ("ln_post_cls", "video", "video_unit", "cosine"):
            found[f"{tag}.{part}"] = output[part]
        channels, stride = (16, 1) if name == "viclip_tiny" else (32, 5)
        found[f"{tag}.conv1"] = output["conv1"][:, :channels, :, ::stride, ::stride]
        found |= {part: output[part] for part in ("text", "text_unit", "text.ln_final_end")}
        found["text.block0"] = output["text.block0"][:, [0, 1, 5], :CHANNELS]
        if f"{tag}.top_probs" in stored:
            probabilities = (100 * output["cosine"]).softmax(-1).sort(-1, descending=True)
            found |= {f"{tag}.top_probs": probabilities.values, f"{tag}.top_order": probabilities.indices}
        if prompts is not None and f"{tag}.prompt_cosine" in stored:
            found[f"{tag}.prompt_cosine"] = output["video_unit"] @ prompts.T
    for key in stored:
        if key.startswith("prep.") and not key.endswith(".stats"):
            count, height, width = map(int, key.removeprefix("prep.").split("x"))
            raw = np.stack(recipe.raw_frames(count, height, width, seed))[frame_indices(count)]
            frames_of_clip = normalised(torch.from_numpy(raw[..., ::-1].copy()))  # stored as OpenCV has them, BGR
            found[key] = frames_of_clip[None, :, :, ::STEP, ::STEP]
            of_all = frames_of_clip.mean(), frames_of_clip.std(), frames_of_clip.min(), frames_of_clip.max()
            found[f"{key}.stats"] = torch.stack(of_all)
    return {key: value.numpy() for key, value in found.items()}


def limit_of(key: str) -> float:
    """The largest difference that is allowed of an array."""
    if key == "text":
        return LIMITS[".video"]  # raw embeddings too
    return next(limit for part, limit in LIMITS.items() if part in key)
