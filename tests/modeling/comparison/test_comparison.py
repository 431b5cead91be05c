"""Generators compared: the statistics against scipy and against data whose truth is known, and the command."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from modeling_aigcvqa.cli import main
from modeling_aigcvqa.comparison.answers import Answers, gathered
from modeling_aigcvqa.comparison.compare import compare
from modeling_aigcvqa.comparison.files import to_json
from modeling_aigcvqa.comparison.pairs import ALPHA, correct, fewest_prompts, holm, pairs_of
from modeling_aigcvqa.comparison.words import told_apart, verdict
from modeling_aigcvqa.names_aigcvqa import SCORES
from modeling_aigcvqa.scoring.score_table import ScoreTable, read_score_table
from tests.conftest import moving_gradient, write_video


def answers_of(quality, categories=None, **others):
    """Answers with these scores (P, G)."""
    quality = np.asarray(quality, np.float64)
    prompts, generators = quality.shape
    return Answers(
        generators=[chr(ord("A") + place) for place in range(generators)],
        prompts=[f"prompt {number}" for number in range(prompts)],
        categories=categories or [None] * prompts,
        scores={"quality_score": quality, **others},
        clips=np.isfinite(quality).astype(int),
        failed=[],
        warnings=[],
    )


def drawn(prompts, means, seed=0):
    return np.random.default_rng(seed).normal(means, 1.0, (prompts, len(means)))


def pair_of(comparison, first, second, score="quality_score"):
    found = to_json(comparison)["scores"][score]["pairs"]
    return next(pair for pair in found if (pair["first"], pair["second"]) == (first, second))


def test_the_statistics_of_a_pair_are_those_of_scipy():
    scores = drawn(24, [0.6, 0.0])
    scores[3, 1] = scores[3, 0]
    found = pair_of(compare(answers_of(scores)), "A", "B")
    test = stats.ttest_rel(*scores.T)
    assert found["p_value"] == pytest.approx(stats.wilcoxon(*scores.T).pvalue)
    assert found["difference"] == pytest.approx((scores[:, 0] - scores[:, 1]).mean())
    assert (found["low"], found["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found["wins"] == (scores[:, 0] > scores[:, 1]).sum()
    assert found["ties"] == 1


def test_holm_corrects_all_pairs_and_scores_as_one_family():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    scores, others = drawn(30, [1, 0, 0]), drawn(30, [0, 0, 0.5], 1)
    comparison = compare(answers_of(scores, technical_score=others))
    pairs = [pair for board in comparison.boards.values() for pair in board.pairs]
    assert comparison.tests == len(pairs) == 6
    assert [pair.p_holm for pair in pairs] == pytest.approx(holm([pair.p_value for pair in pairs]))


def test_equal_generators_are_told_apart_in_at_most_five_per_cent_of_cases():
    """Scores of four different generators, dealt out anew within each prompt: every difference is chance."""
    rng, scores = np.random.default_rng(0), drawn(40, [2, 1, 0.5, 0])
    wrong = []
    for _ in range(200):
        dealt = rng.permuted(scores, axis=1)
        boards = compare(answers_of(dealt, technical_score=dealt[:, ::-1].copy())).boards.values()
        wrong.append(any(pair.differs for board in boards for pair in board.pairs))
    assert np.mean(wrong) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_ranks_and_groups_say_what_can_be_told():
    """A and B are equal, C is far below; D lies between B and C without being told from B."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=(60, 1))
    scores = base + np.array([5.0, 5.0, 0.0, 4.8]) + rng.normal(0, 1, (60, 4))
    comparison = compare(answers_of(scores))
    places = {place.generator: place for place in comparison.boards["quality_score"].places}
    assert (places[2].best_rank, places[2].worst_rank) == (4, 4)
    assert all((places[name].best_rank, places[name].worst_rank) == (1, 3) for name in (0, 1, 3))
    assert places[0].groups == places[1].groups == places[3].groups == "a"
    assert places[2].groups == "b"
    assert verdict(comparison.boards["quality_score"], "ABCD").endswith("lead; which of them is best cannot be told.")
    alone = compare(answers_of(drawn(60, [4, 0, 0])))
    assert verdict(alone.boards["quality_score"], "ABC") == "A is better than every other generator."
    equal = compare(answers_of(drawn(60, [0, 0])))
    assert verdict(equal.boards["quality_score"], "AB") == "No generator can be told to be better than all others."


def test_groups_overlap_where_being_equal_does_not_carry_over():
    rng = np.random.default_rng(4)
    scores = np.array([0.0, 0.45, 0.9]) + rng.normal(0, 1, (60, 3))
    comparison = compare(answers_of(scores))
    groups = {place.generator: place.groups for place in comparison.boards["quality_score"].places}
    assert groups == {2: "a", 1: "ab", 0: "b"}


def test_the_prompts_that_are_missing_would_tell_the_pair_apart():
    """The estimate from 40 prompts against the number that has a power of 80 % in new draws."""
    estimates = []
    for seed in range(60):
        scores = drawn(40, [0.35 * np.sqrt(2), 0.0], seed)
        pairs = pairs_of(scores)
        correct([pairs])
        if pairs[0].more_prompts:
            estimates.append(40 + pairs[0].more_prompts)
    wanted = int(np.median(estimates))
    draws = [drawn(wanted, [0.35 * np.sqrt(2), 0.0], 1000 + seed) for seed in range(300)]
    power = np.mean([stats.wilcoxon(*scores.T).pvalue < ALPHA for scores in draws])
    assert 0.7 < power <= 1.0, wanted
    assert wanted < 200


def test_a_hopeless_pair_is_called_so():
    pairs = pairs_of(np.tile([1.0, 1.0], (30, 1)))
    correct([pairs])
    assert pairs[0].more_prompts is None
    assert pairs[0].p_holm == 1
    assert told_apart(pairs[0]) == "no, nor with 10,000 prompts"


def test_the_deciding_prompts_turn_the_order_when_they_are_left_out():
    scores = drawn(30, [0.15, 0.0], 3)
    scores[[4, 9], 0] += 12
    found = pair_of(compare(answers_of(scores)), "A", "B")
    assert set(found["deciding"][:2]) == {"prompt 4", "prompt 9"}
    differences = np.sort(scores[:, 0] - scores[:, 1])[::-1]
    assert differences[found["turned_by"] :].sum() <= 0 < differences[found["turned_by"] - 1 :].sum()


def test_means_are_over_common_prompts_and_pairs_over_their_own():
    scores = drawn(20, [0, 0, 0])
    scores[:5, 0], scores[15:, 1] = np.nan, np.nan
    comparison = compare(answers_of(scores))
    places = {place.generator: place for place in comparison.boards["quality_score"].places}
    assert places[2].mean == pytest.approx(scores[5:15, 2].mean())
    assert {place.prompts for place in places.values()} == {10}
    pairs = {(pair.first, pair.second): pair.prompts for pair in comparison.boards["quality_score"].pairs}
    assert pairs == {(0, 1): 10, (0, 2): 15, (1, 2): 15}


def test_a_generator_without_a_score_leaves_the_others_their_common_prompts():
    scores = drawn(20, [2, 0, 0])
    scores[:, 2], scores[:5, 0] = np.nan, np.nan
    board = compare(answers_of(scores)).boards["quality_score"]
    assert [(place.generator, place.prompts) for place in board.places] == [(0, 15), (1, 15)]


def test_generators_without_a_common_prompt_are_not_tested():
    scores = drawn(20, [5, 0])
    scores[:10, 0], scores[10:, 1] = np.nan, np.nan
    comparison = compare(answers_of(scores))
    pair = pair_of(comparison, "A", "B")
    assert (pair["prompts"], pair["difference"], pair["p_holm"], pair["differs"]) == (0, None, 1.0, False)
    assert any("share only 0 prompts" in warning for warning in comparison.warnings)
    assert any("answered by one generator alone" in warning for warning in comparison.warnings)


def test_few_prompts_are_warned_of():
    comparison = compare(answers_of(drawn(6, [9, 0])))
    assert any("share only 6 prompts" in warning for warning in comparison.warnings)
    many = compare(answers_of(drawn(8, [50, 0, 0, 0, 0])))
    assert any("no difference is large enough" in warning for warning in many.warnings)
    assert not any(pair.differs for pair in many.boards["quality_score"].pairs)


@pytest.mark.parametrize("tests", [1, 6, 45, 180])
def test_the_fewest_prompts_are_those_of_the_smallest_p_value(tests):
    least = fewest_prompts(tests)
    assert stats.wilcoxon(np.arange(1, least + 1.0)).pvalue <= ALPHA / tests
    assert stats.wilcoxon(np.arange(1, least)).pvalue > ALPHA / tests


def test_categories_are_compared_within():
    scores = np.vstack([drawn(30, [2, 0]), drawn(30, [0, 2], 1), drawn(1, [0, 0], 2)])
    comparison = compare(answers_of(scores, ["animals"] * 30 + ["cities"] * 30 + ["single"]))
    best = {name: board.places[0].generator for name, board in comparison.categories.items()}
    assert best == {"animals": 0, "cities": 1}, "a category with one prompt is left out"
    assert all(board.pairs[0].differs for board in comparison.categories.values())
    assert comparison.categories["animals"].prompts == 30


def rows_of(scores, generators="AB", **columns):
    return [
        {"file": f"{p}{g}.mp4", "prompt": f"prompt {p}", "generator": g, "quality_score": float(value), **columns}
        for p, row in enumerate(scores)
        for g, value in zip(generators, row)
    ]


def gathered_rows(rows, tmp_path, **options):
    return gathered([(tmp_path / "scores.csv", ScoreTable(rows, {"model_sha256": "x"}))], **options)


def test_clips_of_a_prompt_count_with_their_mean(tmp_path):
    rows = [*rows_of([[1, 2], [3, 4]]), *rows_of([[5, 2]])]
    rows.append({"file": "bad.mp4", "prompt": "prompt 1", "generator": "B", "error": "'bad.mp4' is empty."})
    answers = gathered_rows(rows, tmp_path)
    assert answers.scores["quality_score"].tolist() == [[3, 2], [3, 4]]
    assert answers.clips.tolist() == [[2, 2], [1, 1]]
    assert answers.failed == [{"file": "bad.mp4", "generator": "B", "error": "'bad.mp4' is empty."}]
    assert any("could not be scored" in warning and "B 1" in warning for warning in answers.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [{**row, "generator": ""} for row in rows], "no column 'generator'"),
        (lambda rows: [*rows[:-1], {**rows[-1], "generator": ""}], "row 4: 'generator' is empty"),
        (lambda rows: [*rows[:-1], {**rows[-1], "prompt": "  "}], "row 4: 'prompt' is empty"),
        (lambda rows: [row for row in rows if row["generator"] == "A"], "one generator"),
        (lambda rows: [*rows[:-1], {**rows[-1], "quality_of": "technical"}], "sums of different branches"),
        (
            lambda rows: [{"file": "a", "prompt": "p", "generator": g, "error": "bad"} for g in "AB"],
            "no clip has a score",
        ),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        gathered_rows(change(rows_of([[1, 2], [3, 4]])), tmp_path)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of two generators for three prompts, the second with heavy noise; one file is broken."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    rows = []
    for prompt in range(3):
        for name, noise in (("clean", 0), ("noisy", 60)):
            frames = np.roll(moving_gradient(16, 96, 128), 20 * prompt, 2)
            frames = (frames + noise * rng.standard_normal(frames.shape)).clip(0, 255).astype(np.uint8)
            write_video(folder / f"{name}{prompt}.mp4", frames)
            rows.append({"file": f"{name}{prompt}.mp4", "prompt": f"gradient {prompt}", "generator": name})
    (folder / "broken.mp4").write_bytes(b"broken")
    rows.append({"file": "broken.mp4", "prompt": "gradient 2", "generator": "noisy"})
    for name, chosen in (("all", rows), ("clean", rows[0:6:2]), ("noisy", rows[1:6:2])):
        columns = ["file", "prompt"] if name != "all" else list(rows[0])
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(chosen)
    return folder


def test_the_command_scores_and_compares(clips, model_folder, capsys):
    output = clips / "report"
    assert main(["compare", "--manifest", str(clips / "all.csv"), "--output", str(output)]) == 1
    printed = capsys.readouterr()
    assert "broken.mp4" in printed.err
    assert "share only 3 prompts" in " ".join(printed.out.split())
    content = json.loads((output / "comparison.json").read_text())
    assert content["generators"] == ["clean", "noisy"]
    assert content["model"] == "small"
    assert "drawn scenes" in content["note"]
    page = (output / "comparison.html").read_text()
    for text in ("2 generators compared", "scored by small", "drawn scenes", "share only 3 prompts", "broken.mp4"):
        assert text in page
    with (output / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["score"] for row in rows} == set(SCORES)
    scores = read_score_table(output / "all.scores.jsonl").rows
    clean = [row["quality_score"] for row in scores if row["generator"] == "clean"]
    mean = next(row for row in rows if (row["score"], row["generator"]) == ("quality_score", "clean"))["mean"]
    assert float(mean) == pytest.approx(np.mean(clean))
    assert main(["compare", "--manifest", str(clips / "all.csv"), "--output", str(output)]) == 1, (
        "goes on with its scores"
    )
    other = ["compare", "--manifest", str(clips / "all.csv"), "--output", str(output), "--model", str(model_folder)]
    capsys.readouterr()
    assert main(other) == 2
    assert "holds the scores of another run" in capsys.readouterr().err
    assert main([*other, "--overwrite"]) == 1
    assert json.loads((output / "comparison.json").read_text())["model"] == str(model_folder)


def test_files_that_score_wrote_are_read(clips, capsys):
    """As CSV, as Parquet and as the folder of a run: the same comparison."""
    found = []
    for name in ("scores.csv", "scores.parquet", "run/"):
        main(
            [
                "score",
                "--manifest",
                str(clips / "all.csv"),
                "--output",
                f"{clips}/{name}",
            ]
        )
        capsys.readouterr()
        assert main(["compare", "--manifest", str(clips / name), "--json"]) == 1
        found.append(json.loads(capsys.readouterr().out))
    means = [[place["mean"] for place in content["scores"]["quality_score"]["leaderboard"]] for content in found]
    assert means[0] == means[1] == pytest.approx(means[2], abs=1e-3), "a run in a folder has a thread per process"
    assert [len(content["failed"]) for content in found] == [1, 1, 1]
    assert {content["model"] for content in found} == {"small"}


def test_one_manifest_per_generator(clips, capsys):
    paths = [str(clips / "clean.csv"), str(clips / "noisy.csv")]
    assert main(["compare", "--manifest", *paths, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["generators"] == ["clean", "noisy"]
    assert content["clips"] == 6


def test_manifests_of_one_name_are_told_apart_by_their_folders(clips, capsys):
    """Each generator has a folder, with a manifest that is called the same in all."""
    paths = []
    for name in ("clean", "noisy"):
        folder = clips / f"of_{name}"
        folder.mkdir()
        text = (clips / f"{name}.csv").read_text().replace(name, f"../{name}")
        (folder / "clips.csv").write_text(text)
        paths.append(str(folder / "clips.csv"))
    assert main(["compare", "--manifest", *paths, "--output", str(clips / "folders"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["generators"] == ["of_clean/clips", "of_noisy/clips"]
    assert {file.name for file in (clips / "folders").glob("*.scores.jsonl")} == {
        "of_clean_clips.scores.jsonl",
        "of_noisy_clips.scores.jsonl",
    }
    assert main(["compare", "--manifest", paths[0], paths[0]]) == 2
    assert "is named twice" in capsys.readouterr().err


def test_scores_of_different_models_are_refused(clips, model_folder, capsys):
    first, second = clips / "first.csv", clips / "second.csv"
    assert main(["score", "--manifest", str(clips / "clean.csv"), "--output", str(first)]) == 0
    arguments = ["--model", str(model_folder), "--output", str(second)]
    assert main(["score", "--manifest", str(clips / "noisy.csv"), *arguments]) == 0
    assert main(["compare", "--manifest", str(first), str(second)]) == 2
    assert "cannot be compared, they were made differently (model_sha256" in " ".join(capsys.readouterr().err.split())
    (clips / "second.csv.run.json").unlink()
    assert main(["compare", "--manifest", str(first), str(second)]) == 0
    assert "No record beside 'second.csv'" in " ".join(capsys.readouterr().out.split())


def test_an_interrupted_file_is_warned_of(clips, capsys):
    path = clips / "part.csv"
    main(["score", "--manifest", str(clips / "all.csv"), "--output", str(path)])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:6]))
    capsys.readouterr()
    assert main(["compare", "--manifest", str(path)]) == 0
    assert "lacks 2 rows: its scoring was interrupted" in " ".join(capsys.readouterr().out.split())


def test_names_from_outside_are_no_markup(tmp_path):
    from modeling_aigcvqa.comparison.page import page_html

    name = "<script>alert(1)</script>"
    rows = [
        {**row, "generator": f"{name}{row['generator']}", "prompt": name + row["prompt"]}
        for row in rows_of(drawn(5, [0, 1]))
    ]
    page = page_html(compare(gathered_rows([{**row, "category": name} for row in rows], tmp_path)), None, None)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
