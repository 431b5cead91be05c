"""Fill the template of the model card with what is known about a model, and check a card."""

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import validate_repo_id

from modeling_aigcvqa.pipeline_aigcvqa import SCORES, AIGCVQAPipeline
from modeling_aigcvqa.provenance_aigcvqa import Provenance, Source
from training.common.probes import probe_rows
from training.common.text import figure_text

TEMPLATE = Path(__file__).with_name("card_template.md")
NAME = "AIGC-VQA"
TAGS = ["video-quality-assessment", "text-to-video", "aigc", "custom_code"]
METRIC_IDS = {"srocc": "spearmanr", "plcc": "pearsonr"}  # names in `evaluate`, where they differ
CARD_METRICS = ("srocc", "plcc", "krocc", "rmse")
FULL_SIZE = 10**8  # parameters; the cards of larger models show the speed table
NON_COMMERCIAL = {
    "license": "other",
    "license_name": "s-lab-1.0-non-commercial",
    "license_link": "https://github.com/VQAssessment/DOVER/blob/master/LICENSE",
}
# The metadata fields that our cards may have, and their types. The Hub knows all of them.
TEXTS = ("license", "license_name", "license_link", "library_name", "pipeline_tag", "language")
LISTS = ("tags", "datasets", "base_model", "metrics", "widget", "model-index")
FIELDS = {**dict.fromkeys(TEXTS, str), **dict.fromkeys(LISTS, list), "co2_eq_emissions": dict}
REQUIRED = ("license", "library_name", "pipeline_tag", "tags")


@dataclass
class Facts:
    """Facts for the card that the model's config does not know; given by the publisher or measured, never guessed."""

    repo_id: str = "OWNER/NAME"
    conversion: list[dict[str, Any]] = field(default_factory=list)  # conversion.json of a converted folder
    evaluations: list[dict[str, Any]] = field(default_factory=list)  # metrics.json of training.evaluate
    examples: list[dict[str, str]] = field(default_factory=list)  # {"src", "text"}
    probes: dict[str, Any] | None = None  # probes.json of `aigcvqa probe`
    license: str | None = None  # as stated by the publisher
    hardware: str | None = None
    watts: float | None = None
    grams_per_kwh: float | None = None

    def emissions_g(self, provenance: Provenance) -> float | None:
        """Grams of CO2 of all training runs; None if power or carbon intensity is not given."""
        if self.watts is None or self.grams_per_kwh is None:
            return None
        return sum(run.seconds for run in provenance.runs) / 3600 * self.watts / 1000 * self.grams_per_kwh


def shown_probes(probes: dict[str, Any]) -> dict[str, Any]:
    """The rows of probes that are not good, and the titles of those that are."""
    rows = probe_rows(probes)
    good = [title for title, _, verdict in rows if verdict == "good"]
    return {"clips": probes["clips"], "rows": [row for row in rows if row[2] != "good"], "good": good}


def make_card(scorer: AIGCVQAPipeline, facts: Facts) -> ModelCard:
    """The card of the model in `scorer`."""
    config = scorer.model.config
    provenance = config.get_provenance()
    parameters = scorer.model.num_parameters()
    values = {
        "repo_id": facts.repo_id,
        "branches": ", ".join(config.branches),
        "parameters": f"{parameters / 1e6:.1f} M",
        "full_size": parameters > FULL_SIZE,
        "simulated": bool(provenance.runs) and all(run.simulated for run in provenance.runs),
        "weights": config.weights_note or "There is no caveat about the weights.",
        "sources": provenance.sources,
        "conversion": facts.conversion,
        "non_commercial": not provenance.commercial_use,
        "training": training_table(provenance, facts),
        "metrics": [name.upper() for name in CARD_METRICS],
        "results": [row for evaluation in facts.evaluations for row in result_rows(evaluation)],
        "probes": facts.probes and shown_probes(facts.probes),
        "about_scale": config.about_scale,
        "interval": config.quality_interval,
        "max_prompt_tokens": scorer.processor.tokenizer.model_max_length,
        "license_sentence": license_sentence(provenance),
    }
    return ModelCard.from_template(card_data(provenance, facts), template_path=str(TEMPLATE), **values)


def card_data(provenance: Provenance, facts: Facts) -> ModelCardData:
    """The metadata that the Hub reads."""
    results = [result for evaluation in facts.evaluations for result in eval_results(evaluation)]
    extra: dict[str, Any] = {}
    if facts.examples:
        extra["widget"] = [{**example, "example_title": example["text"][:60]} for example in facts.examples]
    emissions = facts.emissions_g(provenance)
    if emissions is not None:
        extra["co2_eq_emissions"] = {
            "emissions": round(emissions, 1),
            "source": "training time x power x carbon intensity; power and intensity as given by the publisher",
            "training_type": "fine-tuning" if provenance.sources else "pre-training",
            **({"hardware_used": facts.hardware} if facts.hardware else {}),
        }
    free = {"license": provenance.license or "apache-2.0"}
    return ModelCardData(
        **(free if provenance.commercial_use else NON_COMMERCIAL),
        library_name="transformers",
        pipeline_tag="video-classification",
        language="en",
        tags=TAGS,
        base_model=base_models(provenance.sources) or None,
        datasets=sorted({run.data for run in provenance.runs if is_hub_id(run.data)}) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=NAME if results else None,
        eval_results=results or None,
        **extra,
    )


def base_models(sources: list[Source]) -> list[str]:
    """The Hub ids of the sources that come from the Hub."""
    hub = [source.address.removeprefix("hub:") for source in sources if source.address.startswith("hub:")]
    return sorted({"/".join(address.split("/")[:2]).split("@")[0] for address in hub})


def is_hub_id(name: Any) -> bool:
    if not isinstance(name, str) or name.count("/") != 1 or Path(name).exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def license_sentence(provenance: Provenance) -> str:
    if not provenance.commercial_use:
        return "The weights are for non-commercial use only, because a source of them is."
    if provenance.license:
        return f"The licence of the weights is {provenance.license}."
    if provenance.sources:
        return "The sources of the weights have the licences named above, which all allow any use."
    return "The weights have the same licence."


def dataset_name(data: Any) -> str:
    """A Hub id as it is, or the last part of a path: the card shows no path of a machine."""
    return data if is_hub_id(data) else Path(str(data or "unknown")).name


def own_metrics(evaluation: dict[str, Any]) -> dict[str, dict]:
    """The figures of the model's own scores, without those of other predictions in the same evaluation."""
    return {score: metrics for score, metrics in evaluation["metrics"].items() if score in SCORES}


def result_rows(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the card's table: one row per score, with the metrics that papers print."""
    split = Path(evaluation.get("split_file") or "").stem
    common = {
        "data": f"{dataset_name(evaluation.get('data'))}{f', split {split}' if split else ''}",
        "part": evaluation.get("part") or "all",
        "num_clips": evaluation.get("num_clips", ""),
    }
    return [
        {**common, "score": score, "figures": [figure_text(metrics.get(name)) for name in CARD_METRICS]}
        for score, metrics in own_metrics(evaluation).items()
    ]


def eval_results(evaluation: dict[str, Any]) -> list[EvalResult]:
    """The entries of the Hub's `model-index`."""
    data = dataset_name(evaluation.get("data"))
    results = []
    for score, metrics in own_metrics(evaluation).items():
        for name in CARD_METRICS:
            value = (metrics.get(name) or {}).get("value")
            if value is not None and math.isfinite(value):
                results.append(
                    EvalResult(
                        task_type="video-classification",
                        task_name="Video quality assessment",
                        dataset_type=data,
                        dataset_name=data,
                        dataset_config=Path(evaluation.get("split_file") or "").stem or None,
                        dataset_split=evaluation.get("part"),
                        metric_type=METRIC_IDS.get(name, name),
                        metric_name=f"{name.upper()} of {score}",
                        metric_value=round(value, 4),
                    )
                )
    return results


def training_table(provenance: Provenance, facts: Facts) -> dict[str, str]:
    """One row per training run, and what the publisher says about the machine."""
    rows, times = {}, Counter()
    for run in provenance.runs:
        times[run.stage] += 1
        name = f"{run.stage} ({times[run.stage]})" if times[run.stage] > 1 else run.stage
        epochs = f"{run.epochs} epoch(s)" if run.epochs else "trained"
        clips = f", {run.num_clips} clips" if run.num_clips else ""
        best = f", the best was {run.best_epoch}" if run.best_epoch else ""
        rows[name] = f"{epochs} on {run.data}{clips}{best}; {run.seconds / 3600:.2f} h"
    if facts.hardware:
        rows["hardware"] = facts.hardware
    emissions = facts.emissions_g(provenance)
    if emissions is not None:
        rows["CO2"] = f"{emissions:.1f} g (training time x power x carbon intensity)"
    return rows


def check_card(text: str) -> list[str]:
    """The problems of a card, as far as they can be found without the Hub; an empty list if there are none."""
    match = REGEX_YAML_BLOCK.search(text)
    if not match:
        return ["README.md does not begin with a block of YAML between lines of '---'"]
    try:
        data = yaml.safe_load(match.group(2))
        ModelCard(text)  # parses model-index
    except (yaml.YAMLError, ValueError) as error:
        return [f"README.md: the metadata cannot be parsed ({error})"]
    problems = [f"README.md: the field {name!r} is missing" for name in REQUIRED if not data.get(name)]
    for name, value in data.items():
        if name not in FIELDS:
            problems.append(f"README.md: {name!r} is not a field of a model card (expected: {sorted(FIELDS)})")
        elif not isinstance(value, FIELDS[name]):
            problems.append(f"README.md: {name} is {type(value).__name__}, not {FIELDS[name].__name__}")
    if data.get("license") == "other" and not (data.get("license_name") and data.get("license_link")):
        problems.append("README.md: license 'other' needs license_name and license_link")
    problems += [f"README.md: widget {entry} has no src" for entry in data.get("widget", []) if "src" not in entry]
    problems += [
        f"README.md: base_model {name!r} is not a Hub id" for name in data.get("base_model", []) if "/" not in name
    ]
    body = text[match.end() :]
    if "{{" in body or "{%" in body:
        problems.append("README.md: a placeholder of the template was left unfilled")
    return problems
