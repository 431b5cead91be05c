"""Put a trained small model into the package, in bfloat16: what `make demo` and `--model small` score with.

    python -m training.ship_small --model outputs/small/stage3

Only config and weights: processor and tokenizer are the package's own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from modeling_aigcvqa.loading import SHIPPED_FOLDER, load_model

LIMIT = 12e6  # bytes that the weights may take in the package


def ship(model: str, folder: Path = SHIPPED_FOLDER) -> int:
    """Write config.json and model.safetensors; returns the size of the weights in bytes.

    Raises:
        ValueError: where they exceed `LIMIT`.
    """
    loaded, _ = load_model(model)
    loaded = loaded.to(torch.bfloat16)
    size = sum(parameter.numel() * parameter.element_size() for parameter in loaded.parameters())
    if size > LIMIT:
        raise ValueError(f"--model '{model}' takes {size} bytes, above {LIMIT:.0f}; ship a smaller one.")
    loaded.save_pretrained(folder)
    for code in folder.glob("*.py"):  # the package has it already
        code.unlink()
    return size


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of the trained model")
    print(f"{ship(parser.parse_args(argv).model) / 1e6:.1f} MB in '{SHIPPED_FOLDER}'")


if __name__ == "__main__":
    main()
