import dataclasses
import json
import re
import sys

import av
import numpy as np
import pytest
import torch

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, AIGCVQAPipeline, VideoReadError
from modeling_aigcvqa.cli import main
from modeling_aigcvqa.common.presets import default_processor
from modeling_aigcvqa.explain import ColorScale, Windows, explain, weakest_places
from modeling_aigcvqa.explain import windows as windows_module
from modeling_aigcvqa.explain.drawing import OverlayPainter, draw_timeline, tint, write_overlay
from modeling_aigcvqa.explain.page import scores_html, windows_html, words_html
from modeling_aigcvqa.explain.report import write_report
from modeling_aigcvqa.explain.windows import MAX_WINDOWS, overlap_add, slices_of_frames
from modeling_aigcvqa.explain.words import (
    FUNCTION_WORDS,
    as_words,
    score_prompts,
    without_word,
    word_scores,
    word_spans,
)
from tests.conftest import moving_gradient

PROMPT = "a red gradient moving to the left"


@pytest.fixture(scope="module")
def scorer(small_model, processor):
    return AIGCVQAPipeline(model=small_model, processor=processor)


@pytest.fixture(scope="module")
def explanation(scorer, clip):
    return explain(scorer, clip, PROMPT)


def with_maps(explanation, technical):
    """The explanation with other technical maps (F, 7, 7)."""
    maps = {**explanation.frame_maps, "technical": technical.astype(np.float32)}
    return dataclasses.replace(explanation, frame_maps=maps)


# --- what is computed ----------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_pipeline(explanation, scorer, clip):
    assert explanation.scores == pytest.approx(scorer({"video": clip, "prompt": PROMPT}), abs=1e-6)


def test_shapes_and_sums(explanation):
    assert explanation.windows.indices.tolist() == [list(range(16)), list(range(4, 20))]
    assert {name: values.shape for name, values in explanation.maps.items()} == {
        "technical": (2, 8, 7, 7),
        "aesthetic": (2, 8, 7, 7),
    }
    parts = ("technical_score", "aesthetic_score", "alignment_score")
    for scores in (explanation.window_scores, explanation.timeline):
        np.testing.assert_allclose(scores["quality_score"], sum(scores[name] for name in parts), atol=1e-5)
    for branch, values in explanation.maps.items():
        np.testing.assert_allclose(values.mean((1, 2, 3)), explanation.window_scores[f"{branch}_score"], atol=1e-5)
        assert explanation.frame_maps[branch].shape == (20, 7, 7)
    assert "untrained (random)" in explanation.note


def test_one_window_has_the_clips_scores(scorer):
    explanation = explain(scorer, moving_gradient(16, 224, 224), PROMPT)
    assert len(explanation.windows.starts) == 1
    for name, values in explanation.timeline.items():
        assert explanation.window_scores[name][0] == pytest.approx(explanation.scores[name], abs=1e-6)
        assert values.mean() == pytest.approx(explanation.scores[name], abs=1e-5)


@pytest.mark.parametrize("total", [1, 7])
def test_short_clips(scorer, total):
    explanation = explain(scorer, moving_gradient(total, 64, 80), PROMPT)
    assert all(values.shape == (total,) for values in explanation.timeline.values())
    # Frames repeat in the sampled ones unevenly, so the mean over frames is close to the score, not equal.
    assert np.isfinite(explanation.timeline["quality_score"]).all()
    if total == 1:
        assert explanation.timeline["quality_score"][0] == pytest.approx(explanation.scores["quality_score"], abs=1e-5)


@pytest.mark.parametrize("total", [1, 15, 16, 17, 40, 519, 520, 521, 14_400])
def test_windows_cover_the_clip(total):
    windows = Windows.over(total, 16)
    assert len(windows.starts) <= MAX_WINDOWS
    assert windows.starts[0] == 0
    assert windows.starts[-1] + windows.length == total
    assert (np.diff(windows.starts) > 0).all()
    assert (np.diff(windows.starts) <= windows.stride).all()
    assert windows.indices.max() == total - 1


def test_triangular_weights_by_hand():
    windows = Windows.over(5, 3, 3, 2)
    assert windows.starts.tolist() == [0, 2]
    values = np.repeat([[1.0], [4.0]], 3, axis=1)
    # Weights 1, 2, 1: frame 2 is the last of the first window and the first of the second.
    assert overlap_add(values, windows, "triangular").tolist() == [1, 1, 2.5, 4, 4]
    windows = Windows.over(4, 3, 3, 1)
    expected = [1, (2 * 1 + 4) / 3, (1 + 2 * 4) / 3, 4]
    assert overlap_add(values, windows, "triangular") == pytest.approx(np.array(expected))
    assert overlap_add(values, windows, "uniform").tolist() == [1, 2.5, 2.5, 4]


def test_frames_take_the_places_of_their_samples():
    slices = slices_of_frames(Windows.over(2, 4), 2)  # sampled frames 0 0 1 1, two a place
    assert slices.tolist() == [[1, 0], [0, 1]]
    slices = slices_of_frames(Windows.over(1, 4), 2)
    assert slices.tolist() == [[0.5, 0.5]], "a frame that was sampled for both places takes both"


def test_windows_see_their_own_frames(scorer):
    """A clip whose second half is the first one again: windows of the halves score the same."""
    half = moving_gradient(16, 224, 224)
    explanation = explain(scorer, np.concatenate([half, half]), PROMPT, window=16, stride=16)
    first, second = explanation.maps["technical"]
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert first.std() > 1e-4


def test_long_clips_are_decoded_in_parts(scorer, clip, explanation, monkeypatch):
    read, counts = windows_module.read_video, []

    def counting(video, choose_frames):
        frames, metadata = read(video, choose_frames)
        counts.append(len(frames))
        return frames, metadata

    monkeypatch.setattr(windows_module, "read_video", counting)
    monkeypatch.setattr(windows_module, "READ_BYTES", 17 * 256 * 320 * 3)
    again = explain(scorer, clip, PROMPT)
    assert counts == [16, 16]
    np.testing.assert_allclose(again.timeline["quality_score"], explanation.timeline["quality_score"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": None}, "pass the prompt"),
        ({"prompt": "  "}, "pass the prompt"),
        ({"window": 0}, "window=0"),
        ({"stride": 0}, "stride=0"),
        ({"window": 4, "stride": 8}, "Lower the stride"),
        ({"weighting": "gaussian"}, "triangular"),
        ({"word_method": "guess"}, "leave_out"),
    ],
)
def test_wrong_options(scorer, clip, options, message):
    with pytest.raises(ValueError, match=message):
        explain(scorer, clip, **{"prompt": PROMPT, **options})


def test_a_broken_file(scorer, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(VideoReadError, match=r"broken\.mp4"):
        explain(scorer, tmp_path / "broken.mp4", PROMPT)


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["st_adapter", None])
def test_prompts_score_as_in_the_model(adapter):
    part = AIGCVQAConfig.small().to_dict()["alignment_config"] | {"adapter": adapter}
    config = AIGCVQAConfig.small(branches=["alignment"], alignment_config=part)
    scorer = AIGCVQAPipeline(model=AIGCVQAModel(config).eval(), processor=default_processor(config))
    prompts = [PROMPT, "two", "a yacht at sea, seen from a drone", *(f"prompt {number}" for number in range(6))]
    views = scorer.processor(videos=[moving_gradient(6, 64, 64)], num_frames=6)["pixel_values_resized"]
    with torch.no_grad():
        inputs = scorer.processor(text=prompts)
        expected = scorer.model(pixel_values_resized=views.repeat(len(prompts), 1, 1, 1, 1), **inputs).alignment_score
    scores = score_prompts(scorer, views, prompts)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert scores.std() > 1e-5


def test_word_effects(explanation, scorer, clip):
    assert [word.word for word in explanation.words] == PROMPT.split()
    without = scorer({"video": clip, "prompt": "a gradient moving to the left"})["alignment_score"]
    red = explanation.words[1]
    assert red.effect == pytest.approx(explanation.scores["alignment_score"] - without, abs=1e-5)


def test_weak_words_are_those_without_which_the_score_rises(explanation):
    def of(effects, reference=1.0):
        words = [dataclasses.replace(word, effect=effects.get(word.word, 0.0)) for word in explanation.words]
        changes = {**explanation.reference_changes, "alignment": reference}
        return dataclasses.replace(explanation, words=words, reference_changes=changes)

    found = of({"red": -0.5, "gradient": -0.9, "moving": 0.7, "left": -0.2, "the": -2.0})
    assert [word.word for word in found.weakest_words()] == ["gradient", "red"], "not below a quarter, no stop words"
    page = words_html(found)
    assert "None stands out" not in page
    spans = dict(zip(PROMPT.split(), re.findall(r"/ (\d\.\d\d)\)", page)))
    assert spans["the"] == spans["a"] == spans["to"] == "0.00", "stop words are not coloured"
    assert float(spans["gradient"]) > float(spans["red"]) > 0
    assert "None stands out" in words_html(of({"red": -0.1, "gradient": 0.9}))
    assert of({"red": -0.1}).weakest_words() == []


def test_words_of_a_prompt():
    prompt = "A hot-air balloon; the child's, über 3 towns."
    words = [prompt[start:end] for start, end in word_spans(prompt)]
    assert words == ["A", "hot-air", "balloon", "the", "child's", "über", "3", "towns"]
    assert "the" in FUNCTION_WORDS
    assert without_word(prompt, word_spans(prompt)[1]) == "A balloon; the child's, über 3 towns."
    assert without_word("red dog", (0, 3), "mask") == "[MASK] dog"


@pytest.mark.parametrize("method", ["leave_out", "mask"])
def test_names_of_tokens_in_a_prompt_are_words(scorer, clip, method):
    prompt = "a [PAD] gradient [SEP] [CLS] [ENC] [DEC] [UNK][MASK]"
    tokenizer = scorer.processor.tokenizer
    special = tokenizer.all_special_tokens
    assert {"[PAD]", "[ENC]", "[DEC]", "[MASK]"} <= set(special)
    assert tokenizer(as_words(prompt, special)).input_ids == tokenizer(prompt, split_special_tokens=True).input_ids
    span = word_spans(prompt)[2]
    assert prompt[slice(*span)] == "gradient"
    ids = tokenizer(without_word(prompt, span, method, special)).input_ids[1:-1]
    assert ids.count(tokenizer.mask_token_id) == (method == "mask")
    assert not set(ids) & ({*tokenizer.all_special_ids} - {tokenizer.mask_token_id})
    words, _ = word_scores(scorer, scorer.processor(videos=[clip])["pixel_values_resized"], prompt, method)
    whole = scorer({"video": clip, "prompt": prompt})["alignment_score"]
    without = scorer({"video": clip, "prompt": prompt.replace("gradient ", "")})["alignment_score"]
    if method == "leave_out":
        assert words[2].effect == pytest.approx(whole - without, abs=1e-5)


def test_words_that_are_cut_off_are_left_out(small_model, clip):
    processor = default_processor(small_model.config)
    processor.tokenizer.model_max_length = 6
    scorer = AIGCVQAPipeline(model=small_model, processor=processor)
    words, effect = word_scores(scorer, processor(videos=[clip])["pixel_values_resized"][:, :2], PROMPT)
    assert [word.word for word in words] == ["a", "red", "gradient", "moving"], "four words, [CLS] and [SEP]"
    assert effect != 0


def test_models_without_words_or_maps(clip):
    for branches in (["technical"], ["alignment"]):
        config = AIGCVQAConfig.small(branches=branches)
        scorer = AIGCVQAPipeline(model=AIGCVQAModel(config).eval(), processor=default_processor(config))
        explanation = explain(scorer, clip, None if branches == ["technical"] else PROMPT)
        assert list(explanation.maps) == [branch for branch in branches if branch != "alignment"]
        assert bool(explanation.words) == ("alignment" in branches)


# --- what is drawn -------------------------------------------------------------------------------------------------


def test_a_bad_cell_is_red_and_the_rest_is_the_video(explanation):
    maps = np.zeros((20, 7, 7))
    maps[:, 2, 5] = -1.0
    explanation = with_maps(explanation, maps)
    painter = OverlayPainter(explanation)
    frame = np.full((256, 320, 3), 128, np.uint8)
    left, top = painter.corner(1)
    panel = np.asarray(painter.paint(0, frame)).astype(int)[
        top : top + painter.panel[1], left : left + painter.panel[0]
    ]
    redness = panel[..., 0] - panel[..., 2]
    cells = redness[: redness.shape[0] // 7 * 7, : redness.shape[1] // 7 * 7]
    cells = cells.reshape(7, redness.shape[0] // 7, 7, redness.shape[1] // 7).mean((1, 3))
    assert np.unravel_index(cells.argmax(), (7, 7)) == (2, 5)
    assert cells[2, 5] > 60
    assert np.abs(np.delete(cells, 2 * 7 + 5)).max() < 12
    places = weakest_places(explanation, "technical")
    assert {(place.row, place.column) for place in places} == {(2, 5)}, "no other place stands out"


def test_weak_places_are_spread_over_time(explanation):
    maps = np.zeros((20, 7, 7))
    maps[6] = -5.0  # a bad moment everywhere
    maps[7, 0, 0], maps[13, 3, 4], maps[18, 6, 6] = -9.0, -3.0, -2.0
    places = weakest_places(with_maps(explanation, maps), "technical")
    assert [(place.frame, place.row, place.column) for place in places] == [(7, 0, 0), (13, 3, 4), (18, 6, 6)]


def test_heading_legend_and_timeline_of_a_sampling_agree(explanation, scorer):
    """Two samplings are named apart; a clip that is a single window has one."""
    painter, figure = OverlayPainter(explanation), draw_timeline(explanation)
    for branch in explanation.maps:
        mean = explanation.window_means[f"{branch}_score"]
        assert mean == pytest.approx(explanation.frame_maps[branch].mean(), abs=1e-4)
        assert painter.scale.centers[branch] == mean
        assert painter.title(branch) == f"{branch}, windows' mean {mean:.2f}"
        place = list(explanation.timeline).index(f"{branch}_score")
        assert figure.axes[place].lines[1].get_ydata()[0] == mean
        assert figure.axes[place].get_title(loc="left").endswith(f"windows' mean  {mean:.2f}")
    assert "mean of the windows" in windows_html(explanation)
    single = explain(scorer, moving_gradient(7, 64, 80), PROMPT)
    assert single.window_means == pytest.approx(single.scores)
    assert windows_html(single) == ""
    painter = OverlayPainter(single)
    for branch in single.maps:
        assert painter.title(branch) == f"{branch}  {single.scores[f'{branch}_score']:.2f}"
        assert painter.scale.centers[branch] == pytest.approx(single.scores[f"{branch}_score"])


def test_compared_clips_share_their_colours(explanation):
    """A clip that is worse throughout is red throughout, and the other one blue."""
    worse, better = (with_maps(explanation, np.full((20, 7, 7), value)) for value in (2.0, 6.0))
    for clip, value in ((worse, 2.0), (better, 6.0)):
        clip.window_means["technical_score"] = value
    scale = ColorScale.over([worse, better])
    assert (scale.centers["technical"], scale.clips) == (4.0, 2)
    assert scale.limits["technical"] >= 2.0
    frame = np.full((256, 320, 3), 128, np.uint8)
    redness = []
    for clip in (worse, better):
        painter = OverlayPainter(clip, scale)
        left, top = painter.corner(1)
        panel = np.asarray(painter.paint(0, frame)).astype(int)
        panel = panel[top : top + painter.panel[1], left : left + painter.panel[0]]
        redness.append((panel[..., 0] - panel[..., 2]).mean())
    assert redness[0] > 20 > -20 > redness[1]
    own = [OverlayPainter(clip).scale.centers["technical"] for clip in (worse, better)]
    assert own == [2.0, 6.0]


def test_a_map_without_bad_places_stays_pale(explanation):
    noise = np.random.default_rng(0).normal(0, 0.01, (20, 7, 7))
    explanation = dataclasses.replace(
        with_maps(explanation, noise), reference_changes={**explanation.reference_changes, "technical": 1.0}
    )
    assert explanation.color_limits["technical"] == 0.25
    frame = np.full((64, 64, 3), 128, np.uint8)
    heat = (noise[0] - explanation.map_means["technical"]) / explanation.color_limits["technical"]
    tinted = tint(frame, np.kron(heat, np.ones((64 // 7 + 1, 64 // 7 + 1)))[:64, :64])
    assert np.abs(tinted.astype(int) - 128).max() < 12
    assert weakest_places(explanation, "technical") == []
    figure = draw_timeline(explanation)
    low, high = figure.axes[1].get_ylim()
    assert high - low >= 0.25


def test_report(explanation, clip, tmp_path):
    explanation = dataclasses.replace(explanation, video="'<b>clip</b>.mp4'")
    paths = write_report(explanation, clip, tmp_path / "new" / "report")
    assert sorted(paths) == ["explanation", "overlay", "report", "timeline"]
    page = paths["report"].read_text(encoding="utf-8")
    assert explanation.note in page
    assert "<b>clip" not in page
    assert "data:video/mp4;base64," in page
    assert "<svg" in page
    assert "currentColor" in page, "the timeline has the ink of the page"
    assert not re.search(r"(src|href)=.https?:", page), "the page needs no network"
    assert "clips of the tests" in page, "what percentiles are of"
    for name in explanation.scores:
        assert f'data-score="{name}"' in page
    written = json.loads(paths["explanation"].read_text(encoding="utf-8"))
    assert len(written["timeline"]["quality_score"]) == 20
    assert np.asarray(written["maps"]["aesthetic"]).shape == (2, 8, 7, 7)
    with av.open(str(paths["overlay"])) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, float(stream.average_rate)) == ("h264", "yuv420p", 8.0)
        assert sum(1 for _ in container.decode(stream)) == 20


def test_cards_show_the_place_among_the_reference():
    scores = {"quality_score": 61.3, "technical_score": 25.8}
    shown = scores_html(scores, {"quality_percentile": 47.0, "technical_percentile": 91.0, "quality_mos": 3.4}, "about")
    assert "above 47 % of the reference" in shown
    assert shown.index("middle") < shown.index("very high")
    assert "Estimated MOS: <b>3.40</b>" in shown
    assert "about" in shown
    assert "not known" in scores_html(scores), "without a reference nothing is said"


def test_a_prompt_is_text_not_html(explanation):
    prompt = "<script>alert(1)</script> & more"
    words = [dataclasses.replace(explanation.words[0], word="script", start=1, end=7)]
    shown = words_html(dataclasses.replace(explanation, prompt=prompt, words=words))
    assert "<script" not in shown
    assert "&amp; more" in shown


def test_overlay_of_an_upright_long_clip_without_frame_rate(explanation, tmp_path):
    video = moving_gradient(20, 90, 40)
    upright = dataclasses.replace(explanation, frame_size=(90, 40), fps=None)
    write_overlay(upright, video, tmp_path / "overlay.mp4", max_frames=5)
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert sum(1 for _ in container.decode(stream)) == 5
        assert float(stream.average_rate) == 8 * 5 / 20, "the clip's own time"


# --- the command line ----------------------------------------------------------------------------------------------


def test_command_line(clip, model_folder, tmp_path, capsys):
    arguments = ["explain", str(clip), "--prompt", PROMPT, "--model", str(model_folder), "--output", str(tmp_path)]
    assert main([*arguments, "--window", "20", "--stride", "10"]) == 0
    printed = capsys.readouterr().out
    for word in ("report.html", "overlay.mp4", "timeline.png", "weakest words:", "untrained"):
        assert word in printed
    assert json.loads((tmp_path / "explanation.json").read_text())["windows"]["length"] == 20


def test_command_line_errors(clip, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["missing.mp4", "--prompt", "a", "--output", str(tmp_path / "out")], "missing.mp4"),
        ([str(clip), "--output", str(tmp_path / "out")], "pass the prompt"),
        ([str(clip), "--prompt", "a", "--output", str(tmp_path / "file")], "name a folder"),
    ):
        assert main(["explain", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_scoring_needs_no_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("drawing", "page", "report"):
        monkeypatch.delitem(sys.modules, f"modeling_aigcvqa.explain.{name}")
    assert main(["explain", "clip.mp4", "--prompt", "a", "--output", str(tmp_path)]) == 2
    assert "aigcvqa[explain]" in capsys.readouterr().err


def test_what_ships_with_the_weights_is_unchanged(model_folder):
    assert not list(model_folder.glob("explain*"))
