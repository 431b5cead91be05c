"""The sizes and SHA-256 sums of the files of a folder, by which damage is found."""

import hashlib
from pathlib import Path

from modeling_aigcvqa.common.files import read_json, write_json

MANIFEST = "manifest.json"
CHUNK = 2**22  # bytes


def write_manifest(folder: Path) -> None:
    """Write the sizes and the SHA-256 sums of all files of a folder to `manifest.json` in it."""
    write_json(folder / MANIFEST, {"files": {name: _entry(folder / name) for name in _names(folder)}})


def damage(folder: Path) -> str | None:
    """What is wrong with a folder according to its manifest; None if it is whole."""
    try:
        listed = read_json(folder / MANIFEST)["files"]
        for name, entry in listed.items():
            if not (folder / name).is_file():
                return f"'{name}' is missing"
            size = (folder / name).stat().st_size
            if size != entry["bytes"]:
                return f"'{name}' has {size} bytes instead of {entry['bytes']}"
            if _entry(folder / name) != entry:
                return f"'{name}' has another content than was written"
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        return f"its files cannot be checked ({error})"
    return None


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _entry(path: Path) -> dict[str, int | str]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
