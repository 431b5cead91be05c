"""What a run scores: manifests of several formats, in files, folders, tar archives and data sets of the Hub."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..common.places import file_system, folder_of, is_address
from ..names_aigcvqa import shortened

TEXT_SUFFIXES = (".csv", ".jsonl")
PARQUET_SUFFIXES = (".parquet",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
SUFFIXES = (*TEXT_SUFFIXES, *PARQUET_SUFFIXES, *TAR_SUFFIXES)
DATASET_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?::(?P<split>[\w.-]+))?")


@dataclass(frozen=True)
class Input:
    """A file with rows, or a data set of the Hub.

    Attributes:
        kind: "text", "parquet", "tar" or "dataset".
        place: path, fsspec address, or `id:split` of a data set.
        root: the folder that the names in ids are relative to.
    """

    kind: str
    place: str
    root: str

    @property
    def folder(self) -> str:
        """The folder that the names of clips in the file are relative to."""
        return folder_of(self.place)


def inputs_of(manifest: str) -> list[Input]:
    """The files of a manifest: itself, or those of a folder and its subfolders in the order of their names.

    Args:
        manifest: CSV, JSONL, parquet or tar file, or a folder of them, as a path or an fsspec address; or the id of a
            data set on the Hub, "user/name" or "user/name:split".

    Raises:
        ValueError: if it does not exist, has an unknown type or no such file in it; names it.
    """
    system, path = file_system(manifest)
    if system.isdir(path):
        inputs = list(_inputs_in(system, path))
        if not inputs:
            raise ValueError(f"--manifest '{manifest}': the folder has no file that ends in {' or '.join(SUFFIXES)}.")
        return inputs
    kind = _kind_of(path)
    if system.exists(path):
        if kind is None:
            raise ValueError(f"--manifest '{manifest}': expected a name that ends in {' or '.join(SUFFIXES)}.")
        place = system.unstrip_protocol(path) if is_address(manifest) else path
        return [Input(kind, place, folder_of(place))]
    if kind is None and not is_address(manifest) and DATASET_ID.fullmatch(manifest):
        return [Input("dataset", manifest, "")]
    raise ValueError(f"--manifest '{shortened(manifest)}' does not exist; check the path.")


def _inputs_in(system, folder: str) -> Iterator[Input]:
    root = system.unstrip_protocol(folder) if "file" not in _protocols(system) else folder
    for path in sorted(system.find(folder)):
        hidden = any(part.startswith(".") for part in path[len(folder) :].split("/"))
        if _kind_of(path) and not hidden:
            place = system.unstrip_protocol(path) if "file" not in _protocols(system) else path
            yield Input(_kind_of(path), place, root)


def _protocols(system) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _kind_of(path: str) -> str | None:
    kinds = {"text": TEXT_SUFFIXES, "parquet": PARQUET_SUFFIXES, "tar": TAR_SUFFIXES}
    return next((kind for kind, suffixes in kinds.items() if path.lower().endswith(suffixes)), None)
