"""Write the complete Hub repository of a model into a new folder, which appears only if it passes the checks."""

import dataclasses
import importlib.metadata
import re
import shutil
from pathlib import Path

from modeling_aigcvqa import AIGCVQAPipeline, load_pipeline
from modeling_aigcvqa.common.files import check_new_folder, read_json, whole_folder, write_json
from modeling_aigcvqa.common.manifests import file_column, read_manifest
from modeling_aigcvqa.common.presets import save_model_folder
from modeling_aigcvqa.conversion.assemble import REPORT, public_address
from modeling_aigcvqa.loading.load import NAMES, model_source

from .card import Facts, make_card
from .checks import ExportError, check_repository, files_of

REPOSITORY = Path(__file__).resolve().parents[2]
HANDLER = Path(__file__).with_name("endpoint_handler.py")
COMMAND_LINE_ONLY = ("rich",)  # dependencies that no shipped file imports
HUB_SNIPPETS = ("accelerate",)  # extras that the snippets on the Hub's page of a model need
MAX_EXAMPLES, MAX_EXAMPLE_BYTES = 5, 10 * 2**20


def export(model: str, output: Path, facts: Facts, examples: Path | None = None) -> dict[str, int]:
    """Write the repository of a model into the new folder `output`, and check it.

    Args:
        model: a folder, or a name that `load_pipeline` knows: "small", "free" or "dover".
        facts: what the model's config does not know. `conversion` and `examples` are filled here.
        examples: manifest of clips to ship.

    Returns:
        The size of every file in bytes, by its path in the folder.

    Raises:
        ExportError: a check failed; `output` is then not written.
        ValueError: the folder does not hold a model, or published weights cannot be fetched.
    """
    check_new_folder(output)
    source = Path(model_source(model))
    if not source.is_dir():
        raise ExportError(
            f"--model '{model}' is not a folder; pass one that training or a conversion wrote, or one of {list(NAMES)}."
        )
    scorer = load_pipeline(str(source), device="cpu")
    provenance = scorer.model.config.get_provenance()
    if facts.watts is not None and not provenance.runs:
        raise ExportError(f"--watts needs the time of training, but config.json of '{model}' names no training runs.")
    if facts.license:
        scorer.model.config.set_provenance(dataclasses.replace(provenance, license=facts.license))
    elif not provenance.known:
        raise ExportError(
            f"config.json of '{model}' does not say where its weights come from, so their licence is not known; state "
            "it with --license."
        )
    if (source / REPORT).is_file():
        facts.conversion = [
            {**entry, "source": public_address(entry["source"])} for entry in read_json(source / REPORT)
        ]
    with whole_folder(output) as folder:
        write_repository(scorer, folder, facts, examples)
        problems = check_repository(folder)
        if problems:
            raise ExportError("the exported folder failed its checks:\n" + "\n".join(f"- {p}" for p in problems))
    return {str(file.relative_to(output)): file.stat().st_size for file in files_of(output)}


def write_repository(scorer: AIGCVQAPipeline, folder: Path, facts: Facts, examples: Path | None = None) -> None:
    """Write every file of the repository; the code is that of the installed package, not of the model's folder."""
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
    """The dependencies of the package, without the ones that only its command line needs, and accelerate.

    The Hub shows `AutoModel.from_pretrained(..., device_map="auto")`, which needs accelerate.
    """
    declared = [line.partition(";") for line in importlib.metadata.requires("aigcvqa") or []]
    lines = [
        f"{line}{separator}{marker}" if "extra ==" not in marker else line
        for line, separator, marker in declared
        if ("extra ==" not in marker and _project(line) not in COMMAND_LINE_ONLY) or _project(line) in HUB_SNIPPETS
    ]
    return sorted(set(lines))


def _project(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0]


def copy_examples(manifest: Path, folder: Path, repo_id: str) -> list[dict[str, str]]:
    """Copy the clips of a manifest into `examples/`; returns the entries of the card's `widget`.

    Raises:
        ExportError: there are too many clips, or a clip is missing, too large or without a prompt.
    """
    rows = list(read_manifest(manifest))
    if len(rows) > MAX_EXAMPLES:
        raise ExportError(f"--examples '{manifest}' lists {len(rows)} clips; list at most {MAX_EXAMPLES}.")
    (folder / "examples").mkdir()
    examples = []
    for row in rows:
        clip = manifest.parent / row[file_column(row)]
        if not clip.is_file() or clip.suffix not in (".mp4", ".gif"):
            raise ExportError(
                f"--examples '{manifest}': '{clip}' is not an mp4 or gif file; examples play in a browser."
            )
        if clip.stat().st_size > MAX_EXAMPLE_BYTES:
            raise ExportError(
                f"--examples '{manifest}': '{clip}' exceeds {MAX_EXAMPLE_BYTES} bytes; choose a smaller clip."
            )
        if not row.get("prompt"):
            raise ExportError(f"--examples '{manifest}': '{clip.name}' has no prompt; add one.")
        shutil.copyfile(clip, folder / "examples" / clip.name)
        address = f"https://huggingface.co/{repo_id}/resolve/main/examples/{clip.name}"
        examples.append({"src": address, "text": row["prompt"]})
    return examples
