"""The files of a run's folder, on any place that fsspec knows. Each file is written as a whole or not at all."""

import json
import posixpath
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..common.files import whole_file
from ..common.places import file_system, is_address


class Store:
    """A folder of parquet and JSON files. It can be pickled and sent to other machines.

    Args:
        root: path or fsspec address. Local paths are made absolute.
    """

    def __init__(self, root: str):
        self.root = root.rstrip("/") if is_address(root) else str(Path(root).absolute())
        self.is_local = not is_address(root)

    def path(self, name: str) -> str:
        return posixpath.join(self.root, name)

    def names(self, folder: str) -> list[str]:
        """The sorted names of what is in a folder, without hidden ones; none if it does not exist."""
        system, path = file_system(self.path(folder))
        system.invalidate_cache()
        try:
            entries = system.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for entry in entries if (name := posixpath.basename(entry.rstrip("/"))) and name[0] != ".")

    def exists(self, name: str) -> bool:
        system, path = file_system(self.path(name))
        system.invalidate_cache()
        return system.exists(path)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens if there is none."""
        system, path = file_system(self.path(name))
        try:
            system.rm(path, recursive=True)
        except FileNotFoundError:
            return

    def write_table(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        self._write(name, sink.getvalue().to_pybytes())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        system, path = file_system(self.path(name))
        with system.open(path, "rb") as file:
            return pq.read_table(file, columns=columns)

    def read_metadata(self, name: str) -> dict[str, str]:
        """What `table.schema.metadata` held when a table was written."""
        return self._footer(name)[0]

    def read_counts(self, name: str) -> dict:
        """The metadata, and `num_rows`."""
        metadata, num_rows = self._footer(name)
        return metadata | {"num_rows": num_rows}

    def _footer(self, name: str) -> tuple[dict[str, str], int]:
        system, path = file_system(self.path(name))
        with system.open(path, "rb") as file:
            footer = pq.ParquetFile(file)
            metadata = footer.schema_arrow.metadata or {}
            return {key.decode(): value.decode() for key, value in metadata.items()}, footer.metadata.num_rows

    def put(self, local: str, name: str) -> None:
        """Copy a local file."""
        if self.is_local:
            with whole_file(self.path(name)) as partial:
                shutil.copyfile(local, partial)
            return
        system, path = file_system(self.path(name))
        system.put_file(local, path)

    def write_json(self, name: str, content: Any) -> None:
        self._write(name, (json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """The content of a JSON file.

        Raises:
            ValueError: if it is not JSON; names the file.
        """
        system, path = file_system(self.path(name))
        try:
            return json.loads(system.cat_file(path))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"'{self.path(name)}' cannot be read as JSON ({error}).") from error

    def _write(self, name: str, content: bytes) -> None:
        if self.is_local:
            path = Path(self.path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as partial:
                partial.write_bytes(content)
            return
        system, path = file_system(self.path(name))
        system.makedirs(posixpath.dirname(path), exist_ok=True)
        system.pipe_file(path, content)  # object stores show an object when it is complete
