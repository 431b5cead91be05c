"""Probes: what is made of clips, what is concluded, and a run from manifest to page."""

import html
import json
import re

import numpy as np
import pytest
import torch

from modeling_aigcvqa import AIGCVQAReward
from modeling_aigcvqa.cli import main
from modeling_aigcvqa.clip_scorer import ScorerSettings
from modeling_aigcvqa.probes.degradations import DEGRADATIONS, STRENGTHS
from modeling_aigcvqa.probes.measure import STEADINESS, ProbedClip, degraded, read_frames
from modeling_aigcvqa.probes.program import probe
from modeling_aigcvqa.probes.tricks import RADIUS, TRICKS, ascended, written
from modeling_aigcvqa.probes.verdicts import rows_of
from tests.conftest import moving_gradient, write_video

PROMPT = "a moving gradient"


@pytest.fixture(scope="module")
def frames():
    """(16, 3, 65, 79) uint8, odd sizes, with a bright square that moves."""
    clip = moving_gradient(16, 65, 79) // 2
    for t in range(16):
        clip[t, 10:30, 2 * t : 2 * t + 20] = (200, 120, 40)
    return torch.from_numpy(clip).movedim(-1, 1).contiguous()


def distance(a, b):
    return (a.float() - b.float()).abs().mean().item()


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_degradations_grow_with_their_strength_and_repeat(frames, name):
    spoiled = [degraded(frames, name, strength) for strength in STRENGTHS]
    assert all(clip.shape == frames.shape and clip.dtype == torch.uint8 for clip in spoiled)
    mild, medium, strong = (distance(clip, frames) for clip in spoiled)
    assert 0 < mild < strong
    assert mild * 0.99 <= medium <= strong * 1.01
    assert torch.equal(degraded(frames, name, "strong"), spoiled[2])


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_degradations_of_a_single_small_frame(name):
    clip = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for strength in STRENGTHS:
        assert degraded(clip, name, strength).shape == clip.shape


@pytest.mark.parametrize("name", TRICKS)
def test_tricks_change_the_picture_or_the_prompt(frames, name):
    changed, prompt = TRICKS[name].apply(frames, PROMPT)
    assert changed.shape == frames.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, frames) or prompt != PROMPT
    assert TRICKS[name].needs_prompt == (prompt != PROMPT or name == "pasted_prompt")


def test_a_still_is_a_still_and_tiles_repeat(frames):
    still, _ = TRICKS["still"].apply(frames, PROMPT)
    assert (still == frames[0]).all()
    tiles, _ = TRICKS["tiles"].apply(frames, PROMPT)
    assert torch.equal(tiles[..., :33, :39], tiles[..., :33, 40:79])


def test_long_text_is_written_in_lines(frames):
    few, many = (int((written(frames, "word " * count) != frames).any(1).any(-1)[0].sum()) for count in (1, 20))
    assert many > 3 * few


def test_gradient_ascent_raises_the_reward_and_stays_near(model_folder, frames):
    reward = AIGCVQAReward(model_folder, device="cpu", differentiable=True)
    raised = ascended(reward, frames, PROMPT, steps=3)
    assert (raised.int() - frames.int()).abs().max() <= round(255 * RADIUS)
    before, after = reward(torch.stack([frames, raised]), [PROMPT] * 2)[0].tolist()
    assert after > before


@pytest.mark.parametrize("name", STEADINESS)
def test_changes_that_nobody_sees_are_small(frames, name):
    changed = STEADINESS[name](frames)
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, frames)
    if changed.shape == frames.shape:
        assert distance(changed, frames) < 8


def record(number, swaps=(3.0, 1.0, 2.0), **changed):
    """A clip's scores, of which those of `changed` differ by so many points: a probe's name, with _ for /."""
    quality = 50.0 + number

    def entry(name):
        value = quality + changed.get(name.replace("/", "_"), 0.0)
        return {"quality_score": value, "technical_score": value}

    return {
        "file": f"clip{number}",
        "prompt": PROMPT,
        "original": entry(""),
        "degradations": {
            f"{name}/{strength}": entry(f"{name}/{strength}") for name in DEGRADATIONS for strength in STRENGTHS
        },
        "tricks": {name: entry(name) for name in TRICKS},
        "steadiness": {name: entry(name) for name in [*STEADINESS, "again", "batch", "bfloat16"]},
        "swaps": list(swaps),
    }


def verdicts(*records):
    return {row.name: row for row in rows_of(list(records))}


def test_verdicts_follow_the_scores():
    falls = {"blur_mild": -1, "blur_medium": -2, "blur_strong": -3, "noise_mild": -1, "noise_strong": -0.5}
    changes = {**falls, "praise": 2.0, "still": -4.0, "sharpening": 0.05, "pixel_shifted": 0.2, "again": 1e-9}
    rows = verdicts(*(record(number, **changes) for number in range(3)))
    assert rows["blur"].verdict == "good"
    assert rows["blur"].figures == {"falls_mild": 1, "falls_medium": 1, "falls_strong": 1, "falls_further": 1}
    assert rows["noise"].verdict == "partly", "it does not fall further"
    assert rows["jpeg"].verdict == "bad"
    assert rows["praise"].figures["lift_quality"] == pytest.approx(2.0), "the deviation of the clips is 1"
    assert [rows[name].verdict for name in ("praise", "still", "sharpening")] == ["bad", "good", "good"]
    assert rows["own_prompt"].figures == {"wins": 1.0}
    assert rows["pixel_shifted"].verdict == "partly"
    assert rows["again"].verdict == "bad", "a second run must give the same bits"


def test_prompts_that_are_confused_and_the_worst_clip():
    records = [record(0, swaps=(1.0, 2.0, 3.0)), record(1, swaps=(1.0, 1.0)), record(2, swaps=(2.0,), blur_strong=5)]
    rows = verdicts(*records)
    assert rows["own_prompt"].figures == {"wins": 0.0}
    assert rows["own_prompt"].verdict == "bad"
    assert rows["blur"].worst == "clip2"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probed")
    lines = []
    for number, prompt in enumerate(["a red <b>gradient", "a blue gradient", "stripes"]):
        clip = np.roll(moving_gradient(6, 48, 64), number, -1)
        write_video(folder / f"{number}.mkv", clip, "ffv1", "bgr0")
        lines.append({"file": f"{number}.mkv", "prompt": prompt})
    (folder / "broken.mp4").write_bytes(b"no video")
    lines.insert(1, {"file": "broken.mp4", "prompt": "nothing"})
    path = folder / "clips.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_a_run_from_manifest_to_page(manifest, model_folder, tmp_path, capsys):
    output = tmp_path / "probes"
    command = ["probe", "--model", str(model_folder), "--manifest", str(manifest), "--output", str(output)]
    command += ["--device", "cpu", "--ascent_steps", "1"]
    assert main(command) == 1, "a clip could not be probed"
    assert "not probed: " in capsys.readouterr().err
    summary = json.loads((output / "probes.json").read_text())
    assert summary["clips"] == 3
    assert "broken.mp4" in summary["failed"][0]["error"]
    groups = {row["group"]: [] for row in summary["rows"]}
    for row in summary["rows"]:
        groups[row["group"]].append(row["name"])
    assert groups["degradations"] == list(DEGRADATIONS)
    assert groups["tricks"] == [*TRICKS, "ascent"]
    assert set(groups["steadiness"]) == {*STEADINESS, "again", "batch", "bfloat16"}
    figures = {row["name"]: row["figures"] for row in summary["rows"]}
    assert figures["again"]["largest_change"] == 0
    page = (output / "index.html").read_text()
    assert set(re.findall(r'data-probe="(\w+)"', page)) == set(figures)
    assert page.count("data:image/jpeg") >= 2
    assert "<b>gradient" not in page.replace(html.escape("<b>gradient"), "")

    records = (output / "records.jsonl").read_text()
    lines = records.splitlines()
    (output / "records.jsonl").write_text("\n".join([*lines[:4], lines[4][:50]]))
    assert main(command) == 1, "it goes on after a kill in the middle of a line"
    assert (output / "records.jsonl").read_text() == records
    assert main([*command[:-1], "2"]) == 2
    assert "ascent_steps" in capsys.readouterr().err


def test_a_model_without_alignment_needs_no_prompts(manifest, model_folder, tmp_path):
    settings = ScorerSettings(str(model_folder), branches=("technical",), device="cpu")
    clips = [ProbedClip(str(n), read_frames(manifest.parent / f"{n}.mkv"), None) for n in range(3)]
    summary = probe(settings, clips, tmp_path / "probes", ascent_steps=0)
    names = {row["name"] for row in summary["rows"]}
    assert not names & {"praise", "pasted_prompt", "own_prompt", "ascent"}
    assert {"blur", "still", "batch"} <= names


@pytest.mark.parametrize(
    ("clips", "message"),
    [([("a", PROMPT)], "at least 3 clips"), ([("a", PROMPT), ("b", None)], "'b' has no prompt")],
)
def test_too_few_clips_and_missing_prompts(model_folder, tmp_path, clips, message):
    settings = ScorerSettings(str(model_folder), device="cpu")
    clip = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        probe(settings, [ProbedClip(name, clip, prompt) for name, prompt in clips], tmp_path / "probes", 0)
