"""Writes a checked dataset as a folder that `datasets.load_dataset` reads, and runs the `prepare_*` programs.

There are two formats. `videofolder` (default) is `data/<split>/metadata.parquet` beside the clips, which are hard links
to the source files, or copies if the file system does not allow links. Editing a linked clip edits the source. The
table is parquet because `datasets` infers the types of a jsonl file per split and would, for example, refuse a test
split in which every MOS is null. `parquet` is shards that contain the bytes of the clips. In both formats, preference
pairs are a second configuration, `pairs`.

Files that VideoFolder does not recognise (GIF, WebM, images) are rewritten as H.264 in RGB at crf 0, which decord reads
and which keeps every pixel. An image becomes a clip of one frame.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetInfo, Features, Value, Video
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData, HfApi

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import whole_folder

from .checks import Checker, format_report, progress, report
from .labels import IMAGE_SUFFIXES, STRING, VIDEO_SUFFIXES, Clip, DatasetSpec, Labels, MediaIndex, Pair, label_files

SHARD_BYTES = 500 << 20  # the shard size of `push_to_hub` of `datasets`
ROW_GROUP_BYTES = 32 << 20  # readers keep one row group in memory
CLIPS_PER_FOLDER = 1000  # the Hub refuses folders of more than 10,000 files

LabelReader = Callable[[list[Path], MediaIndex], Labels]  # from the label files and the media files

CARD = """\
# {name}

{description}

Source: {homepage}

Prepared for AIGC-VQA. The clips and the labels belong to the original authors and stay under their licence.

```python
from datasets import Video, load_dataset

clips = load_dataset("PATH_OR_REPO").cast_column("video", Video(decode=False))
{pairs_line}```

| column | type | range |
| --- | --- | --- |
{columns}

| split | clips | clips without MOS | pairs |
| --- | --- | --- | --- |
{splits}

Problems that the checks found (`report.json` lists every case):

{problems}
"""


def clip_features(spec: DatasetSpec) -> Features:
    """The columns of the default configuration."""
    return Features({"id": STRING, "video": Video(), "prompt": STRING, "mos": Value("float64"), **spec.columns})


def pair_features(spec: DatasetSpec, with_videos: bool) -> Features:
    """The columns of the configuration `pairs`. A folder can refer to the clips; parquet would have to repeat them."""
    videos = {"video_a": Video(), "video_b": Video()} if with_videos else {}
    return Features({"id_a": STRING, "id_b": STRING, **videos, "prompt": STRING, **spec.pair_columns})


def file_features(features: Features) -> Features:
    """The columns of the table on disk, in which file names stand for videos.

    VideoFolder turns the column `file_name` into a video column `video`, and `X_file_name` into `X`.
    """
    columns = {}
    for name, kind in features.items():
        if isinstance(kind, Video):
            name, kind = "file_name" if name == "video" else f"{name}_file_name", STRING
        columns[name] = kind
    return Features(columns)


def safe_name(clip_id: str) -> str:
    """A file name for an id. If the id cannot be used unchanged, a part of its hash keeps the file name unique."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", clip_id).strip("._")[:100] or "clip"
    return name if name == clip_id else f"{name}-{hashlib.blake2b(clip_id.encode(), digest_size=4).hexdigest()}"


def needs_rewriting(file: str) -> bool:
    """Whether VideoFolder does not recognise the ending of the file."""
    return Path(file).suffix.lower() not in VIDEO_SUFFIXES


def read_frames(path: Path) -> tuple[Iterator[Any], Fraction]:
    """The RGB frames (H, W, 3) of an image or a video, and the frame rate."""
    import av
    import numpy as np
    from PIL import Image

    if path.suffix.lower() in IMAGE_SUFFIXES:
        with Image.open(path) as image:
            return iter([np.asarray(image.convert("RGB"))]), Fraction(1)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        # The GIFs of FETV state no delays; FFmpeg's own guess for such files is 10 frames per second.
        rate = stream.average_rate or stream.guessed_rate or Fraction(10)

    def frames() -> Iterator[Any]:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")

    return frames(), Fraction(rate).limit_denominator(1000)


def rewrite_clip(path: Path, target: str | io.BytesIO) -> None:
    """Rewrite an image or a video losslessly as an mp4 (RGB H.264 at crf 0) with a constant frame rate."""
    import av

    frames, rate = read_frames(path)
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb", rate=rate, options={"crf": "0", "preset": "veryfast"})
        for frame in frames:
            if not stream.width or not stream.codec_context.is_open:
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def place_clip(path: Path, target: Path) -> None:
    """Put a clip into the folder: rewrite it, hard-link it or, on another file system, copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if needs_rewriting(path.name):
        rewrite_clip(path, str(target))
        return
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)


def clip_bytes(path: Path) -> bytes:
    """The bytes of a clip as they are stored in parquet."""
    if not needs_rewriting(path.name):
        return path.read_bytes()
    buffer = io.BytesIO()
    rewrite_clip(path, buffer)
    return buffer.getvalue()


def clip_path(clip: Clip, number: int) -> str:
    """The path of a clip in its split's folder, with at most CLIPS_PER_FOLDER clips per directory."""
    ending = ".mp4" if needs_rewriting(clip.file) else Path(clip.file).suffix.lower()
    return f"clips/{number // CLIPS_PER_FOLDER:03d}/{safe_name(clip.id)}{ending}"


def clip_row(clip: Clip, spec: DatasetSpec, **video: Any) -> dict[str, Any]:
    """One row of the table of clips; `video` is the file name or the bytes."""
    values = {column: clip.values.get(column) for column in spec.columns}
    return {"id": clip.id, **video, "prompt": clip.prompt, "mos": clip.mos, **values}


def write_table(path: Path, rows: Iterator[dict[str, Any]], features: Features) -> None:
    """Write rows to one parquet file, 1,000 at a time. With a fixed schema, empty columns keep their type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, features.arrow_schema) as writer:
        while portion := list(itertools.islice(rows, 1000)):
            writer.write_table(pa.Table.from_pylist(portion, schema=features.arrow_schema))


def pair_row(pair: Pair, **videos: str) -> dict[str, Any]:
    """One row of the table of pairs; `videos` are the file names of the two clips."""
    return {"id_a": pair.id_a, "id_b": pair.id_b, **videos, "prompt": pair.prompt, **pair.values}


def write_videofolder(
    spec: DatasetSpec, split: str, clips: list[Clip], pairs: list[Pair], source: Path, output: Path
) -> None:
    """Write `data/<split>/metadata.parquet`, `clips/` and, if there are pairs, `pairs.parquet`."""
    folder = output / "data" / split
    paths = {clip.id: clip_path(clip, number) for number, clip in enumerate(clips)}

    def place_clips() -> Iterator[dict[str, Any]]:
        for clip in progress(clips, len(clips), "writing clips"):
            place_clip(source / clip.file, folder / paths[clip.id])
            yield clip_row(clip, spec, file_name=paths[clip.id])

    write_table(folder / "metadata.parquet", place_clips(), file_features(clip_features(spec)))
    if pairs:
        rows = (
            pair_row(pair, video_a_file_name=paths[pair.id_a], video_b_file_name=paths[pair.id_b]) for pair in pairs
        )
        write_table(folder / "pairs.parquet", rows, file_features(pair_features(spec, with_videos=True)))


def write_parquet(
    spec: DatasetSpec, split: str, clips: list[Clip], pairs: list[Pair], source: Path, output: Path
) -> None:
    """Write `data/<split>-NNNNN.parquet`, which contain the clips, and, if there are pairs, `pairs/<split>.parquet`."""
    rows = (
        # The path only tells readers the container format.
        clip_row(clip, spec, video={"bytes": clip_bytes(source / clip.file), "path": Path(clip_path(clip, 0)).name})
        for clip in progress(clips, len(clips), "writing clips")
    )
    groups = row_groups(rows)
    for number, group in enumerate(groups):
        shard = output / "data" / f"{split}-{number:05d}.parquet"
        write_shard(shard, itertools.chain([group], groups), clip_features(spec).arrow_schema)
    if pairs:
        features = pair_features(spec, with_videos=False)
        write_table(output / "pairs" / f"{split}.parquet", map(pair_row, pairs), features)


def row_groups(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Rows with embedded clips in groups of about ROW_GROUP_BYTES, each with its size in bytes."""
    group, size = [], 0
    for row in rows:
        group.append(row)
        size += len(row["video"]["bytes"])
        if size >= ROW_GROUP_BYTES or len(group) >= 1000:
            yield group, size
            group, size = [], 0
    if group:
        yield group, size


def write_shard(path: Path, groups: Iterator[tuple[list[dict[str, Any]], int]], schema: pa.Schema) -> None:
    """Write row groups to one shard until it has about SHARD_BYTES; the other groups are left in the iterator."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [name for name in schema.names if name != "video"]
    written = 0
    # Clips are compressed already, and a dictionary or statistics of the clips would repeat whole clips.
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=plain, write_statistics=plain) as writer:
        for group, size in groups:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            written += size
            if written >= SHARD_BYTES:
                break


def card_config(name: str, splits: Iterable[str], fmt: str) -> dict[str, Any]:
    """The entry of the configuration "default" or "pairs" in the card's `configs`: the files of each split."""
    table = "metadata" if name == "default" else "pairs"
    if fmt == "videofolder":
        paths = {split: [f"data/{split}/{table}.parquet", f"data/{split}/clips/**"] for split in splits}
    else:
        paths = {
            split: f"data/{split}-*.parquet" if name == "default" else f"pairs/{split}.parquet" for split in splits
        }
    config = {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in paths.items()]}
    if name == "default":
        config["default"] = True
    elif fmt == "videofolder":
        config["metadata_filenames"] = ["pairs.parquet"]
    return config


def write_card(spec: DatasetSpec, result: dict[str, Any], fmt: str, output: Path) -> None:
    """Write README.md: front matter (licence, features, files of each split) and text."""
    features = clip_features(spec)
    configs, infos = [card_config("default", result["clips"], fmt)], {"default": DatasetInfo(features=features)}
    if result["pairs"]:
        configs.append(card_config("pairs", result["pairs"], fmt))
        infos["pairs"] = DatasetInfo(features=pair_features(spec, with_videos=fmt == "videofolder"))
    tags = ["video-quality-assessment", *spec.tags]
    card = DatasetCardData(license=spec.license, pretty_name=spec.name, tags=tags, configs=configs)
    DatasetInfosDict(infos).to_dataset_card_data(card)
    columns = []
    for column, kind in features.items():
        type_name = kind.dtype if isinstance(kind, Value) else type(kind).__name__.lower()
        limits = "{:g}..{:g}".format(*spec.ranges[column]) if column in spec.ranges else ""
        columns.append(f"| `{column}` | {type_name} | {limits} |")
    splits = [
        f"| {split} | {count} | {result['unlabelled_clips'].get(split, 0)} | {result['pairs'].get(split, 0)} |"
        for split, count in result["clips"].items()
    ]
    text = CARD.format(
        name=spec.name,
        description=spec.description,
        homepage=spec.homepage,
        pairs_line='pairs = load_dataset("PATH_OR_REPO", "pairs")\n' if result["pairs"] else "",
        columns="\n".join(columns),
        splits="\n".join(splits),
        problems="\n".join(f"- {kind}: {count}" for kind, count in result["problem_counts"].items()) or "- none",
    )
    (output / "README.md").write_text(f"---\n{card.to_yaml()}\n---\n\n{text}", encoding="utf-8")


def write_dataset(checker: Checker, result: dict[str, Any], fmt: str, output: Path) -> None:
    """Write the checked clips to `output`. They go to a temporary folder first, so a failure leaves nothing behind."""
    with whole_folder(output) as partial:
        write_split = write_parquet if fmt == "parquet" else write_videofolder
        for split in result["clips"]:
            clips = [clip for clip in checker.clips if clip.split == split]
            pairs = [pair for pair in checker.pairs if pair.split == split]
            write_split(checker.spec, split, clips, pairs, checker.index.source, partial)
        write_card(checker.spec, result, fmt, partial)
        (partial / "report.json").write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of every preparer."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of the downloaded and unpacked dataset")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must be empty or not exist")
    parser.add_argument("--labels", type=Path, nargs="+", help="label files (default: those in --source)")
    parser.add_argument("--format", choices=("videofolder", "parquet"), default="videofolder")
    parser.add_argument("--strict", action="store_true", help="write nothing, and exit with 1, if there is any problem")
    parser.add_argument("--keep_duplicates", action="store_true", help="keep (and report) equal clips of one split")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1, help="number of reading threads")
    parser.add_argument("--push_to_hub", metavar="REPO", help="upload the written folder to this dataset repository")
    return parser


def check_paths(source: Path, output: Path) -> None:
    """Refuse a source that is not a folder and an output that is not empty or lies in the source."""
    if not source.is_dir():
        raise ValueError(f"--source '{source}' is not a folder; give the folder of the unpacked dataset.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output '{output}' exists and is not an empty folder; remove it or name another folder.")
    if output.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"--output '{output}' is inside --source '{source}'; name a folder outside the source.")


def push(folder: Path, repo: str) -> None:
    """Upload to the Hub. A new repository is private because few of these datasets may be redistributed."""
    api = HfApi()
    api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
    api.upload_large_folder(repo_id=repo, folder_path=folder, repo_type="dataset")


def run_preparer(spec: DatasetSpec, read_labels: LabelReader, args: argparse.Namespace) -> int:
    """Read, check, report and write a dataset.

    Returns:
        The exit status: 0 if written, 1 if --strict refuses a problem or no clip is left, 2 for wrong arguments.
    """
    try:
        check_paths(args.source, args.output)
        index = MediaIndex(args.source, spec.suffixes)
        labels = read_labels(label_files(args.source, args.labels, spec.label_patterns), index)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    checker = Checker(spec, labels, index, args.keep_duplicates)
    checker.run(args.num_workers)
    result = report(checker)
    print(format_report(result))
    if args.strict and checker.problems:
        print(f"--strict: {len(checker.problems)} problems found; nothing was written.", file=sys.stderr)
        return 1
    if not checker.clips:
        print("error: no clip passed the checks; nothing was written.", file=sys.stderr)
        return 1
    write_dataset(checker, result, args.format, args.output)
    print(f"written: {args.output} ({args.format})")
    if args.push_to_hub:
        push(args.output, args.push_to_hub)
        print(f"pushed: {args.push_to_hub} (private)")
    return 0


def preparer(description: str | None, spec: DatasetSpec, read_labels: LabelReader) -> tuple[Callable, Callable]:
    """The functions `build_parser` and `main` of a preparer that has no arguments of its own."""

    def build_parser() -> argparse.ArgumentParser:
        return argument_parser(description)

    @exits_with_status(spec.name)
    def main(argv: list[str] | None = None) -> int:
        return run_preparer(spec, read_labels, build_parser().parse_args(argv))

    return build_parser, main
