"""Write the complete Hub repository of a model into a new folder, checked before it appears."""

import dataclasses
import importlib.metadata
import re
import shutil
from pathlib import Path
from typing import Any

from modeling_aigcvqa import AIGCVQAPipeline, load_pipeline
from modeling_aigcvqa.common.files import check_new_folder, whole_folder, write_json
from modeling_aigcvqa.common.manifests import file_column, read_manifest
from modeling_aigcvqa.common.presets import save_model_folder
from modeling_aigcvqa.conversion.assemble import REPORT
from modeling_aigcvqa.loading import SHIPPED

from .card import Facts, make_card
from .checks import ExportError, check_repository, sizes

REPOSITORY = Path(__file__).resolve().parents[2]
HANDLER = Path(__file__).with_name("endpoint_handler.py")
COMMAND_LINE_ONLY = ("rich",)  # dependencies that no shipped file imports
MAX_EXAMPLES, MAX_EXAMPLE_BYTES = 5, 10 * 2**20


def export(model: str, output: Path, facts: Facts, examples: Path | None = None) -> list[dict[str, Any]]:
    """Write and check the repository of `model` (a folder, or the small model's name) in the new folder `output`.

    Returns:
        Its files, {"file", "bytes"}.

    Raises:
        ExportError: for what the checks find; `output` is then not there.
        ValueError: for a folder that holds no model.
    """
    check_new_folder(output)
    if model != SHIPPED and not Path(model).is_dir():
        raise ExportError(
            f"--model '{model}' is no folder; pass one that training or a conversion wrote, or {SHIPPED!r}."
        )
    scorer = load_pipeline(model, device="cpu")
    provenance = scorer.model.config.get_provenance()
    if facts.watts is not None and not provenance.runs:
        raise ExportError(f"--watts needs the time of training, and config.json of '{model}' names no training runs.")
    if facts.license:
        scorer.model.config.set_provenance(dataclasses.replace(provenance, license=facts.license))
    elif not provenance.known:
        raise ExportError(
            f"config.json of '{model}' does not say where its weights are from, so their licence is not known; state "
            "it with --license."
        )
    with whole_folder(output) as folder:
        write_repository(scorer, folder, facts, examples)
        problems = check_repository(folder)
        if problems:
            raise ExportError("the exported folder failed its checks:\n" + "\n".join(f"- {p}" for p in problems))
    return sizes(output)


def write_repository(scorer: AIGCVQAPipeline, folder: Path, facts: Facts, examples: Path | None = None) -> None:
    """Every file of the repository; the code is the installed package's, not that of the model's folder."""
    save_model_folder(scorer.model, scorer.processor, folder)
    shutil.copyfile(HANDLER, folder / "handler.py")
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    for name in ("LICENSE", "NOTICE"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    if facts.conversion:
        write_json(folder / REPORT, facts.conversion)
    if examples is not None:
        facts.examples = copy_examples(examples, folder, facts.repo_id)
    (folder / "README.md").write_text(f"{make_card(scorer, facts)}\n", encoding="utf-8")


def requirements() -> list[str]:
    """The package's own dependencies, without those of the command line alone."""
    lines = [line for line in importlib.metadata.requires("aigcvqa") or [] if "extra ==" not in line]
    return sorted(line for line in lines if re.split(r"[^\w-]", line)[0] not in COMMAND_LINE_ONLY)


def copy_examples(manifest: Path, folder: Path, repo_id: str) -> list[dict[str, str]]:
    """The clips of a manifest into `examples/`; what the card's `widget` says of them.

    Raises:
        ExportError: for clips that are missing, too many or too large, or without a prompt.
    """
    rows = list(read_manifest(manifest))
    if len(rows) > MAX_EXAMPLES:
        raise ExportError(f"--examples '{manifest}' has {len(rows)} clips; name at most {MAX_EXAMPLES}.")
    (folder / "examples").mkdir()
    examples = []
    for row in rows:
        clip = manifest.parent / row[file_column(row)]
        if not clip.is_file() or clip.suffix not in (".mp4", ".gif"):
            raise ExportError(f"--examples '{manifest}': '{clip}' is no mp4 or gif; examples play in a browser.")
        if clip.stat().st_size > MAX_EXAMPLE_BYTES:
            raise ExportError(
                f"--examples '{manifest}': '{clip}' exceeds {MAX_EXAMPLE_BYTES} bytes; take a smaller one."
            )
        if not row.get("prompt"):
            raise ExportError(f"--examples '{manifest}': '{clip.name}' has no prompt.")
        shutil.copyfile(clip, folder / "examples" / clip.name)
        address = f"https://huggingface.co/{repo_id}/resolve/main/examples/{clip.name}"
        examples.append({"src": address, "text": row["prompt"]})
    return examples
