"""Fixtures: the small model, its processor, and clips made on the spot by real encoders."""

import os
import tempfile
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What `datasets` caches depends on what ran before, and it keys folders by name and card alone.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="aigcvqa-datasets-")

import av
import numpy as np
import pytest
import torch

from modeling_aigcvqa.common.presets import default_processor, save_model_folder, untrained_model
from modeling_aigcvqa.names_aigcvqa import BRANCHES, SCORES
from modeling_aigcvqa.scale_aigcvqa import make_reference

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"  # real clips and reference numbers, beside the checkout where they are at hand


def moving_gradient(frames: int, height: int, width: int) -> np.ndarray:
    """A clip whose frames differ, (T, H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [np.stack([(x + 5 * t) % 256, (y + 3 * t) % 256, (x + y) // 2 % 256], -1) for t in range(frames)]
    ).astype(np.uint8)


def write_video(
    path: Path, frames: np.ndarray, codec: str = "libx264", pix_fmt: str = "yuv420p", options: dict | None = None
) -> Path:
    """Encode (T, H, W, 3) uint8 at 8 fps; odd sizes need pix_fmt="yuv444p"."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(8))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def small_model():
    """The small preset with adapter and layer scales away from their starting zeros, so that every part matters."""
    model = untrained_model("small", seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
            if "adapter.conv" in name or "position_bias_table" in name:
                parameter.normal_(0, 0.3, generator=generator)
    values = np.linspace(-3, 3, 200).tolist()
    model.config.reference = make_reference("clips of the tests", dict.fromkeys(SCORES, values), BRANCHES)
    return model.eval()


@pytest.fixture(scope="session")
def processor(small_model):
    return default_processor(small_model.config)


@pytest.fixture(scope="session")
def model_folder(small_model, processor, tmp_path_factory):
    return save_model_folder(small_model, processor, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A 20-frame H.264 mp4, 256 x 320."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_gradient(20, 256, 320))


@pytest.fixture(scope="session")
def batch(processor, clip):
    """Two clips with prompts of different lengths, as the model takes them."""
    other = moving_gradient(16, 240, 240)[:, ::-1].copy()
    return processor(videos=[clip, other], text=["a moving gradient", "a much longer prompt about colours that drift"])


@pytest.fixture
def serve():
    """Start a bounded HTTP server on 127.0.0.1 with a function for GET and one for POST; gives its address."""
    servers = []

    def start(answer):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, content = answer(self.path, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
