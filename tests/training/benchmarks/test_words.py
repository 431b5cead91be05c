import json
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from dataset_scripts.synthetic_prompts import BACKGROUNDS, SUBJECTS, make_prompts
from modeling_aigcvqa.explain.words import WordScore, word_spans
from tests.conftest import moving_gradient, write_video
from training.benchmarks import words as words_benchmark
from training.benchmarks.words import (
    ClipWords,
    auc,
    below,
    chance,
    hit,
    main,
    paired_auc,
    summarise,
    usable_clips,
    wrong_part,
)
from training.common.prompt_parts import part_of


def test_parts_of_generated_prompts():
    for prompt in make_prompts(400, seed=3):
        words = {}
        for start, end in word_spans(prompt.text):
            words.setdefault(part_of(prompt.parts, start, end), []).append(prompt.text[start:end].lower())
        scene, subject = prompt.scene, SUBJECTS[prompt.scene.subject]
        assert words["colour"] == [scene.colour], prompt.text
        nouns = subject.singular if scene.count == 1 else subject.plural
        assert set(words["subject"]) <= set(nouns.replace("{a}", "a an").split()), prompt.text
        assert " ".join(words["background"]) in " ".join(BACKGROUNDS[scene.background].phrases).replace("-", "-")
        assert " ".join(words["motion"]) in " ".join(subject.verbs[scene.motion])
        assert words["count"]
        assert set(words.get(None, [])) <= {"is", "are", "a", "video", "of", "short", "clip", "showing"}, prompt.text


def clip_words(effects, parts, wrong, prompt="p"):
    words = [WordScore("word", 0, 4, effect) for effect in effects]
    return ClipWords(prompt, wrong, words, parts)


PARTS = ["count", "colour", "subject", "subject"]


def test_figures_by_hand():
    clip = clip_words([0.5, -0.1, 0.2, -0.1], PARTS, "colour")
    assert hit(clip) == 1.0
    assert chance(clip) == 0.25
    assert auc(clip) == pytest.approx((1 + 1 + 0.5) / 3), "a tie counts half"
    others = [clip_words([0, 0.3, 0, 0], PARTS, None), clip_words([0, -0.4, 0, 0], PARTS, "count")]
    assert paired_auc(clip, others) == 0.5
    assert np.isnan(paired_auc(clip, []))
    assert below(np.array([1.0, 2.0]), np.array([2.0])) == 0.75


def test_a_model_that_knows_and_one_that_guesses():
    rng = np.random.default_rng(0)
    clips = {"knows": [], "guesses": []}
    for number in range(300):
        wrong = PARTS[number % 3]
        noise = rng.normal(0, 1, 4)
        right = clip_words(rng.normal(0, 1, 4), PARTS, None, number // 3)
        knowing = noise - 10 * (np.array(PARTS) == wrong)
        clips["knows"] += [clip_words(knowing, PARTS, wrong, number // 3), right]
        clips["guesses"] += [clip_words(noise, PARTS, wrong, number // 3), right]
    knows, guesses = (summarise(clips[name])["all"] for name in ("knows", "guesses"))
    assert knows["hit_rate"]["value"] == 1.0
    assert knows["auc"]["value"] == 1.0
    assert knows["paired_auc"]["value"] > 0.98
    for figure, expected in (("hit_rate_above_chance", 0.0), ("auc", 0.5), ("paired_auc", 0.5)):
        assert guesses[figure]["low"] < expected < guesses[figure]["high"]
    assert summarise(clips["knows"])["count"]["clips"] == 100


def test_usable_clips():
    assert wrong_part(json.dumps({"blur": 0.5, "wrong_count": 0.3})) == "count"
    assert wrong_part(json.dumps({"blur": 0.5})) is None
    for failures in ({"wrong_count": 0.3, "wrong_colour": 0.5}, {"nothing_of_prompt": 0.95}):
        with pytest.raises(ValueError, match="at most one"):
            wrong_part(json.dumps(failures))
    failures = [{"wrong_count": 0.3}, {}, {"nothing_of_prompt": 0.9}, {}]
    columns = {"failures": [json.dumps(f) for f in failures], "prompt": ["one", "one", "one", "other"]}
    clips = Dataset.from_dict(columns | {"prompt_parts": ["[]"] * 4})
    assert usable_clips(clips) == [(0, "count"), (1, None)]
    with pytest.raises(ValueError, match=r"no column \['failures', 'prompt_parts'\]"):
        usable_clips(Dataset.from_dict({"prompt": ["one"]}))
    with pytest.raises(ValueError, match="exactly one part"):
        usable_clips(clips.select([1]))


@pytest.fixture
def data(tmp_path):
    """A folder like those of synthetic_t2v: two prompts with three clips each; one clip is broken."""
    folder = tmp_path / "data" / "data" / "train"
    folder.mkdir(parents=True)
    rows = []
    prompts = make_prompts(2, seed=0)
    for number, failures in enumerate([{"wrong_colour": 0.5}, {}, {"wrong_count": 0.3}, {"wrong_motion": 0.2}, {}, {}]):
        write_video(folder / f"{number}.mp4", moving_gradient(4, 64, 64 + 16 * number))
        rows.append(
            {
                "file_name": f"{number}.mp4",
                "id": str(number),
                "prompt": prompts[number // 3].text,
                "prompt_parts": json.dumps(prompts[number // 3].parts),
                "mos": 50.0 + number,
                "failures": json.dumps(failures),
            }
        )
    (folder / "5.mp4").write_bytes(b"broken" * 50)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


def test_the_program_scores_a_folder(data, model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    output = tmp_path / "words.json"
    arguments = ["--model", str(model_folder), "--data", str(data), "--output", str(output)]
    assert main(arguments) == 1, "one clip is broken"
    result = json.loads(output.read_text())
    assert result["num_clips"] == 5
    assert [row["id"] for row in result["failed"]] == ["5"]
    for summary in result["methods"].values():
        assert summary["all"]["clips"] == 3
        assert 0 < summary["all"]["chance"] < 1
    printed = capsys.readouterr()
    assert "colour" in printed.out
    assert "5.mp4" in printed.err


def test_invalid_arguments_are_named(tmp_path, capsys, monkeypatch):
    assert main(["--data", str(tmp_path / "none"), "--output", str(tmp_path / "no" / "out.json")]) == 2
    assert "does not exist" in capsys.readouterr().err
    without = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(branches=["technical"])))
    monkeypatch.setattr(words_benchmark, "load_pipeline", lambda *_: without)
    assert main(["--data", str(tmp_path), "--output", str(tmp_path / "out.json")]) == 2
    assert "no alignment branch" in capsys.readouterr().err
