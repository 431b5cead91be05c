"""An operator for Data-Juicer that scores the videos of a sample against its text, and filters samples by a score.

    custom_operator_paths: [integrations/data_juicer_filter.py]
    process:
      - aigcvqa_filter: {model: path/or/hub-id, min_score: 50.0}

Interface: `data_juicer.ops.base_op.Filter` of Data-Juicer 1.6.
"""

import json
import math
from functools import lru_cache
from typing import Literal

import numpy as np
from data_juicer.ops.base_op import OPERATORS, Filter
from data_juicer.utils.constant import Fields
from data_juicer.utils.mm_utils import remove_special_tokens

from modeling_aigcvqa import ClipScorer, ScorerSettings

OP_NAME = "aigcvqa_filter"
STATS = "aigcvqa_{}"  # keys in the sample's stats


@lru_cache(maxsize=1)
def scorer_of(settings: ScorerSettings) -> ClipScorer:
    """The scorer of this process: operators are sent to workers without their weights."""
    return ClipScorer(settings)


@OPERATORS.register_module(OP_NAME)
class AIGCVQAFilter(Filter):
    """Keeps samples whose videos have a score within a range.

    The stats `aigcvqa_quality_score` (and so on by name) have one entry per video. A video that cannot be scored gets
    no number: its entry is NaN, and it never passes as if it had been scored. `aigcvqa_error` is a JSON list with its
    reason and null for the other videos. (None in the place of NaN, or a list of texts, would end the run: `datasets`
    takes the types of columns from the first samples.)
    """

    _accelerator = "cuda"

    def __init__(
        self,
        model: str = "small",
        branches: list[str] | None = None,
        dtype: str | None = None,
        score: str = "quality_score",
        min_score: float | None = None,
        max_score: float | None = None,
        any_or_all: Literal["any", "all"] = "any",
        on_failed: Literal["drop", "keep"] = "drop",
        *args,
        **kwargs,
    ):
        """
        Initialization method.

        :param model: small, free, dover, a folder or a Hub id.
        :param branches: branches to build; None for all.
        :param dtype: of the computation; None for that of the weights.
        :param score: the score that decides, such as quality_score.
        :param min_score: least score of a video that passes; None for no limit.
        :param max_score: greatest score of a video that passes; None for no limit.
        :param any_or_all: keep a sample if any of its videos passes, or all of them do.
        :param on_failed: whether a video that cannot be scored passes (keep) or not (drop).
        :param args: extra positional arguments.
        :param kwargs: extra keyword arguments.
        """
        super().__init__(*args, **kwargs)
        if any_or_all not in ("any", "all"):
            raise ValueError(f"any_or_all={any_or_all!r}: expected 'any' or 'all'.")
        if on_failed not in ("drop", "keep"):
            raise ValueError(f"on_failed={on_failed!r}: expected 'drop' or 'keep'.")
        self.model, self.branches, self.dtype, self.score = model, branches, dtype, score
        self.min_score, self.max_score = min_score, max_score
        self.any_or_all, self.on_failed = any_or_all, on_failed

    def compute_stats_single(self, sample, rank=None, context=False):
        stats = sample[Fields.stats]
        if STATS.format("error") in stats:
            return sample
        videos = sample.get(self.video_key) or []
        device = f"cuda:{rank or 0}" if self.use_cuda() else "cpu"
        branches = None if self.branches is None else tuple(self.branches)
        # One thread: Data-Juicer has a process per core, and a forked process must not use its parent's threads.
        scorer = scorer_of(ScorerSettings(self.model, branches, device, self.dtype, threads=1))
        prompt = remove_special_tokens(sample.get(self.text_key) or "") or None
        results = scorer({"video": list(videos), "prompt": [prompt] * len(videos)})
        built = ["quality_score", *(f"{branch}_score" for branch in scorer.identity.options["branches"])]
        for name in built:
            numbers = [math.nan if score is None else score for score in results[name]]
            stats[STATS.format(name)] = np.array(numbers, dtype=np.float64)
        stats[STATS.format("error")] = json.dumps(results["error"])
        return sample

    def process_single(self, sample):
        stats = sample[Fields.stats]
        if STATS.format(self.score) not in stats:
            raise ValueError(f"score={self.score!r}: the model does not give it; it gives {sorted(stats)}.")
        scores = stats[STATS.format(self.score)]
        if len(scores) == 0:
            return True  # as the other filters do for samples without videos
        passed = [
            self.on_failed == "keep"
            if math.isnan(score)
            else self.get_keep_boolean(score, self.min_score, self.max_score)
            for score in scores
        ]
        return any(passed) if self.any_or_all == "any" else all(passed)
