"""Fetch published checkpoints into the caches of huggingface_hub and torch.hub, and read them safely."""

import hashlib
import pickle
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils.sha import sha_fileobj
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..common.files import write_text
from .formats import CheckpointError, StateDict

HUB_ADDRESS = re.compile(r"hub:(?P<repo_id>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<filename>.+)")
WRAPPERS = ("state_dict", "model")
TIMEOUT_S = 30.0
# Published checkpoints also hold their best validation results, as numpy numbers.
SAFE_GLOBALS = [
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype("float64")),
    type(np.dtype("float32")),
]


@dataclass(frozen=True)
class Address:
    """The address of a checkpoint: `hub:owner/name[@revision]/file`, an https address, or a local path."""

    text: str

    @property
    def hub(self) -> dict[str, str | None] | None:
        """Repository, revision and file name, as arguments of huggingface_hub's functions; None for other addresses."""
        if not self.text.startswith("hub:"):
            return None
        match = HUB_ADDRESS.fullmatch(self.text)
        if not match:
            raise CheckpointError(f"{self.text!r}: expected hub:owner/name[@revision]/file.")
        return match.groupdict()

    @property
    def is_url(self) -> bool:
        return self.text.startswith("https://")

    @property
    def cache_file(self) -> Path:
        """The file in torch.hub's folder that an https address is downloaded to."""
        name = f"{hashlib.sha256(self.text.encode()).hexdigest()[:12]}-{self.text.rsplit('/', 1)[-1]}"
        return Path(torch.hub.get_dir()) / "aigcvqa" / name

    @property
    def digest_file(self) -> Path:
        """The file that records the SHA-256 of `cache_file` at the time of the download."""
        return self.cache_file.with_name(self.cache_file.name + ".sha256")

    @property
    def is_here(self) -> bool:
        """Whether nothing has to be downloaded."""
        if self.hub:
            return isinstance(try_to_load_from_cache(**self.hub), str)
        return self.digest_file.exists() and self.cache_file.exists() if self.is_url else True

    def remote_size(self) -> int | None:
        """Size in bytes according to the server; None if it is not known."""
        if constants.HF_HUB_OFFLINE:
            return None
        try:
            if self.hub:
                return get_hf_file_metadata(hf_hub_url(**self.hub)).size
            request = urllib.request.Request(self.text, method="HEAD")
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return int(answer.headers["Content-Length"])
        except (HTTPError, OSError, TypeError, ValueError):
            return None  # `fetch` reports the error

    def fetch(self) -> Path:
        """The local path of the file, which is downloaded with a progress bar if it is not in the cache.

        Raises:
            CheckpointError: if there is no such file, the network fails, or a cached file has changed.
        """
        if self.hub:
            return self._fetch_from_hub()
        if self.is_url:
            return self._fetch_from_url()
        path = Path(self.text)
        if not path.is_file():
            raise CheckpointError(f"'{path}' is not a file; pass a path, hub:owner/name/file or an https address.")
        return path

    def _fetch_from_hub(self) -> Path:
        try:
            return Path(hf_hub_download(**self.hub))
        except (HTTPError, OSError) as error:
            offline = " HF_HUB_OFFLINE forbids the network; unset it once." if constants.HF_HUB_OFFLINE else ""
            raise CheckpointError(f"{self.text!r} could not be fetched from the Hub: {error}{offline}") from error

    def _fetch_from_url(self) -> Path:
        """The file in torch.hub's folder. Its SHA-256 is recorded after the download and checked on every later use."""
        path = self.cache_file
        if not self.is_here:
            if constants.HF_HUB_OFFLINE:
                raise CheckpointError(
                    f"{self.text!r} is not in the cache and HF_HUB_OFFLINE forbids the network; unset it once."
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            size = self.remote_size()
            try:
                torch.hub.download_url_to_file(self.text, str(path))
            except (OSError, HTTPException) as error:
                raise CheckpointError(f"{self.text!r} could not be fetched ({error}); check the network.") from error
            if size and path.stat().st_size != size:  # torch.hub takes a lost connection for the end of the file
                got = path.stat().st_size
                path.unlink()
                raise CheckpointError(f"{self.text!r}: {got:,} of {size:,} bytes arrived; run the command again.")
            write_text(self.digest_file, sha256_of(path))
        elif self.digest_file.read_text() != sha256_of(path):
            raise CheckpointError(
                f"'{path}' has changed since it was fetched from {self.text!r}; delete it to fetch it again."
            )
        return path


def fetch_all(addresses: Iterable[str], licenses: dict[str, str], say: Callable[[str], None]) -> dict[str, Path]:
    """Fetch checkpoints. Every download is announced with its size and licence before the first one starts.

    Args:
        addresses: addresses in the forms of `Address`.
        licenses: address -> licence, as far as they are known.
        say: called with each line of progress.

    Returns:
        Address -> local path.

    Raises:
        CheckpointError: if a file cannot be fetched or does not fit on the disk.
    """
    wanted = [Address(text) for text in dict.fromkeys(addresses)]
    sizes = {address: address.remote_size() for address in wanted if not address.is_here}
    for address, size in sizes.items():
        license = licenses.get(address.text, "known once the file is read")
        say(f"to fetch: {address.text} ({_megabytes(size)}), licence: {license}")
    _check_disk(sum(size or 0 for size in sizes.values()))
    paths, left = {}, dict(sizes)
    for address in wanted:
        if address in left:
            coming = sum(size or 0 for size in left.values())
            coming = f" ({_megabytes(coming)} still to come)" if coming else ""
            say(f"fetching {len(sizes) - len(left) + 1} of {len(sizes)}{coming}: {address.text}")
            del left[address]
        paths[address.text] = address.fetch()
    return paths


def _megabytes(size: int | None) -> str:
    return f"{size / 1e6:,.0f} MB" if size else "size not known"


def _check_disk(size: int) -> None:
    """Raise CheckpointError if the disks of the caches have less than `size` bytes free."""
    for folder in (Path(constants.HF_HUB_CACHE), Path(torch.hub.get_dir())):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if size > free:
            raise CheckpointError(
                f"{_megabytes(size)} are to be fetched and the disk of '{folder}' has {_megabytes(free)} free; make "
                "room, or set HF_HOME and TORCH_HOME to folders on another disk."
            )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return sha_fileobj(file).hex()


def read_checkpoint(path: Path) -> StateDict:
    """The state dict in a safetensors file or a torch file. Code in the file is not executed.

    Raises:
        CheckpointError: if the file is damaged or is anything else; names the file.
    """
    with path.open("rb") as file:
        head = file.read(9)
    is_safetensors = head[8:9] == b"{"
    if not is_safetensors and not head.startswith((b"PK", b"\x80")):  # torch's zip format and its old pickle format
        raise CheckpointError(f"'{path}' is not a checkpoint: neither a safetensors nor a torch file.")
    try:
        if is_safetensors:
            content = load_file(path)
        else:
            with torch.serialization.safe_globals(SAFE_GLOBALS):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # a class or a function that torch does not allow
            wanted = re.search(r"GLOBAL (\S+)", str(error))
            raise CheckpointError(
                f"'{path}' wants to run code when it is read ({wanted[1] if wanted else error}) and was refused; use a "
                "file of tensors alone."
            ) from error
        raise CheckpointError(f"'{path}' is not a checkpoint ({_first_line(error)}).") from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read as a checkpoint ({_first_line(error)}); it may be truncated: fetch it again."
        ) from error
    return unwrap(content, path)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def unwrap(content: object, path: Path) -> StateDict:
    """The state dict in {"state_dict": ...} or {"model": ...}, without the prefix "module." of DataParallel."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"'{path}' does not hold a state dict (but a {type(content).__name__}).")
    strange = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise CheckpointError(f"'{path}': the entry {strange[0]!r} is not a tensor; this is not a state dict.")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content
