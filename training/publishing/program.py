"""Publish a model: `python -m training.export_hub --model DIR --output DIR [--push_to owner/name]`.

Writes the complete Hub repository into a new folder: weights, config, processor, tokenizer, code, pipeline, model card,
`handler.py` and `requirements.txt` for Inference Endpoints, licences. Then checks it offline: the card, the classes
that the configs name, and in a fresh process, with none of our packages importable, that everything loads and scores.
Without `--push_to` that is all, a dry run: nothing leaves the machine.
"""

import argparse
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import read_json
from modeling_aigcvqa.conversion.assemble import REPORT, public_address
from modeling_aigcvqa.loading import SHIPPED, SHIPPED_FOLDER

from .card import Facts, own_metrics
from .checks import ExportError
from .push import push
from .repository import export


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


def gather_facts(arguments: argparse.Namespace) -> Facts:
    """What the command line and the files that it names say of the model."""
    folder = Path(arguments.model)
    results = arguments.results
    if arguments.model == SHIPPED and not results:
        results = [SHIPPED_FOLDER / "metrics.json"]
    conversion = read_json(folder / REPORT) if (folder / REPORT).is_file() else []
    facts = Facts(
        conversion=[{**source, "source": public_address(source["source"])} for source in conversion],
        evaluations=[read_evaluation(path, folder) for path in results],
        license=arguments.license,
        hardware=arguments.hardware,
        watts=arguments.watts,
        grams_per_kwh=arguments.grams_per_kwh,
    )
    if arguments.push_to:
        facts.repo_id = arguments.push_to
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


@exits_with_status("export_hub")
def main(argv: list[str] | None = None) -> int:
    """0 if the folder was written (and pushed, where asked for), 2 for what keeps it from that."""
    arguments = build_parser().parse_args(argv)
    check_arguments(arguments)
    files = export(arguments.model, arguments.output, gather_facts(arguments), arguments.examples)
    for entry in files:
        print(f"{entry['bytes']:>14,}  {entry['file']}")
    print(f"{sum(entry['bytes'] for entry in files):>14,}  in all. Checked; wrote '{arguments.output}'.")
    if arguments.push_to:
        print(push(arguments.output, arguments.push_to, arguments.private, arguments.revision, arguments.update))
    else:
        print("Nothing was pushed; --push_to owner/name does that.")
    return 0
