"""Put a trained small model into the package: `python -m training.package_small --model DIR --output DIR`.

Writes the weights in bfloat16 (the heads, which are computed in float32, stay so), the config, and `training.json`,
the records of all stages back to the first. The package reads `modeling_aigcvqa/assets/small`; tokenizer and processor
follow from the config. `make small-model` runs everything that comes before.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from modeling_aigcvqa.configuration_aigcvqa import BRANCHES
from modeling_aigcvqa.loading import SHIPPED_FOLDER
from modeling_aigcvqa.pipeline_aigcvqa import SCORES
from training.checkpoints import write_json
from training.evaluation_report import figure_text, markdown_table
from training.export_hub import find_provenance
from training.models import initial_model

MAX_BYTES = 12 * 10**6
RECORD = "training.json"


def package(model: str, output: Path) -> int:
    """Write the package's files for the model of a folder; returns the size of its weights in bytes.

    Raises:
        ValueError: for a folder without a record of its training, or weights above `MAX_BYTES`.
    """
    loaded, _ = initial_model(model)
    _, runs = find_provenance(Path(model))
    if not runs:
        raise ValueError(f"--model '{model}' has no {RECORD}; pass the folder of a stage of training.")
    kept = tuple(loaded._keep_in_fp32_modules_strict)
    state = {
        name: value.contiguous() if name.startswith(kept) else value.to(torch.bfloat16).contiguous()
        for name, value in loaded.state_dict().items()
    }
    size = sum(value.numel() * value.element_size() for value in state.values())
    if size > MAX_BYTES:
        raise ValueError(f"--model '{model}': {size} bytes of weights exceed the package's limit of {MAX_BYTES}.")
    output.mkdir(parents=True, exist_ok=True)
    loaded.config.dtype = torch.bfloat16
    loaded.config.to_json_file(output / "config.json")
    save_file(state, output / "model.safetensors", metadata={"format": "pt"})
    write_json(output / RECORD, {"runs": runs})
    return size


def results_table(figures: dict[str, Any]) -> str:
    """The README's table, from metrics.json of an evaluation on the synthetic benchmark with `--prompt_swap`."""
    header = ["score", "SROCC with MOS", "PLCC with MOS", *(f"SROCC with {latent}" for latent in BRANCHES)]
    rows = []
    for score in SCORES:
        metrics, latents = figures["metrics"][score], figures["latents"]["srocc"].get(score)
        cells = [f"{latents[latent]['value']:.3f}" if latents else "" for latent in BRANCHES]
        rows.append(
            [score.removesuffix("_score"), figure_text(metrics["srocc"], 3), figure_text(metrics["plcc"], 3), *cells]
        )
    swap = figures["prompt_swap"]
    share, clips = 100 * swap["share"]["value"], swap["num_clips"]
    return markdown_table(header, rows) + (
        f"\n\nOn {clips} clips that show what was asked for, the right prompt scores above another of its category\n"
        f"in {share:.1f} % of cases (chance: 50 %)."
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder that the last stage wrote")
    parser.add_argument("--output", type=Path, default=SHIPPED_FOLDER, help="default: the package's own folder")
    arguments = parser.parse_args(argv)
    try:
        print(f"wrote {package(arguments.model, arguments.output):,} bytes of weights to '{arguments.output}'")
    except (ValueError, OSError) as error:
        print(f"package_small: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
