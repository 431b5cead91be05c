"""Every check finds its defect, and nothing else is left out or written."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import Video, load_dataset
from PIL import Image

from dataset_scripts import checks, folder, prepare_genai_bench, prepare_imagereward, prepare_t2vqa_db
from dataset_scripts.labels import MediaIndex, read_rows, split_of

CLIPS = ("a", "b", "c", "d")


@pytest.fixture
def source(tmp_path, clip):
    """A T2VQA-DB of four clips without defects."""
    for number, name in enumerate(CLIPS):
        clip(tmp_path / f"source/{name}.mp4", number)
    write_labels(tmp_path / "source/info.txt", {name: f"prompt {name}|{10 * n}" for n, name in enumerate(CLIPS)})
    return tmp_path / "source"


def write_labels(path, rows):
    path.write_text("".join(f"{name}.mp4|{rest}\n" for name, rest in rows.items()), encoding="utf-8")


def change(source, name, rest):
    """Replace one clip's label."""
    path = source / "info.txt"
    lines = [f"{name}.mp4|{rest}" if line.startswith(name) else line for line in path.read_text().split("\n")]
    path.write_text("\n".join(lines))


def run(source, *options, module=prepare_t2vqa_db):
    return module.main(["--source", str(source), "--output", str(source.parent / "out"), *map(str, options)])


def found(source):
    """The subjects of each kind of problem in the written report."""
    kinds = {}
    for problem in json.loads((source.parent / "out/report.json").read_text())["problems"]:
        kinds.setdefault(problem["kind"], []).append(problem["subject"])
    return kinds


def written(source):
    return {split: sorted(rows["id"]) for split, rows in load_dataset(str(source.parent / "out")).items()}


def test_sound_folder_has_no_problems(source):
    assert run(source, "--strict") == 0
    assert found(source) == {} and written(source) == {"train": list(CLIPS)}


def check_defect(source, kind, left, capsys):
    """The defect is reported and left out by default. With --strict nothing is written."""
    assert run(source, "--strict") == 1
    assert sorted(path.name for path in source.parent.iterdir() if path.name != "cache") == ["source"]
    assert run(source) == 0
    assert found(source) == {kind: ["b"]}
    assert str(source) not in (source.parent / "out/report.json").read_text()
    assert written(source) == {"train": list(left)}
    assert f"{kind}: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        ("  |5", "empty_prompt"),
        ("x|nan", "mos_not_a_number"),
        ("x|inf", "mos_not_a_number"),
        ("x|", "mos_not_a_number"),
        ("x|five", "mos_not_a_number"),
        ("x|100.5", "out_of_range"),
        ("x|-1", "out_of_range"),
    ],
)
def test_defective_row(source, rest, kind, capsys):
    change(source, "b", rest)
    check_defect(source, kind, "acd", capsys)


@pytest.mark.parametrize("case", ["missing", "junk", "empty", "truncated", "duplicate"])
def test_defective_file(source, case, capsys):
    """The index of a clip is at its front, so the first frame of a truncated clip can still be decoded."""
    whole = (source / "b.mp4").read_bytes()
    (source / "b.mp4").unlink()
    contents = {"junk": b"no video" * 100, "empty": b"", "truncated": whole[: len(whole) * 3 // 5]}
    contents["duplicate"] = (source / "a.mp4").read_bytes()
    if case in contents:
        (source / "b.mp4").write_bytes(contents[case])
    kinds = {"missing": "missing_file", "duplicate": "duplicate_content"}
    check_defect(source, kinds.get(case, "unreadable_file"), "acd", capsys)


def test_second_row_of_an_id(source, capsys):
    with open(source / "info.txt", "a") as file:
        file.write("b.mp4|another prompt|3\n")
    check_defect(source, "duplicate_id", "abcd", capsys)


def test_bad_label_line(source):
    change(source, "b", "no score")
    assert run(source) == 0
    assert found(source) == {"bad_label": ["info.txt:2"], "file_without_label": ["b.mp4"]}


def test_file_without_label(source, clip):
    clip(source / "extra/e.mp4", 9)
    assert run(source, "--strict") == 1
    assert run(source) == 0
    assert found(source) == {"file_without_label": ["extra/e.mp4"]}
    assert len(list((source.parent / "out").rglob("*.mp4"))) == 4


@pytest.mark.parametrize("same", ["file", "content"])
def test_shared_between_splits(source, same):
    """The test part keeps the clip, whatever the order of the labels."""
    name = "b"
    if same == "content":
        name = "e"
        shutil.copyfile(source / "b.mp4", source / "e.mp4")
    write_labels(source / "test.txt", {name: "prompt b"})
    assert run(source, "--labels", source / "info.txt", source / "test.txt") == 0
    assert found(source) == {"shared_between_splits": ["b"]}
    assert written(source) == {"train": ["a", "c", "d"], "test": [name]}


def test_keep_duplicates(source, capsys):
    """The duplicates are kept, and reported nevertheless."""
    shutil.copyfile(source / "a.mp4", source / "b.mp4")
    assert run(source, "--keep_duplicates") == 0
    assert found(source) == {"duplicate_content": ["b"]} and written(source) == {"train": list(CLIPS)}
    assert "kept (--keep_duplicates)" in capsys.readouterr().out


def test_pairs_follow_their_clips(tmp_path, clip):
    """Left out: pairs with a missing clip and comparisons of a clip with itself. The first of equal clips is used."""
    source = tmp_path / "source"
    for number, name in enumerate(("0_left", "0_right", "1_left", "3_left", "3_right")):
        clip(source / f"{name}.mp4", number)
    shutil.copyfile(source / "0_right.mp4", source / "1_right.mp4")
    shutil.copyfile(source / "3_left.mp4", source / "3_right.mp4")
    votes = [{"idx": i, "prompt": "p", "human_vote": "leftvote"} for i in range(4)]
    (source / "votes.json").write_text(json.dumps(votes))
    assert run(source, module=prepare_genai_bench) == 0
    assert found(source) == {
        "missing_file": ["2_left", "2_right"],
        "duplicate_content": ["1_right", "3_right"],
        "pair_without_clip": ["2_left / 2_right", "3_left / 3_left"],
    }
    pairs = load_dataset(str(tmp_path / "out"), "pairs")["test"]
    assert list(zip(pairs["id_a"], pairs["id_b"], strict=True)) == [("0_left", "0_right"), ("1_left", "0_right")]


def test_a_clip_with_two_prompts(tmp_path, clip):
    """The second pair contradicts the first, and is reported."""
    source = tmp_path / "source"
    for number, name in enumerate("ab"):
        clip(source / f"{name}.mp4", number)
    row = {"left_video": "a.mp4", "right_video": "b.mp4", "vote_type": "tievote"}
    (source / "votes.json").write_text(json.dumps([row | {"prompt": "one"}, row | {"prompt": "two"}]))
    assert run(source, module=prepare_genai_bench) == 0
    assert found(source) == {"bad_label": ["a"]}


def test_unreadable_images_and_gifs(tmp_path):
    """Files that will be rewritten are decoded completely before anything is written."""
    source = tmp_path / "source"
    source.mkdir()
    for number, name in enumerate("ab"):
        Image.linear_gradient("L").rotate(90 * number).save(source / f"{name}.png")
    (source / "b.png").write_bytes((source / "b.png").read_bytes()[:300])
    row = {"id": "0", "prompt": "p", "generations": ["a.png", "b.png"], "ranking": [1, 2]}
    (source / "train.json").write_text(json.dumps([row]))
    assert run(source, module=prepare_imagereward) == 0
    assert found(source) == {"unreadable_file": ["b"], "pair_without_clip": ["a / b"]}
    (source / "c.gif").write_bytes(b"GIF89a" + b"\0" * 20)
    assert checks.decode_error(source / "c.gif")


def fail(*_):
    raise OSError("disk full")


def test_failed_writing_leaves_nothing(source, monkeypatch, capsys):
    monkeypatch.setattr(folder, "write_card", fail)
    assert run(source) == 2
    assert "disk full" in capsys.readouterr().err
    assert sorted(path.name for path in source.parent.iterdir()) == ["source"]


def test_nothing_left_is_an_error(source):
    write_labels(source / "info.txt", {"x": "p|1", "y": "p|2"})
    assert run(source) == 1 and not (source.parent / "out").exists()


@pytest.mark.parametrize("case", ["full output", "output in source", "no source", "no labels", "no such labels"])
def test_wrong_arguments(source, case, capsys):
    """The exit status is 2, and the message names the value and the remedy."""
    output, options, text = source.parent / "out", [], ""
    if case == "full output":
        output.mkdir()
        (output / "precious.txt").write_text("keep")
        text = "is not an empty folder"
    elif case == "output in source":
        output, text = source / "out", "outside"
    elif case == "no source":
        source, text = source / "nowhere", "is not a folder"
    elif case == "no labels":
        (source / "info.txt").unlink()
        text = "--labels FILE"
    else:
        options, text = ["--labels", str(source / "none.txt")], "none.txt"
    assert prepare_t2vqa_db.main(["--source", str(source), "--output", str(output), *options]) == 2
    assert text in capsys.readouterr().err
    assert (source.parent / "out/precious.txt").exists() == (case == "full output")


def test_wrong_encoding_is_named(source, capsys):
    (source / "info.txt").write_bytes("a.mp4|caf\u00e9|5\n".encode("latin-1"))
    assert run(source) == 2
    assert "--encoding" in capsys.readouterr().err
    assert run(source, "--encoding", "latin-1") == 0
    assert load_dataset(str(source.parent / "out"))["train"]["prompt"][:] == ["caf\u00e9"]


def test_clips_are_hard_links(source):
    """The clips are not copied if the file system allows links. The output may be an existing empty folder."""
    (source.parent / "out").mkdir()
    assert run(source) == 0
    assert (source.parent / "out/data/train/clips/000/a.mp4").samefile(source / "a.mp4")


def test_copies_where_links_fail(source, monkeypatch):
    monkeypatch.setattr(folder.os, "link", fail)
    assert run(source) == 0
    copy = source.parent / "out/data/train/clips/000/a.mp4"
    assert not copy.samefile(source / "a.mp4") and copy.read_bytes() == (source / "a.mp4").read_bytes()


def test_parquet_holds_the_bytes(source, monkeypatch):
    """The output does not refer to the source. A split may have several shards."""
    monkeypatch.setattr(folder, "SHARD_BYTES", 1)
    monkeypatch.setattr(folder, "ROW_GROUP_BYTES", 1)
    assert run(source, "--format", "parquet") == 0
    originals = {path.stem: path.read_bytes() for path in source.glob("*.mp4")}
    shutil.rmtree(source)
    assert len(list((source.parent / "out/data").glob("train-*.parquet"))) == 4
    rows = load_dataset(str(source.parent / "out"))["train"].cast_column("video", Video(decode=False))
    assert {row["id"]: row["video"]["bytes"] for row in rows} == originals


def test_hard_linked_clips_are_read_once(tmp_path, clip, monkeypatch):
    path = clip(tmp_path / "0.mp4", 0)
    for number in range(1, 5):
        (tmp_path / f"{number}.mp4").hardlink_to(path)
    read = []
    monkeypatch.setattr(checks, "decode_error", lambda path: read.append(path))
    facts = list(checks.inspect_files(tmp_path, [f"{i}.mp4" for i in range(5)], workers=1))
    assert len(set(facts)) == 1 and len(read) == 1


def test_safe_names_are_unique():
    """Ids with folders, blanks or other scripts become different file names that are not hidden."""
    ids = ["a/b", "a_b", "a b", "../a", "\u732b", "\u72ac", ".hidden", "x" * 300, "x" * 301]
    names = [folder.safe_name(name) for name in ids]
    assert len(set(names)) == len(ids)
    assert all(name[0].isalnum() and "/" not in name and len(name) <= 120 for name in names)


def test_media_index(tmp_path):
    """An exact name is found first, then the only path that ends with the name. An ambiguous name finds nothing."""
    for name in ("x/1.mp4", "y/1.mp4", "y/2.MP4", "z/videos/3.gif", "._1.mp4", ".cache/4.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    index = MediaIndex(tmp_path, (".mp4", ".gif"))
    assert index.files == {"x/1.mp4", "y/1.mp4", "y/2.MP4", "z/videos/3.gif"}
    assert index.find("1.mp4") is None and index.find("1.mp4", ("y",)) == "y/1.mp4"
    assert index.find("./x\\1.mp4") == "x/1.mp4" and index.find("x/1") == "x/1.mp4"
    assert index.find("3") == "z/videos/3.gif" and index.find("3", anywhere=False) is None
    assert index.find("../1.mp4") is None and index.find("os/3.gif") is None


def test_label_helpers(tmp_path):
    splits = {"LSVQ_whole_train": "train", "val": "validation", "Test_1": "test", "info": "train"}
    assert {name: split_of(Path(f"{name}.csv")) for name in splits} == splits
    (tmp_path / "odd.json").write_text('{"rows": []}')
    with pytest.raises(ValueError, match=r"odd\.json.*data_list"):
        list(read_rows(tmp_path / "odd.json"))
    with pytest.raises(ValueError, match=r"labels\.xlsx"):
        list(read_rows(Path("labels.xlsx")))


def test_push_to_hub(source, monkeypatch):
    """The written folder is uploaded to a private repository."""
    calls = []

    class Api:
        def create_repo(self, repo, **options):
            calls.append((repo, options["private"], options["repo_type"]))

        def upload_large_folder(self, **options):
            calls.append((options["repo_id"], Path(options["folder_path"]).name, options["repo_type"]))

    monkeypatch.setattr(folder, "HfApi", Api)
    assert run(source, "--push_to_hub", "me/t2vqa") == 0
    assert calls == [("me/t2vqa", True, "dataset"), ("me/t2vqa", "out", "dataset")]
