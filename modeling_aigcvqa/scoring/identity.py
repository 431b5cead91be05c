"""What decides about a run's scores, in a form that can be compared: of the model and of the rows."""

import hashlib
import json
from pathlib import Path

from transformers.utils import cached_file

from ..conversion.sources import sha256_of

# Every file that a score depends on. The code is that of the installed package.
FILES = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt")


def digest_of_rows(clips: list[str], rows: list[dict]) -> str:
    """SHA-256 of the clips' names and the rows, in their order."""
    digest = hashlib.sha256()
    for clip, row in zip(clips, rows):
        digest.update(json.dumps([clip, row]).encode() + b"\n")
    return digest.hexdigest()


def digest_of_model(source: str) -> str:
    """SHA-256 of the weights, config, processor and tokenizer of a model.

    Args:
        source: a folder or a Hub id whose files are in the cache.
    """
    folder = Path(source) if Path(source).is_dir() else Path(cached_file(source, "config.json")).parent
    digest = hashlib.sha256()
    for file in [*(folder / name for name in FILES), *sorted(folder.glob("*.safetensors"))]:
        if file.exists():
            digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()
