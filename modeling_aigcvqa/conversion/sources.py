"""Fetch published checkpoints into the caches of huggingface_hub and torch.hub."""

import hashlib
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils.sha import sha_fileobj

from ..common.files import write_text
from .formats import CheckpointError

HUB_ADDRESS = re.compile(r"hub:(?P<repo_id>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<filename>.+)")
TIMEOUT_S = 30.0


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
