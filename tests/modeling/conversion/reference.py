"""Deterministic weights and inputs behind the reference outputs in `fixtures/`.

The legacy NumPy generator is used because its stream is frozen: the same key and seed give the same
float32 values on every machine. The outputs are those of the published DOVER and ImageReward code on these weights and
inputs (float32, CPU, eval mode); the CSV files list every key, shape and dtype of `DOVER.pth` and `ImageReward.pt`.
"""

import csv
import zlib
from pathlib import Path

import numpy as np
import torch

FIXTURES = Path(__file__).parent / "fixtures"


def weight(key: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """The value of one floating-point entry of a reference state dict."""
    stream = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    noise = stream.standard_normal(int(np.prod(shape)) if shape else 1).reshape(shape).astype(np.float32)
    if "position_bias_table" in key:
        value = 0.5 * noise
    elif key.endswith(("pos_embed", "cls_token")):
        value = 0.02 * noise
    elif "embeddings.weight" in key and len(shape) == 2:
        value = 0.05 * noise
    elif len(shape) <= 1:
        value = 1 + 0.1 * noise if key.endswith("weight") else 0.1 * noise
    else:
        value = noise / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))


def state_dict(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """The full reference state dict, `name` being "dover" or "imagereward".

    Integer entries (relative_position_index, position_ids) hold no learned value and are left out, so load
    with the tolerance that a real checkpoint needs: they may be present in one and must be ignored.
    """
    with open(FIXTURES / f"{name}_state_dict.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    shapes = {r["key"]: () if r["shape"] == "scalar" else tuple(map(int, r["shape"].split("x"))) for r in rows}
    return {r["key"]: weight(r["key"], shapes[r["key"]], seed) for r in rows if r["dtype"].startswith("float")}


def clip(seed: int, shape: tuple[int, int, int, int, int]) -> torch.Tensor:
    """A smooth random clip, already normalised, (B, C, T, H, W)."""
    stream = np.random.RandomState(seed)
    batch, channels, frames, height, width = shape
    coarse = stream.standard_normal((batch, channels, max(frames // 4, 1), height // 16, width // 16))
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(coarse.astype(np.float32)), size=(frames, height, width), mode="trilinear", align_corners=False
    )
    return smooth * 1.5 + 0.1 * torch.from_numpy(stream.standard_normal(shape).astype(np.float32))


def imagereward_frames(seed: int = 0) -> torch.Tensor:
    """The two CLIP-normalised frames behind imagereward_seed{seed}.npz, (2, 3, 224, 224)."""
    return clip(200 + seed, (2, 3, 4, 224, 224)).transpose(1, 2).flatten(0, 1)[[0, 5]]


def dover_clip(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    """The normalised clip behind the B{batch}_T{frames} entries of dover_seed{seed}.npz, (B, 3, T, 224, 224)."""
    return clip(100 + seed + frames, (batch, 3, frames, 224, 224))


def outputs(name: str) -> dict[str, np.ndarray]:
    """The reference outputs, `name` being "dover" or "imagereward"."""
    with np.load(FIXTURES / f"{name}_seed0.npz") as stored:
        return dict(stored)
