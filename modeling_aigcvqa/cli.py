"""The command line, `aigcvqa`. Not shipped by `save_pretrained`."""

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch.utils.data import Dataset

from .configuration_aigcvqa import BRANCHES
from .explain import WEIGHTS, explain
from .loading import DTYPES, SHIPPED, load_pipeline
from .pipeline_aigcvqa import SCORES
from .presets import PRESETS, default_processor, save_model_folder, untrained_model

SUFFIXES = (".csv", ".jsonl")
TABLE_ROWS = 1000  # printed at most, and kept for that; a file has them all


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aigcvqa", description="Score AI-generated videos against their prompts.")
    commands = parser.add_subparsers(dest="command", required=True)

    score = commands.add_parser("score", help="score videos", description="Four scores a video, higher is better.")
    score.add_argument("videos", nargs="*", metavar="VIDEO", help="files, folders of frames or URLs")
    score.add_argument("--prompt", help="the prompt that the videos were generated from")
    score.add_argument(
        "--manifest", type=Path, help="CSV or JSONL with the columns file and prompt; files relative to it"
    )
    score.add_argument("--output", type=Path, help="CSV or JSONL to write; rows appear as they are scored")
    score.add_argument("--model", default=SHIPPED, help=f"folder or Hub id (default: {SHIPPED}, inside the package)")
    score.add_argument("--branches", help=f"comma-separated subset of {','.join(BRANCHES)} (default: the model's)")
    score.add_argument(
        "--alignment_num_frames",
        type=int,
        metavar="N",
        help="frames that the alignment branch sees: fewer are faster (default: the model's)",
    )
    score.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU where there is one)")
    score.add_argument(
        "--dtype",
        choices=["auto", *DTYPES],
        help="auto: the faster one here, which is printed (default: the weights')",
    )
    score.add_argument("--batch_size", type=int, default=1)
    score.add_argument("--num_workers", type=int, default=0, help="processes that decode ahead")
    score.add_argument("--json", action="store_true", help="print JSON instead of a table")

    explain = commands.add_parser(
        "explain",
        help="show where, when and by which word a clip's scores break",
        description="Writes heat maps over the video, a timeline, the weakest words and one HTML page with it all.",
    )
    explain.add_argument("video", metavar="VIDEO", help="a file, folder of frames or URL")
    explain.add_argument("--prompt", help="the prompt that the video was generated from")
    explain.add_argument("--output", type=Path, required=True, help="folder to write to")
    explain.add_argument("--model", default=SHIPPED, help=f"folder or Hub id (default: {SHIPPED}, inside the package)")
    explain.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU where there is one)")
    explain.add_argument("--dtype", choices=["auto", *DTYPES], help="as of score")
    explain.add_argument(
        "--window", type=int, help="frames of the clip that a window spans (default: as many as the model scores)"
    )
    explain.add_argument("--stride", type=int, help="frames between windows' starts (default: half a window)")
    explain.add_argument("--weights", choices=WEIGHTS, default=WEIGHTS[0], help="of windows that overlap")

    init = commands.add_parser("init", help="write an untrained model to a folder, to start training from")
    init.add_argument("--preset", choices=list(PRESETS), default="full")
    init.add_argument("--seed", type=int, default=0)
    init.add_argument("--output", type=Path, required=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 if all succeeded, 1 if something failed, 2 for a wrong call."""
    arguments = build_parser().parse_args(argv)
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        return {"score": run_score, "explain": run_explain, "init": run_init}[arguments.command](arguments, errors)
    except (ValueError, OSError) as error:
        errors.print(f"aigcvqa: {error}", style="red")
        return 2


def run_init(arguments: argparse.Namespace, errors: Console) -> int:
    if arguments.output.exists() and any(arguments.output.iterdir()):
        raise ValueError(f"--output '{arguments.output}' is not empty; name a new folder.")
    model = untrained_model(arguments.preset, arguments.seed)
    processor = default_processor(model.config)
    save_model_folder(model, processor, arguments.output)
    errors.print(f"Wrote an untrained '{arguments.preset}' model to '{arguments.output}'.")
    return 0


def run_explain(arguments: argparse.Namespace, errors: Console) -> int:
    try:
        from .explain_report import write_report
    except ImportError as error:  # matplotlib, which scoring does not need
        raise ValueError(str(error)) from error
    if arguments.output.is_file():
        raise ValueError(f"--output '{arguments.output}' is a file; name a folder.")
    pipeline = load_pipeline(arguments.model, None, arguments.device, arguments.dtype)
    with progress_bar(errors) as progress:
        task = progress.add_task("windows", total=None)
        explanation = explain(
            pipeline,
            arguments.video,
            arguments.prompt,
            arguments.window,
            arguments.stride,
            arguments.weights,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        paths = write_report(explanation, arguments.video, arguments.output)
    print_table([{"file": arguments.video, **explanation.scores}], explanation.note)
    if explanation.words:
        print("weakest words:", ", ".join(word.word for word in explanation.weakest_words()))
    for name, path in paths.items():
        print(f"{name}: {path}")
    return 0


def run_score(arguments: argparse.Namespace, errors: Console) -> int:
    rows = read_rows(arguments)
    if arguments.output:
        check_output(arguments)
    if arguments.batch_size < 1:
        raise ValueError(f"--batch_size {arguments.batch_size}: expected at least 1.")
    branches = arguments.branches.split(",") if arguments.branches else None
    options = arguments.device, arguments.dtype, arguments.alignment_num_frames
    pipeline = load_pipeline(arguments.model, branches, *options)
    note = pipeline.model.config.weights_note
    shown, failed = [], []  # not every row: a manifest may have a million
    with RowWriter(arguments.output, list(rows[0])) as writer, progress_bar(errors) as progress:
        task = progress.add_task("scoring", total=len(rows))
        results = pipeline(
            Items(rows), batch_size=arguments.batch_size, num_workers=arguments.num_workers, on_error="return"
        )
        for row, result in zip(rows, results):
            row = {key: value for key, value in row.items() if key != "_video"} | result
            writer.write(row)
            if arguments.json or len(shown) < TABLE_ROWS:
                shown.append(row)
            if "error" in row:
                failed.append(row)
            progress.advance(task)
    if arguments.json:
        print(json.dumps({"model": arguments.model, "note": note, "results": shown}, ensure_ascii=False, indent=2))
    else:
        print_table(shown, note)
    if len(shown) < len(rows):
        errors.print(f"The first {len(shown)} of {len(rows)} rows are shown; --output FILE keeps all.")
    for row in failed:
        errors.print(f"failed: {row[file_column(row)]}: {row['error']}", style="red")
    if failed:
        errors.print(f"{len(failed)} of {len(rows)} videos could not be scored.", style="red")
    return 1 if failed else 0


def read_rows(arguments: argparse.Namespace) -> list[dict]:
    """One row a video: the manifest's columns, or `file` and `prompt`, and `_video`, what to open."""
    if arguments.manifest and arguments.videos:
        raise ValueError("pass VIDEO... or --manifest, not both.")
    if not arguments.manifest and not arguments.videos:
        raise ValueError("nothing to score; pass VIDEO... or --manifest FILE.")
    if arguments.videos:
        prompt = {} if arguments.prompt is None else {"prompt": arguments.prompt}
        return [{"file": video, **prompt, "_video": video} for video in arguments.videos]
    if arguments.prompt is not None:
        raise ValueError("--prompt goes with VIDEO...; a manifest has its own column prompt.")
    folder = arguments.manifest.parent
    rows = list(read_manifest(arguments.manifest))
    if not rows:
        raise ValueError(f"the manifest '{arguments.manifest}' has no rows.")
    for row in rows:
        file = row[file_column(row)]
        row["_video"] = file if file.startswith(("http://", "https://")) else str(folder / file)
    return rows


def file_column(row: dict) -> str | None:
    """`file`, or `file_name` as in a VideoFolder's metadata."""
    return next((name for name in ("file", "file_name") if isinstance(row.get(name), str) and row[name]), None)


def read_manifest(path: Path) -> Iterator[dict]:
    """Rows of a CSV or JSONL file, each with a `file`."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--manifest '{path}': expected a name that ends in {' or '.join(SUFFIXES)}.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        if path.suffix == ".csv":
            rows = csv.DictReader(file)
        else:
            rows = (parse_json(line, path, number) for number, line in enumerate(file, 1) if line.strip())
        for number, row in enumerate(rows, 1):
            if file_column(row) is None:
                raise ValueError(f"'{path}', row {number}: no column 'file' (it has {sorted(map(str, row))}).")
            if None in row:
                raise ValueError(f"'{path}', row {number}: more values than columns; quote prompts that hold commas.")
            yield row


def parse_json(line: str, path: Path, number: int) -> dict:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"'{path}', line {number} is not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise ValueError(f"'{path}', line {number} is not a JSON object.")
    return row


def check_output(arguments: argparse.Namespace) -> None:
    output = arguments.output
    if output.suffix not in SUFFIXES:
        raise ValueError(f"--output '{output}': expected a name that ends in {' or '.join(SUFFIXES)}.")
    if not output.parent.is_dir():
        raise ValueError(f"--output '{output}': the folder '{output.parent}' does not exist.")
    if arguments.manifest and output.exists() and output.samefile(arguments.manifest):
        raise ValueError(f"--output '{output}' is the manifest itself; name another file.")


class RowWriter:
    """Writes rows to CSV or JSONL as they come, so that an interrupted run keeps what it has scored."""

    def __init__(self, path: Path | None, columns: list[str]):
        self.path = path
        self.columns = list(dict.fromkeys([column for column in columns if column != "_video"] + [*SCORES, "error"]))

    def __enter__(self):
        self.file = self.path.open("w", newline="", encoding="utf-8") if self.path else None
        if self.file and self.path.suffix == ".csv":
            self.csv = csv.DictWriter(self.file, self.columns, restval="")
            self.csv.writeheader()
            self.file.flush()
        return self

    def __exit__(self, *_):
        if self.file:
            self.file.close()

    def write(self, row: dict) -> None:
        if not self.file:
            return
        if self.path.suffix == ".csv":
            self.csv.writerow(row)
        else:
            self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.file.flush()


class Items(Dataset):
    """The rows as the pipeline takes them: a dataset, which it scores lazily (plain lists are consumed at once)."""

    def __init__(self, rows: list[dict]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return {"video": self.rows[index]["_video"], "prompt": self.rows[index].get("prompt")}


def progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def print_table(rows: list[dict], note: str | None) -> None:
    columns = [name for name in SCORES if any(name in row for row in rows)]
    table = Table(caption=f"Higher is better.{' ' + note if note else ''}", caption_style="yellow" if note else None)
    table.add_column("file", overflow="fold")
    for name in columns:
        table.add_column(name.removesuffix("_score"), justify="right")
    for row in rows:
        cells = [f"{row[name]:.4f}" if name in row else "failed" for name in columns]
        table.add_row(row[file_column(row)], *cells)
    Console().print(table)
