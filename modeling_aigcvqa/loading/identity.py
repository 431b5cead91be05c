"""What identifies the weights of a model, so that scores of two models are never taken for those of one."""

import hashlib
from pathlib import Path

from huggingface_hub import snapshot_download

from ..conversion.sources import sha256_of

# Every file that a score depends on. The code is that of the installed package.
FILES = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt")
WEIGHTS = "*.safetensors"


def digest_of_model(source: str) -> str:
    """SHA-256 of the weights, config, processor and tokenizer of a model.

    Args:
        source: a folder or a Hub id, whose files are fetched if they are not in the cache.
    """
    folder = _folder_of(source)
    digest = hashlib.sha256()
    for file in [*(folder / name for name in FILES), *sorted(folder.glob(WEIGHTS))]:
        if file.exists():
            digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def revision_of_model(source: str, digest: str) -> str:
    """The commit of a model on the Hub, or `sha256:` and the digest of the files of a folder."""
    return f"sha256:{digest}" if Path(source).is_dir() else _folder_of(source).name


def _folder_of(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    return Path(snapshot_download(source, allow_patterns=[*FILES, WEIGHTS]))  # .../snapshots/COMMIT
