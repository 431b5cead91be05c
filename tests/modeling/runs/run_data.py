"""A few clips, their manifests in every format, and what a run's folder holds."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from modeling_aigcvqa.cli import main
from tests.conftest import moving_gradient, write_video

COUNT = 5
BROKEN = 2  # number of the clip that cannot be read
PROMPTS = ["one", "=two", "three, 'quoted' \"twice\"", "four\nlines", "five ü"]


def make_clips(folder: Path) -> list[dict]:
    """Write the clips; gives their rows."""
    rows = []
    for n in range(COUNT):
        file = folder / f"{n}.mp4"
        if n == BROKEN:
            file.write_bytes(b"not a video")
        else:
            write_video(file, moving_gradient(4, 64 + 16 * n, 64))
        rows.append({"file": file.name, "prompt": PROMPTS[n], "mos": n / 3, "id": f"clip-{n}", "tags": ["a", str(n)]})
    return rows


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: list[dict], content: str | None = None) -> Path:
    """Rows with the clips' names, or with their bytes in `video`: "bytes", or "struct" as `datasets` has it."""
    rows = [dict(row) for row in rows]
    for row in rows if content else ():
        read = (path.parent / row["file"]).read_bytes()
        row["video"] = read if content == "bytes" else {"bytes": read, "path": row.pop("file")}
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def write_tar(path: Path, rows: list[dict]) -> Path:
    """A WebDataset archive: the prompt of every other sample is a text file, that of the others stands in its JSON."""
    with tarfile.open(path, "w") as tar:
        for number, row in enumerate(rows):
            members = {"mp4": (path.parent / row["file"]).read_bytes()}
            if number % 2:
                members["txt"] = row["prompt"].encode()
                members["json"] = json.dumps({"mos": row["mos"]}).encode()
            else:
                members["json"] = json.dumps({"prompt": row["prompt"], "mos": row["mos"]}).encode()
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"part/{number:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def run(*arguments: object) -> int:
    return main(["score", *map(str, arguments)])


def scores(output: Path | str) -> list[dict]:
    """The scored rows, in the order of their numbers."""
    rows = ds.dataset(f"{output}/scores").to_table().to_pylist()
    return sorted(rows, key=lambda row: (row["file"], row["prompt"]))


def failures(output: Path | str) -> list[dict]:
    return pq.read_table(f"{output}/failures.parquet").to_pylist()


def summary(output: Path | str) -> dict:
    return json.loads((Path(output) / "summary.json").read_text())


def check_accounts(output: Path | str, clips: int) -> None:
    """Every clip is scored or failed, and none stands twice."""
    ids = [row["id"] for row in [*scores(output), *failures(output)]]
    assert len(ids) == len(set(ids)) == clips
    accounts = summary(output)
    assert accounts["complete"]
    assert accounts["in"] == accounts["scored"] + accounts["failed"] == clips
