"""The service as a process of its own: its answers, refusals, and what it survives."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
import safetensors.torch
import torch

from modeling_aigcvqa import AIGCVQAReward, load_pipeline
from modeling_aigcvqa.serving.client import AIGCVQAClient, ServiceError
from modeling_aigcvqa.serving.tensors import packed
from tests.conftest import moving_gradient

pytestmark = pytest.mark.alone

PROMPT = "a moving gradient"
TOKEN = "a-secret"
START_S = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def service(model_folder, *options, **environment):
    """A running service, as (its process, its address)."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "modeling_aigcvqa", "serve", "--model", str(model_folder), "--port", str(port)]
    # The last digits of a score depend on the number of threads, which other tests may have set here.
    command += ["--device", "cpu", "--threads", str(torch.get_num_threads())]
    process = subprocess.Popen([*command, *options], env={**os.environ, **environment}, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert process.poll() is None, "the service has ended"
            assert time.monotonic() < deadline, "the service does not start"
            try:
                httpx.get(f"{url}/healthz", timeout=5).raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield process, url
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def running(model_folder):
    limits = {"AIGCVQA_MAX_BYTES": "1000000", "AIGCVQA_MAX_FRAMES": "60", "AIGCVQA_MAX_TOTAL_PIXELS": "5000000"}
    with service(model_folder, "--token", TOKEN, "--max_queue", "6", "--max_body_mib", "16", **limits) as started:
        yield started


@pytest.fixture
def url(running):
    return running[1]


@pytest.fixture
def client(url):
    with AIGCVQAClient(url, TOKEN, retries=0) as client:
        yield client


@pytest.fixture
def http(url):
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as http:
        yield http


@pytest.fixture(scope="module")
def expected(model_folder, clip):
    pipeline = load_pipeline(str(model_folder), device="cpu")
    return pipeline({"video": clip, "prompt": PROMPT}) | {"note": pipeline.model.config.weights_note}


@pytest.fixture(scope="module")
def frames():
    return torch.stack([torch.from_numpy(moving_gradient(18, 64, 80)).roll(i, 1) for i in range(3)])


def test_files_have_the_scores_of_the_pipeline(client, http, clip, expected):
    assert client.score(clip, PROMPT) == expected
    text = base64.b64encode(clip.read_bytes()).decode()
    item = {"video": text, "prompt": PROMPT}
    assert http.post("/score", json={"inputs": item}).json() == expected
    answers = http.post("/score", json={"inputs": [item, {"video": "AAAA", "prompt": PROMPT}, item]}).json()
    assert answers[0] == answers[2] == expected
    assert "error" in answers[1]
    files = [("video", ("a.mp4", clip.read_bytes())), ("video", ("b.mp4", b"no video"))]
    first, second = http.post("/score", files=files, data={"prompt": [PROMPT, PROMPT]}).json()
    assert first == expected
    assert "no video" in second["error"]


def test_tensors_have_the_rewards_of_the_process(client, model_folder, frames):
    rewards, parts = AIGCVQAReward(model_folder, device="cpu")(frames, [PROMPT] * 3)
    for sent, value_range in ((frames, (0, 1)), (frames.numpy(), (0, 1)), (frames / 127.5 - 1, (-1, 1))):
        found, found_parts = client.reward(sent, [PROMPT] * 3, value_range)
        assert torch.equal(found, rewards)
        assert {name: values.tolist() for name, values in found_parts.items()} == {
            name: values.tolist() for name, values in parts.items()
        }


def test_percentiles_on_request(client, http, clip, frames, expected, model_folder):
    config = load_pipeline(str(model_folder), device="cpu").model.config
    scaled = expected | config.on_scale(expected) | {"about_scale": config.about_scale}
    assert client.score(clip, PROMPT, scale=True) == scaled
    item = {"video": base64.b64encode(clip.read_bytes()).decode(), "prompt": PROMPT}
    assert http.post("/score", json={"inputs": item, "parameters": {"scale": True}}).json() == scaled
    assert http.post("/score", json={"inputs": item, "parameters": {"scale": 1}}).status_code == 400
    (first, *_), (plain, *_) = (client.score_tensors(frames, [PROMPT] * 3, scale=scale) for scale in (True, False))
    assert first == plain | config.on_scale(plain) | {"about_scale": config.about_scale}


def test_tensors_need_no_client_of_ours(http, frames, model_folder):
    body = safetensors.torch.save({"frames": frames.movedim(-1, 2).contiguous()}, {"prompts": json.dumps([PROMPT] * 3)})
    results = http.post("/score_tensors", content=body).json()["results"]
    expected = AIGCVQAReward(model_folder, device="cpu")(frames, [PROMPT] * 3)[0].tolist()
    assert [result["quality_score"] for result in results] == expected
    assert all(result["note"] for result in results), "the weights are untrained"


def test_a_clip_that_cannot_be_scored_costs_itself_alone(client, frames):
    results = client.score_tensors(frames, [PROMPT, " ", PROMPT])
    assert ["error" in result for result in results] == [False, True, False]
    assert "frames[1]" in results[1]["error"]
    broken = (frames / 255).clone()
    broken[2] = torch.nan
    results = client.score_tensors(broken, [PROMPT] * 3)
    assert ["error" in result for result in results] == [False, False, True]
    assert "holds values from nan" in results[2]["error"]
    with pytest.raises(ServiceError, match=r"frames\[2\] holds values from nan"):
        client.reward(broken, [PROMPT] * 3)


WRONG_BODIES = {
    "no safetensors": (b"pickle", "not safetensors"),
    "cut": (packed(torch.zeros(1, 2, 8, 8, 3), ["a"])[:-9], "not safetensors"),
    "another tensor": (safetensors.torch.save({"images": torch.zeros(1)}), "send one, 'frames'"),
    "a single clip": (packed(torch.zeros(2, 8, 8, 3), ["a"]), "frames\\[None\\]"),
    "prompts": (packed(torch.zeros(1, 2, 8, 8, 3), ["a", "b"]), "not a JSON list of 1 texts"),
    "prompts of numbers": (packed(torch.zeros(1, 2, 8, 8, 3), [7]), "no texts"),
    "no JSON": (safetensors.torch.save({"frames": torch.zeros(1, 2, 8, 8, 3)}, {"prompts": "a"}), "is not JSON"),
    "range": (packed(torch.zeros(1, 2, 8, 8, 3), ["a"], (1, 1)), "value_range"),
    "no JSON in value_range": (
        safetensors.torch.save({"frames": torch.zeros(1, 2, 8, 8, 3)}, {"prompts": '["a"]', "value_range": "["}),
        "is not JSON",
    ),
}


@pytest.mark.parametrize(("body", "message"), WRONG_BODIES.values(), ids=WRONG_BODIES)
def test_wrong_tensors_are_refused(http, body, message):
    response = http.post("/score_tensors", content=body)
    assert response.status_code == 400
    assert re.search(message, response.json()["error"]), response.json()


def test_limits_hold_for_files_and_tensors(http, clip, frames):
    item = {"video": base64.b64encode(clip.read_bytes()).decode(), "prompt": "word " * 1000}
    answer = http.post("/score", json={"inputs": item})
    assert (answer.status_code, answer.json()["error"][:28]) == (400, "a prompt of 5000 characters ")
    answer = http.post("/score", files={"video": bytes(1_000_001)}, data={"prompt": PROMPT})
    assert "above the 1000000 allowed" in answer.json()["error"]
    for tensor, message in (
        (frames[:1, :1].expand(-1, 61, -1, -1, -1), "frames[0] has 61 frames"),
        (
            torch.zeros(3, 60, 200, 150, 3, dtype=torch.uint8),
            "the clips have 5400000 pixels, above the 5000000 allowed",
        ),
        (torch.zeros(7, 1, 8, 8, 3, dtype=torch.uint8), "7 clips exceed the 6 places"),
    ):
        answer = http.post("/score_tensors", content=packed(tensor, [PROMPT] * len(tensor)))
        assert answer.status_code == 400
        assert message in answer.json()["error"]
    body = packed(frames[:1], ["word " * 1000])
    assert "5000 characters" in http.post("/score_tensors", content=body).json()["results"][0]["error"]
    assert http.post("/score", json={"inputs": [item] * 9}).status_code == 400


@pytest.mark.parametrize("name", ["/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/x.mp4", "s3://bucket/x.mp4"])
def test_no_file_and_no_address_is_opened(http, name):
    answer = http.post("/score", json={"inputs": {"video": name, "prompt": PROMPT}})
    assert answer.status_code == 400


def test_other_requests_are_refused(http, url):
    assert http.post("/score", content=b"{").json()["error"].startswith("the body is not JSON")
    assert http.post("/score", json=[1]).status_code == 400
    assert http.post("/score", data={"video": "x"}, files={"other": b"x"}).status_code == 400
    assert http.get("/score").status_code == 405
    assert http.post("/nothing").json() == {"error": "Not Found"}
    assert http.post("/score", content=bytes(17 * 2**20)).status_code == 413
    assert http.post("/score", content=iter([b"{}"])).status_code == 411


def test_the_token_is_needed(url):
    for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": TOKEN}):
        answer = httpx.post(f"{url}/score", json={}, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert httpx.get(f"{url}/metrics").status_code == 401
    assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
    with AIGCVQAClient(url) as client, pytest.raises(ServiceError, match=r"401: .*needs a token"):
        client.score_tensors(torch.zeros(1, 2, 8, 8, 3), [PROMPT])


def test_under_load_requests_are_refused_clearly_and_retried(url, frames, model_folder):
    """Twelve requests of three clips at a service with room for six clips."""
    body = packed(frames, [PROMPT] * 3)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    barrier = threading.Barrier(12)

    def sent(_):
        barrier.wait()
        return httpx.post(f"{url}/score_tensors", content=body, headers=headers, timeout=60)

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(sent, range(12)))
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert "places are taken" in refused.json()["error"]

    def rewarded(_):
        with AIGCVQAClient(url, TOKEN, retries=20) as client:
            return client.reward(frames, [PROMPT] * 3)[0].tolist()

    with ThreadPoolExecutor(8) as threads:
        rewards = list(threads.map(rewarded, range(8)))
    assert rewards == [AIGCVQAReward(model_folder, device="cpu")(frames, [PROMPT] * 3)[0].tolist()] * 8


def test_pages(http, url):
    assert http.get("/healthz").json()["waiting_clips"] == 0
    metrics = http.get("/metrics").text
    assert 'aigcvqa_clips_total{outcome="scored"}' in metrics
    assert 'aigcvqa_requests_total{path="/score_tensors",status="200"}' in metrics
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    assert {"/score", "/score_tensors", "/healthz", "/metrics"} <= set(paths)
    assert "application/octet-stream" in paths["/score_tensors"]["post"]["requestBody"]["content"]
    assert httpx.get(f"{url}/docs").status_code == 200


def test_a_stop_finishes_what_is_begun(model_folder, frames):
    with service(model_folder) as (process, url), ThreadPoolExecutor(1) as thread:
        client = AIGCVQAClient(url, retries=0)
        pending = thread.submit(client.score_tensors, frames.repeat(4, 1, 1, 1, 1), [PROMPT] * 12)
        while not client.health()["waiting_clips"]:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert len(pending.result(60)) == 12
        assert process.wait(30) == 128 + signal.SIGTERM


def test_processes_behind_one_port_survive_a_kill(model_folder, frames):
    with service(model_folder, "--workers", "2") as (_, url), AIGCVQAClient(url, retries=10) as client:
        single = AIGCVQAReward(model_folder, device="cpu")(frames, [PROMPT] * 3)[0]
        torch.testing.assert_close(client.reward(frames, [PROMPT] * 3)[0], single, rtol=1e-5, atol=1e-4)
        processes = {httpx.get(f"{url}/healthz").json()["process"] for _ in range(40)}
        assert len(processes) == 2
        os.kill(processes.pop(), signal.SIGKILL)
        for _ in range(5):
            torch.testing.assert_close(client.reward(frames, [PROMPT] * 3)[0], single, rtol=1e-5, atol=1e-4)
        deadline = time.monotonic() + START_S
        while len({httpx.get(f"{url}/healthz").json()["process"] for _ in range(20)} - processes) == 0:
            assert time.monotonic() < deadline, "the killed process is not replaced"
            time.sleep(0.5)
        assert 'aigcvqa_clips_total{outcome="scored"}' in httpx.get(f"{url}/metrics").text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--workers", "0"], "workers=0"),
        (["--branches", "sound"], "no branch 'sound'"),
    ],
)
def test_wrong_options_are_refused_before_the_service_starts(options, message):
    command = [sys.executable, "-m", "modeling_aigcvqa", "serve", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert message in ended.stderr
