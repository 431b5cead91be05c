"""Prepare T2VQA-DB, in its own layout or in the layout of the NTIRE 2024 challenge.

    python -m dataset_scripts.prepare_t2vqa_db --source T2VQA-DB --output data/t2vqa_db

The lines of a label file, usually info.txt, are `file|prompt|mos`. Lines of two fields are `file|prompt` (a part
without labels), lines of four fields `file|prompt|extra|mos`, as public forks of T2VQA read them: the fourth field is
taken as the MOS; the meaning of the third field is unknown, so it is kept as the text column `extra`. The most common
number of fields decides for the whole file, and additional bars belong to the prompt. `--columns` gives the fields
other names.

NTIRE 2024 has train.txt, val.txt and test.txt (or training.txt, ...) beside folders of the same names. The labels of
validation and test were not published, so their MOS is null. The ids of the clips begin with the split because the
parts may reuse file names.

Not tested with the real files. The format and the range (MOS 0..100) are taken from the reader in the T2VQA repository,
from the paper and from entries to the challenge. The lines do not name the generator. If the file names do, give
`--generator_from` a regular expression with a group named "generator", for example '^(?P<generator>[a-z0-9-]+)_'.
Without this option `generator` is null.
"""

import argparse
import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from modeling_aigcvqa.common.console import exits_with_status

from .folder import argument_parser, run_preparer
from .labels import STRING, Clip, DatasetSpec, Labels, MediaIndex, Problem, clip_id, split_of, to_score

SPEC = DatasetSpec(
    name="T2VQA-DB",
    license="unknown",
    description="10,000 generated clips for 1,000 prompts, with one mean opinion score per clip (Kou et al., 2024). "
    "The authors state no licence; ask them before you redistribute the clips.",
    homepage="https://github.com/QMME/T2VQA",
    label_patterns=("info.txt", "*/info.txt", "*.txt", "*/*.txt"),
    columns={"generator": STRING},
    ranges={"mos": (0.0, 100.0)},
)
COLUMNS = {2: ("file", "prompt"), 3: ("file", "prompt", "mos"), 4: ("file", "prompt", "extra", "mos")}


def split_line(line: str, count: int) -> list[str]:
    """The fields of a line, at most `count`. Additional bars belong to the prompt, which is the second field."""
    fields = line.split("|")
    surplus = len(fields) - count
    if surplus > 0:
        fields[1 : 2 + surplus] = ["|".join(fields[1 : 2 + surplus])]
    return [field.strip() for field in fields]


def read_lines(path: Path, encoding: str) -> list[str]:
    """The lines that are not blank. `str.splitlines` would also split at separators that a prompt may contain."""
    try:
        content = path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        message = f"'{path}' is not {encoding} (byte {error.start}); give --encoding, for example gb18030."
        raise ValueError(message) from error
    return [line.strip("\r\ufeff") for line in content.split("\n") if line.strip("\r\ufeff ")]


def choose_columns(lines: list[str], given: list[str] | None, path: Path) -> tuple[str, ...]:
    """The names of the fields: the given names or those for the most common number of fields."""
    if given:
        return tuple(given)
    count = Counter(line.count("|") + 1 for line in lines).most_common(1)[0][0] if lines else 0
    if count not in COLUMNS:
        raise ValueError(
            f"'{path}' has lines of {count} fields; expected 2 to 4, as in 'file|prompt|mos'. Name the label files "
            "with --labels or the fields with --columns."
        )
    return COLUMNS[count]


def read_file(path: Path, index: MediaIndex, args: argparse.Namespace) -> Iterator[Clip | Problem]:
    """The clips and the defective lines of one label file."""
    lines = read_lines(path, args.encoding)
    columns = choose_columns(lines, args.columns, path)
    split = split_of(path)
    folder = next((name for name in (path.stem, split) if (index.source / name).is_dir()), None)
    for number, line in enumerate(lines, 1):
        fields = split_line(line, len(columns))
        if len(fields) != len(columns) or not fields[0]:
            yield Problem("bad_label", f"{path.name}:{number}", f"expected {'|'.join(columns)}, got {line[:120]!r}")
            continue
        row = dict(zip(columns, fields, strict=True))
        values = {name: value for name, value in row.items() if name not in ("file", "prompt", "mos")}
        if args.generator_from and (match := args.generator_from.search(row["file"])):
            values["generator"] = match["generator"]
        # Parts without labels may keep the bars and leave the last field empty. In the training part this is an error.
        unlabelled = "mos" not in row or (not row["mos"] and split != "train")
        yield Clip(
            split=split,
            id=f"{split}/{clip_id(row['file'])}" if folder else clip_id(row["file"]),
            file=index.find(row["file"], (folder,) if folder else ("videos",), anywhere=folder is None),
            prompt=row["prompt"],
            mos=None if unlabelled else to_score(row["mos"]),
            values=values,
        )


def read_labels(files: list[Path], index: MediaIndex, args: argparse.Namespace) -> Labels:
    """The clips of all label files."""
    labels = Labels()
    for path in files:
        for item in read_file(path, index, args):
            (labels.problems if isinstance(item, Problem) else labels.clips).append(item)
    return labels


def pattern(text: str) -> re.Pattern:
    """The regular expression of --generator_from."""
    try:
        expression = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression ({error}).") from error
    if "generator" not in expression.groupindex:
        raise argparse.ArgumentTypeError(f"{text!r} needs a group (?P<generator>...).")
    return expression


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument("--columns", nargs="+", metavar="NAME", help="names of the fields; the first two: file prompt")
    parser.add_argument(
        "--generator_from", type=pattern, metavar="REGEX", help="finds the group `generator` in the file name"
    )
    parser.add_argument("--encoding", default="utf-8", help="encoding of the label files (default: utf-8)")
    return parser


@exits_with_status("prepare_t2vqa_db")
def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.columns and args.columns[:2] != ["file", "prompt"]:
        parser.error(f"--columns {' '.join(args.columns)}: the first two must be: file prompt")
    extra = {name: STRING for name in args.columns or ("extra",) if name not in ("file", "prompt", "mos")}
    spec = dataclasses.replace(SPEC, columns={**SPEC.columns, **extra})
    return run_preparer(spec, lambda files, index: read_labels(files, index, args), args)


if __name__ == "__main__":
    raise SystemExit(main())
