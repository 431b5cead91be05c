"""Fixtures for the tests of the preparers: tiny real clips, and the folder of shared material."""

from pathlib import Path

import av
import numpy as np
import pytest


def write_clip(path: Path, seed: int, frames: int = 3) -> Path:
    """Write an H.264 mp4 of 64 x 64 noise. Different seeds give different bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 64, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=4, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def clip():
    """`clip(path, seed)` writes a tiny mp4."""
    return write_clip


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """`datasets` keeps its cache inside the test's folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def shared() -> Path:
    """The folder `shared` beside the checkout, with real labels and clips."""
    folder = Path(__file__).parents[3] / "shared"
    if not (folder / "labels").is_dir():
        pytest.skip("no folder 'shared' with real labels and clips beside the checkout")
    return folder
