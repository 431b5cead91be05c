"""The synthetic benchmark can be repeated and loaded, and its failures cost what they should."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import av
import datasets
import numpy as np
import pytest

from dataset_scripts import synthetic_t2v
from dataset_scripts.synthetic_baselines import (
    LIMIT,
    baseline_table,
    frame_difference,
    laplacian_sharpness,
    read_clip,
    read_rows,
)
from dataset_scripts.synthetic_failures import (
    AESTHETIC_COSTS,
    ALIGNMENT_COSTS,
    GENERATORS,
    NEEDS_MOTION,
    TECHNICAL_COSTS,
    Plan,
    crf_of,
    make_plan,
    render,
)
from dataset_scripts.synthetic_prompts import BACKGROUNDS, CATEGORIES, COLOURS, SUBJECTS, Scene, make_prompts
from dataset_scripts.synthetic_raters import make_raters, mean_opinion, noise_ceiling, quality_of
from dataset_scripts.synthetic_scenes import Framing, draw_scene, sample_shot
from dataset_scripts.synthetic_subjects import DRAWERS

SIZE = 64
SCENE = Scene("animal", "dog", 1, "red", "right", "meadow")
MOS = {"mos", "technical_mos", "aesthetic_mos", "alignment_mos"}
LATENTS = {"quality", "technical", "aesthetic", "alignment"}
COLUMNS = (
    {"file_name", "id", "prompt", "generator", "category", "failures", "prompt_id", "prompt_parts"} | MOS | LATENTS
)


def hash_frames(prompt: int, generator: int, seed: int = 3, size: int = SIZE) -> str:
    """The hash of a clip's frames before encoding, made in the same way as in the program."""
    scene = make_prompts(prompt + 1, seed)[prompt].scene
    plan_rng, render_rng, _ = synthetic_t2v.clip_streams(seed, prompt, generator)
    plan = make_plan(scene, GENERATORS[generator], plan_rng)
    frames = render(plan, synthetic_t2v.make_assets(seed, prompt, size), render_rng)
    assert frames.shape == (16, size, size, 3) and frames.dtype == np.uint8
    return hashlib.sha256(frames.tobytes()).hexdigest()


def draw(plan: Plan, seed: int = 0, size: int = 128) -> np.ndarray:
    """The frames of a plan, with random choices that depend on the seed alone."""
    return render(plan, synthetic_t2v.make_assets(0, 0, size), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """The folder of a benchmark with seven prompts and ten generators."""
    output = tmp_path_factory.mktemp("synthetic") / "set"
    arguments = ["--num_prompts", "7", "--size", str(SIZE), "--seed", "3", "--num_workers", "1"]
    arguments += ["--output", str(output), "--contact_sheet", str(output.parent / "sheet.png")]
    assert synthetic_t2v.main(arguments) == 0
    return output


def test_rows_have_columns_and_scores_in_range(benchmark):
    rows = read_rows(benchmark)
    assert len(rows) == 70 and len({row["id"] for row in rows}) == 70
    for row in rows:
        assert set(row) == COLUMNS
        assert all(0 <= row[name] <= 100 for name in MOS)
        assert all(0 <= row[name] <= 1 for name in LATENTS)
        assert isinstance(json.loads(row["failures"]), dict)
    assert Counter(row["generator"] for row in rows) == {generator.name: 7 for generator in GENERATORS}


def test_load_dataset_reads_it_without_this_package(benchmark, tmp_path):
    loaded = datasets.load_dataset(str(benchmark), cache_dir=str(tmp_path))["train"]
    loaded = loaded.cast_column("video", datasets.Video(decode=False))
    rows = {row["id"]: row for row in read_rows(benchmark)}
    assert len(loaded) == len(rows) and set(loaded.column_names) == (COLUMNS - {"file_name"}) | {"video"}
    for item in loaded.select(range(0, 70, 9)):
        assert item["video"]["path"].endswith(rows[item["id"]]["file_name"].split("/")[-1])
        assert item["mos"] == rows[item["id"]]["mos"] and item["prompt"] == rows[item["id"]]["prompt"]


def test_clips_are_16_frames_at_4_fps(benchmark):
    path = benchmark / "data" / "train" / read_rows(benchmark)[0]["file_name"]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.width) == ("h264", 4, SIZE)
    assert read_clip(path).shape == (16, SIZE, SIZE, 3)


def test_card_holds_ceiling_baselines_licence_and_command(benchmark):
    card = (benchmark / "README.md").read_text(encoding="utf-8")
    rows = read_rows(benchmark)
    ceiling = noise_ceiling([row["mos"] for row in rows], [row["quality"] for row in rows])
    assert f"`mos` {ceiling:.4f}" in card and ceiling > 0.9
    assert "| laplacian |" in card and "license: cc0-1.0" in card and "--num_prompts 7 --generators 10 --seed 3" in card
    assert (benchmark.parent / "sheet.png").stat().st_size > 10_000


def test_two_workers_write_the_same_bytes(tmp_path):
    files = []
    for workers in (1, 2):
        output = tmp_path / str(workers)
        synthetic_t2v.make_benchmark(output, 2, generators=3, seed=5, size=SIZE, num_workers=workers)
        files.append({path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()})
    assert len(files[0]) == 7 and files[0] == files[1]


def test_a_subset_has_the_same_clips(benchmark, tmp_path):
    synthetic_t2v.make_benchmark(tmp_path / "part", 2, generators=3, seed=3, size=SIZE)
    whole = {row["id"]: row for row in read_rows(benchmark)}
    for row in read_rows(tmp_path / "part"):
        assert row == whole[row["id"]]


def test_frames_are_pixel_identical_and_follow_the_seed():
    assert hash_frames(4, 7) == hash_frames(4, 7)
    assert len({hash_frames(4, 7), hash_frames(4, 6), hash_frames(3, 7), hash_frames(4, 7, seed=4)}) == 4


def test_another_seed_gives_other_labels(tmp_path):
    synthetic_t2v.make_benchmark(tmp_path / "a", 1, generators=2, seed=1, size=SIZE)
    synthetic_t2v.make_benchmark(tmp_path / "b", 1, generators=2, seed=2, size=SIZE)
    assert [row["mos"] for row in read_rows(tmp_path / "a")] != [row["mos"] for row in read_rows(tmp_path / "b")]


def test_prompts_are_unique_balanced_and_name_their_scene():
    prompts = make_prompts(1000, 0)
    assert len({prompt.scene for prompt in prompts}) == len({prompt.text for prompt in prompts}) == 1000
    assert prompts[:50] == make_prompts(50, 0)
    assert set(Counter(prompt.scene.category for prompt in prompts).values()) == {166, 167}
    for scene, prompt in ((prompt.scene, prompt.text) for prompt in prompts):
        assert scene.colour in prompt.lower() and SUBJECTS[scene.subject].category == scene.category
        assert any(phrase in prompt.lower() for phrase in BACKGROUNDS[scene.background].phrases)
        assert any(verb in prompt for verb in SUBJECTS[scene.subject].verbs[scene.motion])
        assert scene.colour not in BACKGROUNDS[scene.background].hides


def test_a_set_can_keep_clear_of_the_scenes_of_others(tmp_path):
    benchmark = {prompt.scene for prompt in make_prompts(1000, 0)}
    assert benchmark & {prompt.scene for prompt in make_prompts(1000, 1)}, "by chance, some scenes occur in both"
    others = make_prompts(1000, 1, unlike=benchmark)
    assert len(others) == 1000 and not benchmark & {prompt.scene for prompt in others}
    taken = next(i for i, prompt in enumerate(make_prompts(1000, 1)) if prompt.scene in benchmark)
    assert others[:taken] == make_prompts(taken, 1), "the prompts before the first common scene stay the same"
    plain, unlike = tmp_path / "plain", tmp_path / "unlike"
    synthetic_t2v.make_benchmark(plain, 2, generators=1, seed=1, size=SIZE)
    call = f"--output {unlike} --num_prompts 2 --generators 1 --seed 1 --size {SIZE} --num_workers 1 --skip_baselines"
    assert not synthetic_t2v.main([*call.split(), "--unlike_seeds", "1"])
    assert not {row["prompt"] for row in read_rows(plain)} & {row["prompt"] for row in read_rows(unlike)}
    assert "--unlike_seeds 1" in (unlike / "README.md").read_text()


def test_every_category_subject_and_failure_appears():
    plans, subjects = [], set()
    for index, scene in enumerate(prompt.scene for prompt in make_prompts(600, 0)):
        subjects.add(scene.subject)
        for number, generator in enumerate(GENERATORS):
            plans.append((scene, make_plan(scene, generator, synthetic_t2v.clip_streams(0, index, number)[0])))
    assert subjects == set(SUBJECTS) == set(DRAWERS)
    assert {SUBJECTS[name].category for name in subjects} == set(CATEGORIES)
    counts = Counter(name for _, plan in plans for name in plan.failures)
    names = [*TECHNICAL_COSTS, *AESTHETIC_COSTS, *ALIGNMENT_COSTS]
    assert all(counts[name] >= 0.03 * len(plans) for name in names), counts
    faithful = [plan for scene, plan in plans if plan.scene == scene]
    assert 0.3 < len(faithful) / len(plans) < 0.6
    assert all(plan.latents()["alignment"] == 1.0 for plan in faithful)
    assert all(plan.latents()["alignment"] < 0.8 for scene, plan in plans if plan.scene != scene)


@pytest.mark.parametrize("family", ["technical", "aesthetic", "alignment"])
def test_each_severe_failure_lowers_its_own_latent_only(family):
    costs = {"technical": TECHNICAL_COSTS, "aesthetic": AESTHETIC_COSTS, "alignment": ALIGNMENT_COSTS}[family]
    clean = Plan(SCENE, {}, {}, {})
    assert clean.latents() == {"technical": 1.0, "aesthetic": 1.0, "alignment": 1.0}
    for name, cost in costs.items():
        latents = replace(clean, **{family: {name: cost if family == "alignment" else 1.0}}).latents()
        assert latents.pop(family) <= 0.75, name
        assert set(latents.values()) == {1.0}


@pytest.mark.parametrize("name", [name for name in (*TECHNICAL_COSTS, *AESTHETIC_COSTS) if name != "blocking"])
def test_each_severe_failure_changes_the_frames(name):
    family = "technical" if name in TECHNICAL_COSTS else "aesthetic"
    clean = Plan(SCENE, {}, {}, {})
    difference = np.abs(draw(clean).astype(int) - draw(replace(clean, **{family: {name: 0.9}})).astype(int)).mean()
    assert difference > (0.4 if name in NEEDS_MOTION else 3.0)


def test_failures_show_in_the_direction_that_they_should(tmp_path):
    clean = Plan(SCENE, {}, {}, {})
    frames = draw(clean)
    assert laplacian_sharpness(draw(replace(clean, technical={"blur": 0.9}))) < 0.3 * laplacian_sharpness(frames)
    assert laplacian_sharpness(draw(replace(clean, technical={"noise": 0.9}))) > 1.5 * laplacian_sharpness(frames)
    assert frame_difference(draw(replace(clean, technical={"frozen_frames": 0.9}))) < 0.6 * frame_difference(frames)
    assert frame_difference(draw(replace(clean, technical={"flicker": 0.9}))) > 2 * frame_difference(frames)
    blocking = replace(clean, technical={"blocking": 1.0})
    errors = []
    for plan in (clean, blocking):
        synthetic_t2v.encode(frames, tmp_path / "clip.mp4", crf_of(plan))
        errors.append(np.abs(read_clip(tmp_path / "clip.mp4").astype(int) - frames).mean())
    assert errors[1] > 2.5 * errors[0] and errors[0] < 6


def test_subject_moves_as_told():
    size, assets = 128, synthetic_t2v.make_assets(0, 0, 128)
    for motion, axis, sign in (("left", 1, -1), ("right", 1, 1), ("rise", 0, -1), ("fall", 0, 1)):
        scene = Scene("animal", "fish", 1, "red", motion, "pastel")
        rng = np.random.default_rng(1)
        shot = replace(sample_shot(scene, rng), extra=None, pan=0.0)
        frames = draw_scene(scene, shot, Framing(), assets, rng).astype(int)
        red = (frames[..., 0] - frames[..., 2] > 90) & (frames[..., 0] - frames[..., 1] > 90)
        places = [np.argwhere(mask).mean(0)[axis] for mask in (red[0], red[-1])]
        assert sign * (places[1] - places[0]) > 0.2 * size


def test_colours_are_drawn_as_named():
    for colour, rgb in COLOURS.items():
        frames = draw(Plan(Scene("object", "gift", 1, colour, "still", "studio"), {}, {}, {}))
        distance = np.abs(frames[0].astype(int) - np.array(rgb)).max(-1)
        assert (distance < 45).mean() > 0.02, colour


def test_quality_has_interaction_and_raters_average_out():
    assert quality_of(1, 1, 1) == pytest.approx(1) and quality_of(0, 0, 0) == 0
    assert quality_of(1, 1, 0) < 0.45 < 0.65 < quality_of(0.7, 0.7, 0.6)
    assert quality_of(0.5, 0.5, 0.25) == pytest.approx(0.6 * 0.425 + 0.4 * 0.0625 ** (1 / 3))
    raters, rng = make_raters(0), np.random.default_rng(0)
    means = [np.mean([mean_opinion(value, raters, rng) for _ in range(50)]) for value in (0.0, 0.3, 0.6, 1.0)]
    assert means == sorted(means) and 0 <= means[0] < 25 and 75 < means[-1] <= 100


@pytest.mark.parametrize(("name", "value"), [("num_prompts", 0), ("generators", 11), ("size", 33)])
def test_bad_arguments_are_refused(tmp_path, name, value, capsys):
    assert synthetic_t2v.main(["--output", str(tmp_path / "new"), f"--{name}", str(value)]) == 2
    assert f"{name}={value}" in capsys.readouterr().err


def test_a_folder_with_files_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    assert synthetic_t2v.main(["--output", str(tmp_path), "--num_prompts", "1"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.slow
def test_trivial_predictors_stay_below_the_limit(tmp_path):
    synthetic_t2v.make_benchmark(tmp_path / "set", 100, seed=1, size=128, num_workers=2)
    table = baseline_table(tmp_path / "set", num_workers=2)
    assert all(abs(row["mos"]) < LIMIT for row in table.values()), table
