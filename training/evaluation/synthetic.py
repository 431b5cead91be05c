"""What only labelled failures and noiseless latents allow, and whether the prompt matters to a score at all.

For `dataset_scripts.synthetic_t2v`: each branch's score against each latent, and the right prompt against another one
of the same category on clips that show what their prompt asks for. The second works with any data of several prompts.
"""

import json
import random

import numpy as np
import pandas as pd

from modeling_aigcvqa.configuration_aigcvqa import BRANCHES
from training.vqa_correlation.reports import correlation_metrics
from training.vqa_correlation.resampling import mean_interval

from .figures import (
    MIN_PROMPTS,
    Bootstrap,
    entry,
    figures_of,
    prompt_groups,
    repeat,
    undefined,
    varies,
)

# What can be wrong of the prompt in a clip of the synthetic benchmark, as its card names it.
ALIGNMENT_FAILURES = frozenset(
    {"nothing_of_prompt", "wrong_subject", "wrong_colour", "wrong_background", "wrong_count", "wrong_motion"}
)


def latent_matrix(table: pd.DataFrame, bootstrap: Bootstrap) -> dict | None:
    """SROCC and PLCC of each branch's score with each noiseless latent; None where the data have no latents.

    Returns:
        srocc, plcc {score: {latent: {value, low, high, ...}}}, and by SROCC `own_latent_is_best` {score: whether its
        own latent is the one that it follows best} and `own_score_is_best` {latent: whether its own branch's score
        follows it best}.
    """
    scores = [f"{branch}_score" for branch in BRANCHES if f"{branch}_score" in table]
    if not set(BRANCHES) <= set(table.columns) or not scores:
        return None
    cells = {score: {latent: _cell(table, score, latent, bootstrap) for latent in BRANCHES} for score in scores}
    srocc, plcc = (
        {score: {latent: cell[metric] for latent, cell in row.items()} for score, row in cells.items()}
        for metric in ("srocc", "plcc")
    )
    values = pd.DataFrame({score: {b: row[b]["value"] for b in BRANCHES} for score, row in srocc.items()}, dtype=float)
    own = {score: score.removesuffix("_score") for score in scores}
    return {
        "srocc": srocc,
        "plcc": plcc,
        "own_latent_is_best": {score: _is_best(values[score], own[score]) for score in scores},
        "own_score_is_best": {own[score]: _is_best(values.loc[own[score]], score) for score in scores},
    }


def _cell(table: pd.DataFrame, score: str, latent: str, bootstrap: Bootstrap) -> dict[str, dict]:
    """Figures of one score against one latent, None where either is constant."""
    x, y = table[score].to_numpy(float), table[latent].to_numpy(float)
    if not varies(x) or not varies(y):
        return undefined(("srocc", "plcc"))
    report = correlation_metrics(x, y, logistic=False, **bootstrap.settings())
    return figures_of(report, x, y, prompt_groups(table), bootstrap)


def _is_best(values: pd.Series, own: str) -> bool:
    """Whether `own` has the highest of the values, and alone. An undefined value (NaN) is never the best."""
    return bool((values[own] > values.drop(own).dropna()).all()) and not np.isnan(values[own])


def is_faithful(failures: str) -> bool:
    """Whether a clip of the synthetic set shows all that its prompt asks for. `failures`: JSON {name: severity}."""
    return not ALIGNMENT_FAILURES & set(json.loads(failures))


def other_prompts(table: pd.DataFrame, seed: int = 0) -> pd.Series:
    """For each faithful clip a random other prompt of its category: id -> prompt.

    Every clip counts as faithful where the data do not tell (`failures`), and all prompts are one category where there
    is no `category`. Prompts of the synthetic set are unique as scenes, so another `prompt_id` is another scene. The
    choice depends on the seed and the clip alone; clips without an alternative are left out.
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
    """In what share of the clips the right prompt scores higher than the other one.

    Scores (N,) with the right and with the other prompt, and the prompts' names (N,). A tie is no win; 0.5 is chance.

    Raises:
        ValueError: without a clip.
    """
    wins = np.asarray(right, float) > np.asarray(wrong, float)
    if not wins.size:
        raise ValueError("--prompt_swap: no clip has both scores; the data need two prompts of a category at least.")

    num_prompts = len(set(prompts))
    settings = bootstrap.settings()
    by_clip = mean_interval(wins, **settings)
    by_prompt = mean_interval(wins, prompts, **settings) if num_prompts >= MIN_PROMPTS else None
    share = entry(float(wins.mean()), by_clip, by_prompt, repeat(prompts))
    return {"share": share, "num_clips": int(wins.size), "num_prompts": num_prompts}
