"""Prepare T2VQA-DB, in its own layout or in that of the NTIRE 2024 challenge.

    python -m dataset_scripts.prepare_t2vqa_db --source T2VQA-DB --output data/t2vqa_db

Label lines are `file|prompt|mos` (usually in info.txt). The most common number of fields in a file decides: two are
`file|prompt` (an unlabelled part), four are `file|prompt|extra|mos`, as public forks of T2VQA read them. The fourth
field is taken as the MOS; nobody says what the third is, so it is kept as the text column `extra`. `--columns` names
the fields otherwise. A line with more bars than that has them in its prompt.

NTIRE 2024: train.txt, val.txt and test.txt (or training.txt, ...) beside folders of the same names; the labels of the
last two were not published, so their MOS is null. A clip's id then begins with its split, as the parts may reuse names.

Not seen: the real files. Format and range (MOS 0..100) are from the T2VQA repository's reader, its paper and challenge
entries. In neither do the lines name the generator; if the file names do, give `--generator_from` a regular expression
with a group named "generator", such as '^(?P<generator>[a-z0-9-]+)_'. Without it `generator` is null.
"""

import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .folder import argument_parser, run_preparer
from .labels import STRING, Clip, DatasetSpec, Labels, MediaIndex, Problem, clip_id, label_files, split_of, to_score

SPEC = DatasetSpec(
    name="T2VQA-DB",
    license="unknown",
    description="10,000 text-generated clips of 1,000 prompts with one mean opinion score each (Kou et al., 2024). The "
    "authors state no licence: ask them before you pass the clips on.",
    homepage="https://github.com/QMME/T2VQA",
    columns={"generator": STRING},
    ranges={"mos": (0.0, 100.0)},
)
COLUMNS = {2: ("file", "prompt"), 3: ("file", "prompt", "mos"), 4: ("file", "prompt", "extra", "mos")}
PATTERNS = ("info.txt", "*/info.txt", "*.txt", "*/*.txt")


def split_line(line: str, count: int) -> list[str]:
    """The fields of a line of `count`: surplus bars belong to the prompt, the second field."""
    fields = line.split("|")
    surplus = max(len(fields) - count, 0)
    if surplus:
        fields = [fields[0], "|".join(fields[1 : 2 + surplus]), *fields[2 + surplus :]]
    return [field.strip() for field in fields]


def read_lines(path: Path, encoding: str) -> list[str]:
    """Lines that are not blank. Split at newlines only: a prompt may hold other separators that Python splits at."""
    try:
        content = path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{path}' is not {encoding} (byte {error.start}); give --encoding, such as gb18030."
        ) from error
    return [line.strip("\r\ufeff") for line in content.split("\n") if line.strip("\r\ufeff ")]


def choose_columns(lines: list[str], given: list[str] | None, path: Path) -> tuple[str, ...]:
    """The names of the fields: those given, or by the most common number of fields."""
    if given:
        return tuple(given)
    count = Counter(line.count("|") + 1 for line in lines).most_common(1)[0][0] if lines else 0
    if count not in COLUMNS:
        raise ValueError(
            f"'{path}' has lines of {count} fields, not 2 to 4 as in 'file|prompt|mos'; name the label files with "
            "--labels or the fields with --columns."
        )
    return COLUMNS[count]


def read_file(path: Path, index: MediaIndex, args) -> Iterator[Clip | Problem]:
    """The clips of one label file."""
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
        if args.generator_from and (match := re.search(args.generator_from, row["file"])):
            values["generator"] = match["generator"]
        # An empty last field is how an unlabelled part keeps its bars; in the training part it is an error.
        unlabelled = "mos" not in row or (not row["mos"] and split != "train")
        yield Clip(
            split=split,
            id=f"{split}/{clip_id(row['file'])}" if folder else clip_id(row["file"]),
            file=index.find(row["file"], (folder,) if folder else ("videos",), anywhere=folder is None),
            prompt=row["prompt"],
            mos=None if unlabelled else to_score(row["mos"]),
            values=values,
        )


def read_labels(source: Path, index: MediaIndex, args) -> Labels:
    """All label files of the dataset."""
    labels = Labels()
    for path in label_files(source, args.labels, PATTERNS):
        for item in read_file(path, index, args):
            (labels.problems if isinstance(item, Problem) else labels.clips).append(item)
    return labels


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--columns", nargs="+", metavar="NAME", help="names of the fields, beginning with: file prompt")
    parser.add_argument(
        "--generator_from", metavar="REGEX", help="finds the generator (a named group) in the file name"
    )
    parser.add_argument("--encoding", default="utf-8", help="of the label files")
    args = parser.parse_args(argv)
    if args.columns and args.columns[:2] != ["file", "prompt"]:
        parser.error(f"--columns {' '.join(args.columns)}: the first two must be: file prompt")
    if args.generator_from and "generator" not in re.compile(args.generator_from).groupindex:
        parser.error(f"--generator_from {args.generator_from}: the expression needs a group (?P<generator>...)")
    extra = {name: STRING for name in args.columns or ("extra",) if name not in ("file", "prompt", "mos")}
    spec = dataclasses.replace(SPEC, columns={**SPEC.columns, **extra})
    return run_preparer(spec, lambda source, index: read_labels(source, index, args), args)


if __name__ == "__main__":
    sys.exit(main())
