"""Publish a model: `python -m training.export_hub --model DIR --output DIR [--push_to owner/name]`.

Writes the complete Hub repository into a new folder: weights, config, processor, tokenizer, code, pipeline, model card,
licences, and `handler.py` and `requirements.txt` for Inference Endpoints. The folder is then checked offline: the card,
the classes that the configs name, and, in a fresh process that cannot import this package, that everything loads and
scores. Without `--push_to` this is a dry run: nothing leaves the machine.
"""

import argparse
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from modeling_aigcvqa.common.choices import SHIPPED, SHIPPED_FOLDER
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import read_json
from modeling_aigcvqa.loading.identity import digest_of_model
from modeling_aigcvqa.loading.load import NAMES, model_source

from .card import Facts, own_metrics
from .checks import ExportError
from .push import push
from .repository import export


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.export_hub", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--model", default=SHIPPED, help=f"model folder, or one of {', '.join(NAMES)}; default: {SHIPPED}"
    )
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument(
        "--results", type=Path, nargs="*", default=[], metavar="FILE", help="metrics.json files of training.evaluate"
    )
    parser.add_argument("--probes", type=Path, metavar="FILE", help="probes.json of aigcvqa probe, for the card")
    parser.add_argument(
        "--examples",
        type=Path,
        metavar="MANIFEST",
        help="CSV or JSONL file of clips to ship, with the columns file and prompt",
    )
    parser.add_argument(
        "--license", help="the Hub's name of the weights' licence; needed if the sources of the weights are not known"
    )
    parser.add_argument("--hardware", help="machine that the model was trained on, for the card")
    parser.add_argument("--watts", type=float, help="power of that machine; the card then states the CO2 emissions")
    parser.add_argument(
        "--grams_per_kwh", type=float, help="carbon intensity of its electricity, in grams of CO2 per kWh"
    )
    parser.add_argument("--push_to", metavar="OWNER/NAME", help="Hub repository to create; without it: a dry run")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--revision", help="branch to push to (default: main)")
    parser.add_argument("--update", action="store_true", help="commit to a repository that exists already")
    return parser


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse wrong combinations before anything is written."""
    if (arguments.watts is None) != (arguments.grams_per_kwh is None):
        raise ExportError("--watts and --grams_per_kwh go together; pass both or neither.")
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


def gather_facts(arguments: argparse.Namespace) -> Facts:
    """What the command line, and the files that it names, say about the model."""
    shipped = [SHIPPED_FOLDER / "metrics.json"] if arguments.model == SHIPPED else []
    probes = arguments.probes or (SHIPPED_FOLDER / "probes.json" if arguments.model == SHIPPED else None)
    return Facts(
        repo_id=arguments.push_to or Facts.repo_id,
        evaluations=[read_evaluation(path, Path(arguments.model)) for path in arguments.results or shipped],
        probes=read_probes(probes, arguments.model) if probes else None,
        license=arguments.license,
        hardware=arguments.hardware,
        watts=arguments.watts,
        grams_per_kwh=arguments.grams_per_kwh,
    )


def read_evaluation(path: Path, model: Path) -> dict[str, Any]:
    """Read metrics.json of `training.evaluate`; refuse figures of another model."""
    evaluation = read_json(path)
    if not isinstance(evaluation, dict) or not isinstance(evaluation.get("metrics"), dict):
        raise ExportError(f"--results '{path}' has no 'metrics'; pass metrics.json of training.evaluate.")
    measured = evaluation.get("model")
    if not own_metrics(evaluation) or evaluation.get("baseline"):
        raise ExportError(
            f"--results '{path}' has no figures of an AIGC-VQA model's own scores; evaluate the model that you export."
        )
    known = measured in NAMES or Path(measured or "").exists()
    if measured and known and Path(measured).resolve() != model.resolve():
        raise ExportError(
            f"--results '{path}' measures '{measured}', not '{model}'; evaluate the model that you export."
        )
    return evaluation


def read_probes(path: Path, model: str) -> dict[str, Any]:
    """Read probes.json of `aigcvqa probe`; refuse the probes of another model."""
    probes = read_json(path)
    if not isinstance(probes, dict) or "rows" not in probes or "model_sha256" not in probes:
        raise ExportError(f"--probes '{path}' has no 'rows'; pass probes.json of aigcvqa probe.")
    if probes["model_sha256"] != digest_of_model(model_source(model)):
        raise ExportError(f"--probes '{path}' is of other weights than '{model}'; probe the model that you export.")
    return probes


@exits_with_status("export_hub")
def main(argv: list[str] | None = None) -> int:
    """Exit status 0 if the folder was written (and pushed, with --push_to), 2 after an error."""
    arguments = build_parser().parse_args(argv)
    check_arguments(arguments)
    files = export(arguments.model, arguments.output, gather_facts(arguments), arguments.examples)
    for name, size in files.items():
        print(f"{size:>14,}  {name}")
    print(f"{sum(files.values()):>14,}  in total. Checked; wrote '{arguments.output}'.")
    if arguments.push_to:
        print(push(arguments.output, arguments.push_to, arguments.private, arguments.revision, arguments.update))
    else:
        print("Nothing was pushed; pass --push_to owner/name to push.")
    return 0
