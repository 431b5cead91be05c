"""Average the weights of several trainings of one model, such as those on several splits ("model soup").

    python -m training.average_models --models runs/split0 runs/split1 runs/split2 --output models/average

The models must have the same architecture and processor and should come from the same initial model, because weights
that were trained from different starts cannot be averaged (Wortsman et al., ICML 2022). The scale of the scores and of
the labels is averaged too. The result costs no more than one model; an ensemble of the scores would cost all of them.
Evaluate it: the splits of its members together cover the data, so only other data are unseen.
"""

import argparse
import copy
import dataclasses
import sys
from pathlib import Path

import torch

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import check_new_folder, whole_folder
from modeling_aigcvqa.common.presets import save_model_folder
from modeling_aigcvqa.loading import load_model

# Fields of a config in which trainings of one model differ. Those of a branch are in its own config.
AVERAGED = ("mos_mean", "mos_std")
AVERAGED_OF_BRANCH = ("score_scale", "score_shift")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.average_models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL", help="folders or Hub ids, at least two")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    return parser


def average_state(models: list[AIGCVQAModel]) -> dict[str, torch.Tensor]:
    """The mean of each tensor over the models, computed in float64, in the dtype of the first model.

    Raises:
        ValueError: if the models have other tensors or shapes; names one.
    """
    states = [model.state_dict() for model in models]
    for state in states[1:]:
        differing = [name for name in states[0].keys() | state.keys() if not _alike(name, states[0], state)]
        if differing:
            raise ValueError(f"the models differ in the tensor {min(differing)!r}; average trainings of one model.")
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


def _alike(name: str, first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return name in first and name in second and first[name].shape == second[name].shape


def average_config(configs: list[AIGCVQAConfig]) -> AIGCVQAConfig:
    """The config of the first model with averaged scales, and the runs of all models in its provenance.

    Raises:
        ValueError: if anything else differs; names it.
    """
    result = copy.deepcopy(configs[0])
    for config in configs:
        changed = _architecture(config).items() - _architecture(result).items()
        if changed:
            raise ValueError(f"the models differ in {sorted(name for name, _ in changed)}; average trainings of one.")
    result.forget_scale()  # nobody has measured the average
    for name in AVERAGED:
        setattr(result, name, sum(getattr(config, name) for config in configs) / len(configs))
    for branch, part in result.parts.items():
        for name in AVERAGED_OF_BRANCH:
            setattr(part, name, sum(getattr(config.parts[branch], name) for config in configs) / len(configs))
    provenances = [config.get_provenance() for config in configs]
    for provenance in provenances:
        for name in ("sources", "license", "untrained"):
            if getattr(provenance, name) != getattr(provenances[0], name):
                raise ValueError(f"the {name} of the models differ; average trainings that started from one model.")
    runs = [run for provenance in provenances for run in provenance.runs]
    unique = [run for place, run in enumerate(runs) if run not in runs[:place]]
    caveats = dict.fromkeys(provenance.caveat for provenance in provenances if provenance.caveat)
    result.set_provenance(dataclasses.replace(provenances[0], runs=unique, caveat=" ".join(caveats) or None))
    return result


def _architecture(config: AIGCVQAConfig) -> dict[str, str]:
    """Everything that trainings of one model have in common, by name."""
    content = config.to_dict()
    for name in (*AVERAGED, "interval", "reference", "calibration", "provenance", "_name_or_path", "dtype"):
        content.pop(name, None)
    for branch in config.branches:
        for name in AVERAGED_OF_BRANCH:
            content[f"{branch}_config"].pop(name, None)
    return {name: repr(value) for name, value in content.items()}


@exits_with_status("average_models")
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if len(arguments.models) < 2:
        raise ValueError(f"--models {arguments.models[0]}: pass at least two models.")
    check_new_folder(arguments.output)
    loaded = [load_model(name) for name in arguments.models]
    models = [model for model, _ in loaded]
    processors = {processor.to_json_string() for _, processor in loaded}
    if len(processors) > 1:
        raise ValueError("the processors of the models differ; average trainings of one model.")
    state = average_state(models)
    models[0].config = average_config([model.config for model in models])
    models[0].load_state_dict(state)
    with whole_folder(arguments.output) as folder:
        save_model_folder(models[0], loaded[0][1], folder)
    print(f"Wrote the average of {len(models)} models to '{arguments.output}'.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
