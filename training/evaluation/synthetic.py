"""Figures for the synthetic benchmark of `dataset_scripts.synthetic_t2v`, and the prompt swap.

The latent matrix compares the score of each branch with each noiseless latent of the benchmark. The prompt swap
compares the scores of clips with their own prompt and with another prompt. It works with any data with several prompts.
"""

import json
import random
from dataclasses import asdict

import numpy as np
import pandas as pd

from modeling_aigcvqa.configuration_aigcvqa import BRANCHES
from training.vqa_correlation.resampling import mean_interval

from .figures import MIN_PROMPTS, Bootstrap, entry, prompt_groups, repeat, score_figures

# Failures in the synthetic benchmark with which a clip does not show what its prompt asks for.
ALIGNMENT_FAILURES = frozenset(
    {"nothing_of_prompt", "wrong_subject", "wrong_colour", "wrong_background", "wrong_count", "wrong_motion"}
)


def latent_matrix(table: pd.DataFrame, bootstrap: Bootstrap) -> dict | None:
    """SROCC and PLCC of the score of each branch with each noiseless latent; None if the table has no latents.

    Returns:
        srocc, plcc {score: {latent: figure}}; own_latent_is_best {score: whether its SROCC is highest with the latent
        of its own branch}; own_score_is_best {latent: whether the SROCC of its own branch is the highest}.
    """
    scores = [f"{branch}_score" for branch in BRANCHES if f"{branch}_score" in table]
    if not set(BRANCHES) <= set(table.columns) or not scores:
        return None
    cells = {
        score: {latent: score_figures(table, score, bootstrap, label=latent)[0] for latent in BRANCHES}
        for score in scores
    }
    srocc, plcc = (
        {score: {latent: cell[metric] for latent, cell in row.items()} for score, row in cells.items()}
        for metric in ("srocc", "plcc")
    )
    values = pd.DataFrame(srocc).map(lambda figure: figure["value"]).astype(float)
    own = {score: score.removesuffix("_score") for score in scores}
    return {
        "srocc": srocc,
        "plcc": plcc,
        "own_latent_is_best": {score: _is_best(values[score], own[score]) for score in scores},
        "own_score_is_best": {own[score]: _is_best(values.loc[own[score]], score) for score in scores},
    }


def _is_best(values: pd.Series, own: str) -> bool:
    """Whether the value of `own` is higher than all other values. An undefined value (NaN) is never the best."""
    return bool((values[own] > values.drop(own).dropna()).all()) and not np.isnan(values[own])


def is_faithful(failures: str) -> bool:
    """Whether a clip of the benchmark shows what its prompt asks for. `failures` is JSON {name: severity}."""
    return not ALIGNMENT_FAILURES & set(json.loads(failures))


def other_prompts(table: pd.DataFrame, seed: int = 0) -> pd.Series:
    """A random other prompt of the same category for each faithful clip: id -> prompt.

    All clips are faithful if the table has no column `failures`, and in one category if it has no column `category`.
    Clips without another prompt in their category are left out. The random choice depends on the seed and on the id.
    In the synthetic benchmark every `prompt_id` has its own scene, so the other prompt does not describe the clip.
    """
    groups = pd.Series(prompt_groups(table), index=table.index)
    categories = table["category"].fillna("").astype(str) if "category" in table else pd.Series("", index=table.index)
    prompts = table["prompt"].groupby([categories, groups]).first().sort_index()
    faithful = table["failures"].map(is_faithful) if "failures" in table else pd.Series(True, index=table.index)
    chosen = {}
    for index in table.index[faithful & (table["prompt"].str.strip() != "")]:
        others = prompts.loc[categories[index]].drop(groups[index])
        others = others[others.str.strip() != ""]
        if len(others):
            chosen[table["id"][index]] = random.Random(f"{seed} {table['id'][index]}").choice(others.tolist())
    return pd.Series(chosen, dtype=object)


def prompt_swap_figures(right: np.ndarray, wrong: np.ndarray, prompts: np.ndarray, bootstrap: Bootstrap) -> dict:
    """Share of the clips with a higher score with their own prompt than with the other prompt.

    Takes the scores (N,) with the own and with the other prompt, and `prompt_groups` (N,). Equal scores are not a win.
    The share is 0.5 if the score does not depend on the prompt.

    Raises:
        ValueError: if there are no clips.
    """
    wins = np.asarray(right, float) > np.asarray(wrong, float)
    if not wins.size:
        raise ValueError(
            "--prompt_swap: 0 clips have a score with both prompts; see the errors in scores.jsonl and "
            "scores_swapped.jsonl, or leave --prompt_swap out."
        )
    num_prompts, settings = len(set(prompts)), asdict(bootstrap)
    by_clip = mean_interval(wins, **settings)
    by_prompt = mean_interval(wins, prompts, **settings) if num_prompts >= MIN_PROMPTS else None
    share = entry(float(wins.mean()), by_clip, by_prompt, repeat(prompts))
    return {"share": share, "num_clips": int(wins.size), "num_prompts": num_prompts}
