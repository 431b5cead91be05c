"""Merge branches of several models into one model."""

import copy
import functools
from pathlib import Path

import torch

from ..common.files import check_new_folder, whole_folder
from ..common.presets import save_model_folder
from ..configuration_aigcvqa import BRANCHES, AIGCVQAConfig
from ..modeling_aigcvqa import AIGCVQAModel
from ..processing_aigcvqa import AIGCVQAProcessor
from ..provenance_aigcvqa import Provenance


def merge(models: dict[str, tuple[AIGCVQAModel, AIGCVQAProcessor]], output: Path) -> AIGCVQAModel:
    """Write a model folder that takes each branch from one of several models.

    All branches are moved to the label scale of the first model that has one, so that their scores can be added. The
    provenance of the branches is kept, with the restrictions of their licences.

    Args:
        models: branch -> the model that it is taken from, and the processor of that model.
        output: new folder.

    Raises:
        ValueError: if a model does not have its branch, if the processors differ, or if `output` is not empty.
    """
    check_new_folder(output)
    branches = [branch for branch in BRANCHES if branch in models]
    lacking = [branch for branch in branches if branch not in models[branch][0].config.branches]
    if lacking:
        has = models[lacking[0]][0].config.branches
        raise ValueError(f"the model given for the {lacking[0]} branch has only {has}; name another model.")
    processor = _common_processor([models[branch][1] for branch in branches])
    configs = {branch: copy.deepcopy(models[branch][0].config) for branch in branches}
    merged = _merged_config(configs, branches)
    with torch.device("meta"):
        model = AIGCVQAModel(merged)
    for branch in branches:
        for part in ("backbone", "head"):
            setattr(model, f"{branch}_{part}", getattr(models[branch][0], f"{branch}_{part}"))
    processor.requires_prompt = "alignment" in branches
    with whole_folder(output) as folder:
        save_model_folder(model.eval(), processor, folder)
    return model


def _merged_config(configs: dict[str, AIGCVQAConfig], branches: list[str]) -> AIGCVQAConfig:
    """The config of the merged model, on the scale of the first model with a label scale (others have z-scores)."""
    scales = [(config.mos_mean, config.mos_std) for config in configs.values()]
    for config in configs.values():
        config.rescale(0.0, 1.0)
    parts = {f"{branch}_config": getattr(configs[branch], f"{branch}_config").to_dict() for branch in branches}
    frames = configs["alignment"].alignment_num_frames if "alignment" in branches else None
    merged = AIGCVQAConfig(
        **{**configs[branches[0]].to_dict(), **parts, "branches": branches, "alignment_num_frames": frames}
    )
    merged.rescale(*next((scale for scale in scales if scale != (0.0, 1.0)), (0.0, 1.0)))
    known = [configs[branch].get_provenance().of_branches([branch]) for branch in branches]
    merged.set_provenance(functools.reduce(Provenance.merged, known))
    return merged


def _common_processor(processors: list[AIGCVQAProcessor]) -> AIGCVQAProcessor:
    first = processors[0].video_processor.to_dict()
    for other in processors[1:]:
        found = other.video_processor.to_dict()
        changed = sorted(name for name in first if first[name] != found.get(name))
        if changed:
            values = ", ".join(f"{name} is {first[name]} and {found.get(name)}" for name in changed)
            raise ValueError(f"the models' processors differ ({values}); merge models with the same preprocessing.")
    return copy.deepcopy(processors[0])
