"""Files on any place that fsspec knows: local paths, s3://, gs://, hf://, memory:// and so on."""

import posixpath
import re
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from ..names_aigcvqa import shortened

PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*(::|://)", re.IGNORECASE)
MAX_FETCHED_BYTES = 2 * 1024**3


def is_address(path: str) -> bool:
    """Whether a text names a protocol: http://, s3://, zip://...::..."""
    return PROTOCOL.match(path) is not None


def is_web_address(path: str) -> bool:
    return re.match(r"https?://", path, re.IGNORECASE) is not None


def file_system(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or address, and the path in it.

    Raises:
        ValueError: for an unknown protocol, or one whose package is missing; names the address.
    """
    try:
        return url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise ValueError(f"'{shortened(path)}' cannot be opened ({error}).") from error


def joined(folder: str, name: str) -> str:
    """The place of a name that is relative to a folder; addresses and absolute paths stay."""
    return name if is_address(name) else posixpath.join(folder, name)


def folder_of(path: str) -> str:
    return posixpath.dirname(path)


def fetched_from_place(video: Any) -> Any:
    """The bytes of a file on a place that fsspec knows. Paths, http(s) addresses and all else stay as they are.

    Raises:
        ValueError: if the file cannot be read or is too large; names it.
    """
    if not isinstance(video, str) or not is_address(video) or is_web_address(video):
        return video
    name = repr(shortened(video))
    system, path = file_system(video)
    try:
        size = system.size(path)
        if size is not None and size > MAX_FETCHED_BYTES:
            raise ValueError(f"{name} has {size} bytes, above the {MAX_FETCHED_BYTES} allowed; shorten it.")
        return system.cat_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"{name} does not exist; check the address.") from error
    except ValueError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise ValueError(f"{name} cannot be fetched ({type(error).__name__}: {shortened(str(error))}).") from error
