"""Put a trained small model into the package: `python -m training.pretraining.package_small --model DIR`.

Writes the weights in bfloat16 (except the heads, which compute in float32 and stay float32), the config with its
provenance, and the processor with its vocabulary. The package reads `modeling_aigcvqa/assets/small` like any other
model folder. `make small-model` runs every step, from the data to this program.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from modeling_aigcvqa.common.choices import SHIPPED_FOLDER
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import read_json, whole_files, write_json, write_text
from modeling_aigcvqa.configuration_aigcvqa import BRANCHES
from modeling_aigcvqa.pipeline_aigcvqa import SCORES
from training.common.models import initial_model
from training.common.text import figure_text, markdown_table

MAX_BYTES = 12 * 10**6


def package(model: str, output: Path) -> int:
    """Write the files of the package's model from a model folder; returns the size of the weights in bytes.

    Raises:
        ValueError: the config does not say how the model was trained, or the weights exceed `MAX_BYTES`.
    """
    loaded, processor = initial_model(model)
    if not loaded.config.get_provenance().runs:
        raise ValueError(f"--model '{model}' has no training runs in its config; pass a folder that a stage wrote.")
    kept = tuple(loaded._keep_in_fp32_modules_strict)
    state = {
        name: value.to(torch.float32 if name.startswith(kept) else torch.bfloat16).contiguous()
        for name, value in loaded.state_dict().items()
    }
    size = sum(value.numel() * value.element_size() for value in state.values())
    if size > MAX_BYTES:
        raise ValueError(f"--model '{model}': {size} bytes of weights exceed {MAX_BYTES}; train a smaller model.")
    loaded.config.dtype = torch.float32  # the dtype of computation, on any machine
    tokens = processor.tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    with tempfile.TemporaryDirectory() as folder, whole_files(output) as partial:
        save_file(state, partial / "model.safetensors", metadata={"format": "pt"})
        write_text(partial / "vocab.txt", "\n".join(sorted(tokens, key=tokens.get)) + "\n")
        loaded.config.to_json_file(Path(folder) / "config.json")
        processor.save_pretrained(folder)
        for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
            write_json(partial / name, without_code(read_json(Path(folder) / name)))
    return size


def without_code(content: Any) -> Any:
    """The content of a model's JSON file without `auto_map`: the code of the small model is the package itself."""
    if not isinstance(content, dict):
        return content
    return {name: without_code(value) for name, value in content.items() if name != "auto_map"}


def results_table(figures: dict[str, Any]) -> str:
    """The results table of `docs/small_model.md`, from metrics.json of `training.evaluate --prompt_swap`."""
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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder that stage 3 wrote")
    parser.add_argument("--output", type=Path, default=SHIPPED_FOLDER, help="default: the folder in the package")
    return parser


@exits_with_status("package_small")
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    print(f"wrote {package(arguments.model, arguments.output):,} bytes of weights to '{arguments.output}'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
