"""Publish a model: `python -m training.export_hub --model DIR --output DIR [--push_to owner/name]`.

Writes the complete Hub repository into a new folder: weights, config, processor, tokenizer, code, pipeline, model card
(`model_card.md` filled in), `handler.py` and `requirements.txt` for Inference Endpoints, licences. Then checks it
offline: the card, the classes that the configs name, and in a fresh process, with none of our packages importable, that
everything loads and scores. Without `--push_to` that is all, a dry run: nothing leaves the machine.
"""

import argparse
import ast
import importlib.metadata
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from modeling_aigcvqa.cli import file_column, read_manifest
from modeling_aigcvqa.loading import SHIPPED, SHIPPED_FOLDER, load_pipeline
from modeling_aigcvqa.pipeline_aigcvqa import AIGCVQAPipeline
from modeling_aigcvqa.presets import save_model_folder
from training.hub_card import Facts, check_card, hours, make_card, own_metrics, read_json

REPOSITORY = Path(__file__).resolve().parents[1]
HANDLER = Path(__file__).with_name("endpoint_handler.py")
FRESH_PROCESS_CHECK = Path(__file__).with_name("fresh_process_check.py")
COMMAND_LINE_ONLY = ("rich",)  # dependencies that no shipped file imports
SUFFIXES = {".json", ".py", ".md", ".txt", ".safetensors", ".mp4", ".gif", ""}
MAX_FILE_BYTES = 50 * 10**9  # of the Hub
MAX_EXAMPLES, MAX_EXAMPLE_BYTES = 5, 10 * 2**20
REPLACED_BY_AN_UPDATE = ["*.py", "*.json", "*.safetensors", "examples/*"]


class ExportError(ValueError):
    """What keeps a model from being published, with the remedy."""


def export(model: str, output: Path, facts: Facts, examples: Path | None = None) -> list[dict[str, Any]]:
    """Write and check the repository of `model` (a folder, or the small model's name) in the new folder `output`.

    Returns:
        Its files, {"file", "bytes"}.

    Raises:
        ExportError: for what the checks find; `output` is then not there.
        ValueError: for a folder that holds no model.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ExportError(f"--output '{output}' exists and is not empty; name a new folder.")
    if model != SHIPPED and not Path(model).is_dir():
        raise ExportError(
            f"--model '{model}' is no folder; pass one that training or a conversion wrote, or {SHIPPED!r}."
        )
    scorer = load_pipeline(model, device="cpu")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        write_repository(scorer, temporary, facts, examples)
        problems = check_repository(temporary)
        if problems:
            raise ExportError("the exported folder failed its checks:\n" + "\n".join(f"- {p}" for p in problems))
        temporary.chmod(0o755)
        if output.exists():
            output.rmdir()
        temporary.rename(output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return sizes(output)


def write_repository(scorer: AIGCVQAPipeline, folder: Path, facts: Facts, examples: Path | None = None) -> None:
    """Every file of the repository; the code is the installed package's, not that of the model's folder."""
    save_model_folder(scorer.model, scorer.processor, folder)
    shutil.copyfile(HANDLER, folder / "handler.py")
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    for name in ("LICENSE", "NOTICE"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    if facts.sources:
        (folder / "conversion.json").write_text(json.dumps(facts.sources, indent=2), encoding="utf-8")
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


def check_repository(folder: Path) -> list[str]:
    """What is wrong with an exported folder; empty if nothing. Needs no network."""
    problems = check_card((folder / "README.md").read_text(encoding="utf-8"))
    problems += check_files(folder)
    problems += check_classes(folder)
    return problems or check_in_fresh_process(folder)


def check_files(folder: Path) -> list[str]:
    """Files that do not belong there, are empty or too large, or cannot be parsed."""
    problems = []
    for file in files_of(folder):
        name = file.relative_to(folder)
        if file.suffix not in SUFFIXES or file.name.startswith("."):
            problems.append(f"{name}: a file of this kind does not belong into the repository")
        if not 0 < file.stat().st_size <= MAX_FILE_BYTES:
            problems.append(f"{name}: {file.stat().st_size} bytes, outside 1..{MAX_FILE_BYTES}")
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".py":
                ast.parse(file.read_text(encoding="utf-8"))
        except (ValueError, SyntaxError) as error:
            problems.append(f"{name}: cannot be parsed ({error})")
    return problems


def check_classes(folder: Path) -> list[str]:
    """The classes that `auto_map` and the custom pipeline name must be defined in the files that they name."""
    named = []
    for file in ("config.json", "processor_config.json"):
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        if not content.get("auto_map"):
            return [f"{file}: no auto_map, so AutoClasses find no code"]
        named += [(file, name) for name in content["auto_map"].values()]
        named += [(file, custom["impl"]) for custom in content.get("custom_pipelines", {}).values()]
    problems = []
    for file, name in named:
        module, _, class_name = name.rpartition(".")
        code = folder / f"{module}.py"
        body = ast.parse(code.read_text(encoding="utf-8")).body if code.is_file() else []
        if not any(isinstance(node, ast.ClassDef) and node.name == class_name for node in body):
            problems.append(f"{file}: names {name}, which is not there")
    return problems


def check_in_fresh_process(folder: Path) -> list[str]:
    """Load and score in a process that knows the folder and the published libraries alone."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "AIGCVQA_"))}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": scratch}
        result = subprocess.run(
            [sys.executable, "-I", str(FRESH_PROCESS_CHECK), str(folder.resolve())],
            cwd=scratch, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
    if result.returncode != 0:
        said = result.stderr.strip()[-2000:] or "it said nothing; a negative status is the signal that ended it"
        return [f"the folder does not load in a fresh process (exit status {result.returncode}): {said}"]
    found = json.loads(result.stdout.strip().splitlines()[-1])
    unused = sorted({file.stem for file in folder.glob("*.py")} - set(found["modules"]))
    problems = [f"{name}.py: nothing imports it" for name in unused]
    if found["wrong_keys"]:
        problems.append(f"weights: missing, unknown or of another shape: {found['wrong_keys'][:3]}")
    return problems + disagreements(found["scores"])


def disagreements(scores: dict[str, dict[str, float]]) -> list[str]:
    """Where the ways of scoring one clip give different scores; {way: {score: value}}."""
    first, *others = scores
    return [
        f"{other} gives {scores[other]}, {first} gives {scores[first]}"
        for other in others
        if scores[other].keys() != scores[first].keys()
        or any(not math.isclose(scores[other][n], v, rel_tol=1e-3, abs_tol=1e-3) for n, v in scores[first].items())
    ]


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def sizes(folder: Path) -> list[dict[str, Any]]:
    return [{"file": str(file.relative_to(folder)), "bytes": file.stat().st_size} for file in files_of(folder)]


def push(
    folder: Path,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    update: bool = False,
    endpoint: str | None = None,
) -> str:
    """Upload an exported folder; the address of the commit.

    Args:
        private: whether a new repository is private.
        revision: branch, made where it does not exist; None for main.
        update: commit to a repository that exists (files of an earlier export that are gone are deleted) instead of
            making one.
        endpoint: of the Hub; None for `HF_ENDPOINT` or the public one.

    Raises:
        ExportError: no token, no network, no right to write, a repository that exists (or, with `update`, does not).
    """
    if get_token() is None:
        raise ExportError("there is no Hub token; run `hf auth login` or set HF_TOKEN to a token that may write.")
    api = HfApi(endpoint=endpoint)
    try:
        if update:
            api.repo_info(repo_id)
        else:
            api.create_repo(repo_id, private=private)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message="Upload AIGC-VQA",
            delete_patterns=REPLACED_BY_AN_UPDATE if update else None,
        )
    except OfflineModeIsEnabled as error:
        raise ExportError("HF_HUB_OFFLINE forbids the network; unset it to push.") from error
    except HfHubHTTPError as error:
        raise ExportError(explain(error, repo_id)) from error
    except (HTTPError, OSError) as error:
        raise ExportError(f"the Hub at {api.endpoint} cannot be reached ({error}); check the network.") from error
    return commit.commit_url


def explain(error: HfHubHTTPError, repo_id: str) -> str:
    """What an answer of the Hub means for the publisher."""
    status = error.response.status_code
    reasons = {
        401: "the Hub does not know the token; run `hf auth login`.",
        403: f"the token may not write to '{repo_id}'; take one with write access to its owner.",
        404: f"there is no repository '{repo_id}' that the token can see; leave --update out to make it.",
        409: f"the repository '{repo_id}' exists; pass --update to commit to it, or name another.",
    }
    return reasons.get(status, f"the Hub refused ({status}): {error}")


def find_provenance(model: Path, stated_license: str | None = None) -> tuple[list[dict], list[dict]]:
    """Sources (conversion.json) and training runs (training.json) of a model, back to the folder that all began with.

    Raises:
        ExportError: where that chain is broken, so that nobody knows the licences, and none is stated.
    """
    runs: list[dict] = []
    if model == Path(SHIPPED):
        return [], shipped_runs()
    while (model / "training.json").is_file():
        runs.insert(0, read_json(model / "training.json"))
        start = runs[0]["arguments"].get("init_from")
        if start == SHIPPED:
            return [], shipped_runs() + runs
        if start is None:
            return [], runs
        if not Path(start).is_dir():
            if stated_license is None:
                raise ExportError(
                    f"'{model}' was trained from '{start}', which is not there, so the licences of its weights are not "
                    "known; bring the folder back or state the licence with --license."
                )
            return [], runs
        model = Path(start)
    sources = read_json(model / "conversion.json") if (model / "conversion.json").is_file() else []
    return [{**source, "source": public_address(source["source"])} for source in sources], runs


def shipped_runs() -> list[dict]:
    """The records of the model inside the package, which started from random weights."""
    return read_json(SHIPPED_FOLDER / "training.json")["runs"]


def public_address(source: str) -> str:
    """Where weights came from, without the folders of this machine."""
    return source if source.startswith(("hub:", "https://")) else Path(source).name


def gather_facts(arguments: argparse.Namespace) -> Facts:
    sources, runs = find_provenance(Path(arguments.model), arguments.license)
    facts = Facts(sources=sources, runs=runs, hardware=arguments.hardware, license=arguments.license)
    if arguments.push_to:
        facts.repo_id = arguments.push_to
    results = arguments.results
    if arguments.model == SHIPPED and not results:
        results = [SHIPPED_FOLDER / "metrics.json"]
    facts.evaluations = [read_evaluation(path, Path(arguments.model)) for path in results]
    if arguments.watts is not None:
        if not runs:
            raise ExportError("--watts needs the time of training, and the model's folder has no training.json.")
        facts.emissions_g = sum(map(hours, runs)) * arguments.watts / 1000 * arguments.grams_per_kwh
    return facts


def read_evaluation(path: Path, model: Path) -> dict[str, Any]:
    """metrics.json of `training.evaluate`, if it is about this model."""
    evaluation = read_json(path)
    if not isinstance(evaluation, dict) or not isinstance(evaluation.get("metrics"), dict):
        raise ExportError(f"--results '{path}' has no 'metrics'; pass metrics.json of training.evaluate.")
    measured = evaluation.get("model")
    if not own_metrics(evaluation) or evaluation.get("baseline"):
        raise ExportError(f"--results '{path}' holds no figures of an AIGC-VQA model's own scores.")
    if measured and Path(measured).exists() and Path(measured).resolve() != model.resolve():
        raise ExportError(
            f"--results '{path}' measures '{measured}', not '{model}'; evaluate the model that you export."
        )
    return evaluation


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.export_hub", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default=SHIPPED, help=f"folder of the model (default: {SHIPPED}, in the package)")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument(
        "--results", type=Path, nargs="*", default=[], metavar="FILE", help="metrics.json of training.evaluate"
    )
    parser.add_argument(
        "--examples", type=Path, metavar="MANIFEST", help="CSV or JSONL with file,prompt: clips to ship"
    )
    parser.add_argument("--license", help="Hub's name of the weights' licence, where their sources are not known")
    parser.add_argument("--hardware", help="what the model was trained on, for the card")
    parser.add_argument("--watts", type=float, help="power of the training machine; with it the card gives the CO2")
    parser.add_argument("--grams_per_kwh", type=float, help="carbon intensity of the electricity")
    parser.add_argument("--push_to", metavar="OWNER/NAME", help="Hub repository to make; without it: a dry run")
    parser.add_argument("--private", action="store_true", help="make it private")
    parser.add_argument("--revision", help="branch to push to (default: main)")
    parser.add_argument("--update", action="store_true", help="commit to a repository that exists")
    return parser


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse before anything is written what could only fail after it."""
    if (arguments.watts is None) != (arguments.grams_per_kwh is None):
        raise ExportError("--watts and --grams_per_kwh go together.")
    if not arguments.push_to:
        if arguments.private or arguments.revision or arguments.update:
            raise ExportError("--private, --revision and --update go with --push_to.")
        return
    if arguments.push_to.count("/") != 1:
        raise ExportError(f"--push_to {arguments.push_to!r}: expected owner/name.")
    try:
        validate_repo_id(arguments.push_to)
    except HFValidationError as error:
        raise ExportError(f"--push_to {arguments.push_to!r}: {error}") from error
    if arguments.private and arguments.update:
        raise ExportError("--private is for a new repository; with --update the old one stays as it is.")


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        check_arguments(arguments)
        files = export(arguments.model, arguments.output, gather_facts(arguments), arguments.examples)
        for entry in files:
            print(f"{entry['bytes']:>14,}  {entry['file']}")
        print(f"{sum(entry['bytes'] for entry in files):>14,}  in all. Checked; wrote '{arguments.output}'.")
        if not arguments.push_to:
            print("Nothing was pushed; --push_to owner/name does that.")
            return 0
        print(push(arguments.output, arguments.push_to, arguments.private, arguments.revision, arguments.update))
    except ValueError as error:
        print(f"export_hub: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
