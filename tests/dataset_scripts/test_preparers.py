"""Every preparer works on a small folder with the layout of the real dataset, and `datasets` loads the result."""

import csv
import json
import shutil

import decord
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Value, Video, load_dataset
from PIL import Image

from dataset_scripts import (
    prepare_aigve_bench,
    prepare_fetv,
    prepare_genai_bench,
    prepare_imagereward,
    prepare_lsvq,
    prepare_t2vqa_db,
    prepare_videoalign,
    prepare_videofeedback,
)

FORMATS = ("videofolder", "parquet")


def prepare(module, tmp_path, *options, source="source"):
    """Run a preparer; returns its output folder and the report."""
    output = tmp_path / "out"
    assert module.main(["--source", str(tmp_path / source), "--output", str(output), *map(str, options)]) == 0
    return output, json.loads((output / "report.json").read_text())


def load(folder, config="default"):
    """The dataset as a user loads it, with undecoded clips."""
    loaded = load_dataset(str(folder), config)
    for column, kind in next(iter(loaded.values())).features.items():
        if isinstance(kind, Video):
            loaded = loaded.cast_column(column, Video(decode=False))
    return loaded


def by_id(split):
    return {row["id"]: row for row in split}


def frames(video, tmp_path):
    """The frames of an undecoded video of either format, decoded by decord."""
    path = video["path"]
    if video["bytes"] is not None:
        path = tmp_path / "clip.mp4"
        path.write_bytes(video["bytes"])
    reader = decord.VideoReader(str(path))
    return reader.get_batch(range(len(reader))).asnumpy()


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("fmt", FORMATS)
def test_t2vqa_db(tmp_path, clip, fmt):
    """Prompts keep bars, quotes, commas, line separators and other scripts."""
    prompts = ['a "red" fox, running', "one | two", "caf\u00e9 \u2028 \u732b \U0001f600", "plain"]
    lines = []
    for number, prompt in enumerate(prompts):
        clip(tmp_path / f"source/videos/lavie_{number}.mp4", number)
        lines.append(f"lavie_{number}.mp4|{prompt}|{number * 10.5}")
    (tmp_path / "source/info.txt").write_text("\n".join(lines) + "\r\n", encoding="utf-8")
    output, report = prepare(prepare_t2vqa_db, tmp_path, "--format", fmt, "--generator_from", "(?P<generator>[a-z]+)_")
    assert report["problem_counts"] == {}
    loaded = load(output)
    assert list(loaded) == ["train"]
    rows = by_id(loaded["train"])
    assert [rows[f"lavie_{i}"]["prompt"] for i in range(4)] == prompts
    assert [rows[f"lavie_{i}"]["mos"] for i in range(4)] == [0.0, 10.5, 21.0, 31.5]
    assert {row["generator"] for row in rows.values()} == {"lavie"}
    assert frames(rows["lavie_2"]["video"], tmp_path).shape == (3, 64, 64, 3)
    assert loaded["train"].features["mos"] == Value("float64")


@pytest.mark.parametrize(("expression", "message"), [("(", "not a regular expression"), ("a_", "needs a group")])
def test_t2vqa_db_with_a_wrong_expression(tmp_path, expression, message, capsys):
    arguments = ["--source", str(tmp_path), "--output", str(tmp_path / "out"), "--generator_from", expression]
    with pytest.raises(SystemExit):
        prepare_t2vqa_db.main(arguments)
    assert message in capsys.readouterr().err


def test_t2vqa_db_four_fields(tmp_path, clip):
    """The fourth field is the MOS, and the third is kept. --columns gives the fields other names."""
    for number in range(3):
        clip(tmp_path / f"source/{number}.mp4", number)
    (tmp_path / "source/info.txt").write_text("0.mp4|a b|x|10\n1.mp4|c|d|x|20\n2.mp4|e|y|30\n", encoding="utf-8")
    rows = by_id(load(prepare(prepare_t2vqa_db, tmp_path)[0])["train"])
    values = [(rows[i]["prompt"], rows[i]["extra"], rows[i]["mos"]) for i in "012"]
    assert values == [("a b", "x", 10), ("c|d", "x", 20), ("e", "y", 30)]
    shutil.rmtree(tmp_path / "out")
    output, _ = prepare(prepare_t2vqa_db, tmp_path, "--columns", "file", "prompt", "generator", "mos")
    rows = by_id(load(output)["train"])
    assert rows["2"]["generator"] == "y" and "extra" not in rows["2"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_ntire_layout(tmp_path, clip, fmt):
    """The parts reuse file names, and test and validation have no labels. All splits have the same features."""
    for number, part in enumerate(("train", "val", "test")):
        clip(tmp_path / f"source/{part}/0001.mp4", number)
    (tmp_path / "source/train.txt").write_text("0001.mp4|a dog|55.5\n")
    (tmp_path / "source/val.txt").write_text("0001.mp4|a cat\n")
    (tmp_path / "source/test.txt").write_text("0001.mp4|a cow\n0002.mp4|no such file\n")
    output, report = prepare(prepare_t2vqa_db, tmp_path, "--format", fmt)
    assert report["problem_counts"] == {"missing_file": 1}
    loaded = load(output)
    assert list(loaded) == ["train", "validation", "test"]
    mos = {row["id"]: row["mos"] for split in loaded.values() for row in split}
    assert mos == {"train/0001": 55.5, "validation/0001": None, "test/0001": None}


def test_lsvq(tmp_path, clip):
    """The authors' CSV files have names without endings, `is_test` and a 1080p part, but no prompts."""
    names = ["ia-batch1/clip one", "yfcc/2", "yfcc/3"]
    for number, name in enumerate(names):
        clip(tmp_path / f"source/{name}.mp4", number)
    rows = [
        {"name": n, "height": 1, "mos": m, "is_test": t}
        for n, m, t in zip(names[:2], (50, 61.5), ("False", "True"), strict=True)
    ]
    write_csv(tmp_path / "source/labels_train_test.csv", rows)
    write_csv(tmp_path / "source/labels_test_1080p.csv", [{"name": "yfcc/3", "mos": 70}])
    output, report = prepare(prepare_lsvq, tmp_path)
    assert report["problem_counts"] == {}
    loaded = load(output)
    assert {split: [(r["id"], r["mos"], r["prompt"]) for r in rows] for split, rows in loaded.items()} == {
        "train": [(names[0], 50.0, "")],
        "test": [("yfcc/2", 61.5, "")],
        "test_1080p": [("yfcc/3", 70.0, "")],
    }


def test_lsvq_fast_vqa_labels(tmp_path, clip):
    clip(tmp_path / "source/a, b.mp4", 0)
    (tmp_path / "source/train_labels.txt").write_text("a, b.mp4, -1, -1, 55.25\n")
    rows = load(prepare(prepare_lsvq, tmp_path)[0])["train"]
    assert [(row["id"], row["mos"]) for row in rows] == [("a, b", 55.25)]


@pytest.fixture
def images(tmp_path):
    """The pixels of four small images of odd sizes, which are stored losslessly."""
    pixels = {}
    for number, name in enumerate("abcd"):
        pixels[name] = np.random.default_rng(number).integers(0, 256, (33 + number, 47, 3), dtype=np.uint8)
        path = tmp_path / f"source/images/{name}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[name]).save(path, lossless=True)
    return pixels


@pytest.mark.parametrize("fmt", FORMATS)
def test_imagereward_rankings(tmp_path, images, fmt):
    """Images become clips of one frame with the same pixels, and rankings become pairs with ties."""
    ranking = {"id": "p-0", "prompt": "a fox", "generations": [f"{n}.webp" for n in "abcd"], "ranking": [1, 2, 2, 4]}
    write_json(tmp_path / "source/train.json", [ranking])
    output, report = prepare(prepare_imagereward, tmp_path, "--format", fmt)
    assert report["problem_counts"] == {}
    rows = by_id(load(output)["train"])
    for name, pixels in images.items():
        assert np.array_equal(frames(rows[name]["video"], tmp_path), pixels[None])
    assert [rows[name]["rank"] for name in "abcd"] == [1, 2, 2, 4] and rows["a"]["mos"] is None
    pairs = load(output, "pairs")["train"]
    assert {(p["id_a"] + p["id_b"]): p["preference"] for p in pairs} == {
        "ab": "A", "ac": "A", "ad": "A", "bc": "tie", "bd": "A", "cd": "A",
    }  # fmt: skip
    if fmt == "videofolder":
        assert np.array_equal(frames(pairs[0]["video_b"], tmp_path), images["b"][None])
    else:
        assert "video_a" not in pairs.features


def test_imagereward_db(tmp_path, images):
    """The rows of ImageRewardDB have the ratings, the category and the rank of each image."""
    row = {"prompt_id": "p", "prompt": "x", "classification": "Arts"}
    row |= {"image_text_alignment_rating": 5, "fidelity_rating": 6}
    rows = [
        {**row, "image_path": "images/a.webp", "rank": 2, "overall_rating": 6},
        {**row, "image_path": "images/b.webp", "rank": 1, "overall_rating": 7},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "source/metadata-test.parquet")
    output, report = prepare(prepare_imagereward, tmp_path)
    assert report["problem_counts"] == {"file_without_label": 2}
    row = by_id(load(output)["test"])["images/a"]
    assert (row["mos"], row["category"], row["fidelity_rating"]) == (6.0, "Arts", 6.0)
    assert load(output, "pairs")["test"]["preference"][:] == ["B"]


def test_videofeedback(tmp_path, clip):
    scores = dict.fromkeys(prepare_videofeedback.DIMENSIONS, 3) | {"dynamic degree": 1}
    rows = [
        {"id": "p1", "text prompt": "by link", "video link": "https://host/x/resolve/main/p/p000001.mp4", **scores},
        {"id": "r2", "text prompt": "by id", "video link": None, **scores},
    ]
    for number, name in enumerate(("p/p000001", "r/r2")):
        clip(tmp_path / f"source/videos/{name}.mp4", number)
    (tmp_path / "source/annotated").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "source/annotated/test-00000-of-00001.parquet")
    output, report = prepare(prepare_videofeedback, tmp_path)
    assert report["problem_counts"] == {}
    rows = by_id(load(output)["test"])
    assert rows["p1"]["mos"] == pytest.approx(2.6) and rows["p1"]["dynamic_degree"] == 1.0
    assert rows["r2"]["text_to_video_alignment"] == 3.0


def test_fetv(tmp_path, clip):
    """Three people rated the clips. GIF clips are rewritten with the same pixels. A model may have two names."""
    source = tmp_path / "source"
    prompts = [
        {"video_id": f"v{i}", "prompt": f"prompt {i}", "major content": {"spatial": ["animals"]}} for i in range(2)
    ]
    source.mkdir()
    (source / "fetv_data.json").write_text("\n".join(map(json.dumps, prompts)))
    for human, score in enumerate((2, 3, 5)):
        for model in ("cogvideo", "damo-text2video"):
            rating = {"video_id": "v1", "static_quality": score, "temporal_quality": 3, "alignment": 1}
            rating["fine-grained_alignment"] = {"color": 3, "speed": 2}
            write_json(source / f"manual_eval_results/human{human}/manual_eval_results_{model}.json", {"1": rating})
    clip(source / "datas/videos/cogvideo/videos/1.mp4", 0)
    pixels = np.zeros((3, 21, 31, 3), np.uint8)
    pixels[1, 3:9], pixels[2, :, 5:7] = (200, 30, 60), (0, 90, 255)
    (source / "modelscope-t2v/videos").mkdir(parents=True)
    images = [Image.fromarray(frame) for frame in pixels]
    images[0].save(source / "modelscope-t2v/videos/1.gif", save_all=True, append_images=images[1:], duration=0)
    output, report = prepare(prepare_fetv, tmp_path)
    assert report["problem_counts"] == {}
    row = by_id(load(output)["test"])["damo-text2video/1"]
    assert row["prompt"] == "prompt 1" and row["static_quality"] == pytest.approx(10 / 3) and row["num_raters"] == 3
    assert row["mos"] == pytest.approx((10 / 3 + 3 + 1) / 3) and row["fine_grained_alignment"] == 2.5
    assert np.array_equal(frames(row["video"], tmp_path), pixels)


def aigve_row(number, overall=4, **values):
    scores = dict.fromkeys(prepare_aigve_bench.DIMENSIONS, 3) | {"action_quality": 0}
    row = {"prompt_gt": f"prompt {number}", "model": "cogvideox", "category": "global", "subject": ["sea", "sky"]}
    return {**row, **scores, "overall": overall, "video_path_pd": f"cogvideox_{number}.mp4", **values}


@pytest.mark.parametrize("fmt", FORMATS)
def test_aigve_bench(tmp_path, clip, fmt):
    """0 means that a dimension does not apply. List columns load as lists."""
    for number, split in enumerate(("train", "test")):
        clip(tmp_path / f"source/videos/cogvideox_{number}.mp4", number)
        write_json(tmp_path / f"source/annotations/{split}.json", {"metainfo": {}, "data_list": [aigve_row(number)]})
    output, report = prepare(prepare_aigve_bench, tmp_path, "--format", fmt)
    assert report["problem_counts"] == {}
    row = load(output)["test"][0]
    assert (row["mos"], row["action_quality"], row["dynamic"]) == (4.0, None, 3.0)
    assert row["subject"] == ["sea", "sky"] and row["generator"] == "cogvideox"


def genai_row(vote, left="l0", right="r0"):
    videos = {"left_video": f"https://host/x/{left}.mp4", "right_video": f"{right}.mp4"}
    return {"prompt": "a castle", "left_model": "LaVie", "right_model": "OpenSora", "vote_type": vote, **videos}


def test_genai_bench(tmp_path, clip):
    """The vote "both bad" becomes a tie, and an unknown vote is reported."""
    for number, name in enumerate(("l0", "r0")):
        clip(tmp_path / f"source/videos/{name}.mp4", number)
    votes = ["leftvote", "rightvote", "tievote", "bothbad_vote", "bothbad_vote", "nonsense"]
    (tmp_path / "source/video_generation").mkdir()
    table = pa.Table.from_pylist([genai_row(vote) for vote in votes])
    pq.write_table(table, tmp_path / "source/video_generation/test-00000-of-00001.parquet")
    output, report = prepare(prepare_genai_bench, tmp_path)
    assert report["problem_counts"] == {"bad_label": 1}
    assert {row["id"]: row["generator"] for row in load(output)["test"]} == {"l0": "LaVie", "r0": "OpenSora"}
    assert load(output, "pairs")["test"]["preference"][:] == ["A", "B", "tie", "tie", "tie"]


def test_videoalign(tmp_path, clip):
    """Both spellings of a path are one clip, several pairs may share a clip, and repeated rows are reported."""
    source = tmp_path / "source"
    for number, name in enumerate("ABC"):
        clip(source / f"videos/{name}.mp4", number)
    row = {"path_A": "videos/A.mp4", "path_B": "./videos/B.mp4", "prompt": "p", "VQ": "A", "MQ": "B", "TA": "same"}
    row |= {"Overall": "A", "A_model": "kling1.5", "B_model": "minimax", "fps_A": 24.0, "num_frames_A": 126.0}
    other = row | {"path_A": "./videos/B.mp4", "path_B": "videos/C.mp4", "A_model": "minimax", "Overall": "same"}
    write_csv(source / "videogen-rewardbench.csv", [row, other, row])
    output, report = prepare(prepare_videoalign, tmp_path)
    assert report["problem_counts"] == {"duplicate_pair": 1}
    assert [row["id"] for row in load(output)["test"]] == ["videos/A", "videos/B", "videos/C"]
    pair = load(output, "pairs")["test"][0]
    columns = ("preference", "preference_VQ", "preference_MQ", "preference_TA")
    assert [pair[column] for column in columns] == ["A", "A", "B", "tie"]
    assert pair["video_a"]["path"] == by_id(load(output)["test"])["videos/A"]["video"]["path"]


def link_shared(shared, tmp_path, names):
    """Make a source folder with links to shared clips, under the names that the labels use."""
    for name, source_path in names.items():
        path = tmp_path / "source" / source_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(shared / "videos" / name)


def test_real_aigve_labels(tmp_path, shared):
    clips = {"aigve_desert_sunset.mp4": "cogvideox_0.mp4", "aigve_mountain_timelapse.mp4": "cogvideox_12.mp4"}
    link_shared(shared, tmp_path, {name: f"videos/{file}" for name, file in clips.items()})
    output, report = prepare(prepare_aigve_bench, tmp_path, "--labels", shared / "labels/aigve_bench_toy_train.json")
    assert report["problem_counts"] == {"missing_file": 8}
    assert {row["id"]: row["mos"] for row in load(output)["train"]} == {"cogvideox_0": 2.0, "cogvideox_12": 5.0}


def test_real_videoalign_labels(tmp_path, shared):
    link_shared(shared, tmp_path, {f"videoalign_girl_{side}.mp4": f"videos/example_1_{side}.mp4" for side in "AB"})
    output, report = prepare(prepare_videoalign, tmp_path, "--labels", shared / "labels/videoalign_example.csv")
    assert report["clips"] == {"train": 2} and report["pairs"] == {"train": 1}
    assert report["problem_counts"] == {"missing_file": 4, "pair_without_clip": 8, "duplicate_pair": 3}
    pair = load(output, "pairs")["train"][0]
    assert (pair["preference"], pair["preference_VQ"], pair["preference_TA"]) == (None, "B", "A")


def test_real_genai_labels(tmp_path, shared):
    link_shared(shared, tmp_path, {"lavie_beach_bw.mp4": "0_left.mp4", "lavie_beach_animated.mp4": "0_right.mp4"})
    output, report = prepare(prepare_genai_bench, tmp_path, "--labels", shared / "labels/genai_bench_pairwise.json")
    assert report["problem_counts"] == {"missing_file": 2136, "pair_without_clip": 1068}
    assert load(output, "pairs")["test"][0]["preference"] == "A"
