"""The Space in a real browser: Debian's chromium, controlled by playwright."""

import csv
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_aigcvqa import load_pipeline
from tests.conftest import REPOSITORY, moving_gradient, write_video

pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")

SPACE = REPOSITORY / "space"
PROMPT = "a red gradient moving to the left"
NOT_A_VIDEO = r"'broken\.mp4' holds no video"
SCORES = ("quality", "technical", "aesthetic", "alignment")
PAINTED = """() => [...document.querySelectorAll('#overlay canvas')].every(canvas => {
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.some((value, place) => place % 4 < 3 && value > 40); })"""
PATIENCE_MS = 240_000  # long, so that the tests pass on a busy machine
SCREENSHOTS = os.environ.get("SPACE_SCREENSHOTS")  # a folder for pictures of the tested pages


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address and the log file of the running app."""
    folder, port = tmp_path_factory.mktemp("space"), free_port()
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "gradio"), "TMPDIR": str(folder)}
    command, log = [sys.executable, str(SPACE / "app.py")], folder / "log.txt"
    with log.open("w") as output:
        app = subprocess.Popen(command, env=os.environ | settings, stdout=output, stderr=output, cwd=folder)
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(address, app, log)
            yield address, log
        finally:
            app.terminate()
            app.wait(30)


def wait_for(address: str, app: subprocess.Popen, log: Path) -> None:
    for _ in range(PATIENCE_MS // 500):
        if app.poll() is not None:
            raise RuntimeError(f"the app ended: {log.read_text()}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"the app did not answer: {log.read_text()}")


@pytest.fixture
def page(server, browser, request):
    page = browser.new_page(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    page.set_default_timeout(PATIENCE_MS)
    page.goto(server[0])
    page.get_by_role("tab", name="One video").wait_for()
    yield page
    if SCREENSHOTS:
        name = re.sub(r"\W+", "_", request.node.name)
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)
    page.close()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The folder of an mp4, a GIF and a file that is not a video."""
    folder = tmp_path_factory.mktemp("clips")
    frames = moving_gradient(8, 96, 128)
    write_video(folder / "clip.mp4", frames)
    images = [Image.fromarray(frame) for frame in frames[:, ::-1]]
    images[0].save(folder / "my clip.gif", save_all=True, append_images=images[1:], duration=125)
    (folder / "broken.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    return folder


def upload(page, element: str, *files: Path) -> None:
    """Choose files and wait until the page lists them."""
    page.locator(f"#{element} input[type=file]").set_input_files([str(file) for file in files])
    page.locator(f"#{element} .file-preview tr.file").nth(len(files) - 1).wait_for()


def score(page, clip: Path, prompt: str = PROMPT) -> None:
    upload(page, "clip", clip)
    page.locator("#prompt textarea").fill(prompt)
    page.locator("#score").click()


def shown_scores(page) -> dict[str, float]:
    page.locator("#scores .aigcvqa-card").nth(3).wait_for()
    cards = page.locator("#scores .aigcvqa-card")
    return {
        cards.nth(i).locator("h3").inner_text().lower(): float(cards.nth(i).locator("strong").inner_text())
        for i in range(cards.count())
    }


@pytest.mark.parametrize("name", ["clip.mp4", "my clip.gif"])
def test_one_clip(page, clips, name):
    strangers = []
    page.on("request", lambda request: strangers.append(request.url))
    score(page, clips / name)
    scores = shown_scores(page)
    assert tuple(scores) == SCORES
    parts = sum(scores[part] for part in SCORES[1:])
    assert scores["quality"] == pytest.approx(parts, abs=0.02), "the page rounds to two digits"
    assert page.locator("#scores .aigcvqa-note").inner_text() == load_pipeline("small").model.config.weights_note
    page.locator("#words .aigcvqa-word").first.wait_for()
    assert page.locator("#words .aigcvqa-word").all_inner_texts() == PROMPT.split()
    assert set(page.locator("#words .aigcvqa-weakest b").all_inner_texts()) <= {"red", "gradient", "moving", "left"}
    page.wait_for_function("document.querySelector('#overlay video').readyState >= 2")
    assert page.locator("#overlay canvas").count() == 3
    page.wait_for_function(PAINTED)
    page.locator("#overlay input").evaluate("slider => { slider.value = 5; slider.dispatchEvent(new Event('input')); }")
    page.wait_for_function("document.querySelector('#overlay output').textContent.startsWith('0.6')")
    assert page.locator("#overlay button").inner_text() == "Play", "the slider stops the video"
    page.locator("#timeline svg").wait_for()
    assert page.locator("#scores .aigcvqa-bar").count() == 4
    page.wait_for_function("document.querySelector('#status').innerText.trim() === ''")
    with page.expect_download() as download:
        page.locator("#report").click()
    assert "data:video/mp4" in Path(download.value.path()).read_text(encoding="utf-8")
    assert all(re.match(r"(http://127\.0\.0\.1|data:|blob:)", url) for url in strangers), (
        "nothing is fetched from other servers"
    )


def test_example(page):
    page.locator("#examples img").nth(2).wait_for()
    page.locator("#examples").get_by_role("button", name="not its prompt").click()
    page.locator("#clip .file-preview tr.file").wait_for()
    page.wait_for_function("document.querySelector('#clip-preview video')?.readyState >= 1")
    assert "hot-air balloons" in page.locator("#prompt textarea").input_value()
    page.locator("#score").click()
    assert tuple(shown_scores(page)) == SCORES


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_and_results_come_into_sight(server, browser, clips, scheme):
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE_MS)
    page.goto(server[0])
    page.get_by_role("tab", name="One video").wait_for()
    score(page, clips / "clip.mp4")
    shown_scores(page)
    page.wait_for_function("Math.abs(document.querySelector('#scores').getBoundingClientRect().top) < 200")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    background = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background)[:3])) < 60) == (scheme == "dark")
    page.close()


@pytest.mark.parametrize(
    ("name", "prompt", "message"),
    [("broken.mp4", PROMPT, NOT_A_VIDEO), ("clip.mp4", "  ", "Write the prompt")],
)
def test_clips_that_cannot_be_scored(page, server, clips, name, prompt, message):
    score(page, clips / name, prompt)
    error = page.locator("#scores .refused")
    error.wait_for()
    assert re.search(message, error.inner_text())
    assert page.locator("#overlay video").count() == 0, "no results are shown beside the message"
    assert "Traceback" not in page.content()
    assert "Traceback" not in server[1].read_text()


def test_compare(page, clips):
    page.get_by_role("tab", name="Compare two").click()
    upload(page, "first", clips / "clip.mp4")
    upload(page, "second", clips / "my clip.gif")
    page.locator("#compare-prompt textarea, #compare-prompt input").first.fill(PROMPT)
    page.locator("#compare").click()
    rows = page.locator("#comparison tr")
    rows.nth(4).wait_for()
    assert "clip.mp4" in rows.nth(0).inner_text()
    for row, name in zip(rows.all()[1:], SCORES):
        label, first, second, difference = [text.split()[0] for text in row.locator("td").all_inner_texts()]
        assert label == name
        assert float(second) - float(first) == pytest.approx(float(difference), abs=0.015)
    for place in ("first", "second"):
        page.locator(f"#{place}-overlay canvas").nth(2).wait_for()
    legends = [page.locator(f"#{place}-overlay .aigcvqa-legend").all_inner_texts() for place in ("first", "second")]
    assert legends[0] == legends[1], "one scale of colours"
    assert "mean of 2 clips" in legends[0][0]


def test_many_clips(page, clips, tmp_path):
    page.get_by_role("tab", name="Many").click()
    rows = [("clip.mp4", PROMPT), ("my clip.gif", PROMPT), ("broken.mp4", PROMPT), ("missing.mp4", PROMPT)]
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "prompt"), *rows])
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.write(clips / "my clip.gif", "folder/my clip.gif")
        archive.write(clips / "broken.mp4", "../../broken.mp4")
    upload(page, "table", tmp_path / "table.csv")
    upload(page, "clips", clips / "clip.mp4", tmp_path / "clips.zip")
    page.locator("#score-all").click()
    page.get_by_text("2 of 4 clips scored.").wait_for()
    assert "'missing.mp4' was not uploaded." in page.locator("#summary tr").nth(4).inner_text()
    with page.expect_download() as download:
        page.locator("#download").click()
    with Path(download.value.path()).open(newline="", encoding="utf-8") as file:
        scored = list(csv.DictReader(file))
    assert [row["file"] for row in scored] == [name for name, _ in rows]
    assert [bool(row["quality_score"]) for row in scored] == [True, True, False, False]
    assert re.search(NOT_A_VIDEO, scored[2]["error"])
    assert str(tmp_path.parent) not in scored[2]["error"], "the server's folders are not shown"
