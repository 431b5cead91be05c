"""SROCC, PLCC, KROCC, RMSE and pairwise accuracy of video-quality scores, as one `evaluate` metric.

Programs can also call the functions in `__all__` on arrays, without `evaluate`.
"""

from typing import Any

import datasets
import evaluate

# `evaluate` copies only the files that this file imports itself, so every file of the folder must be imported here.
from .checks import as_array, as_preferences, check_lengths, check_shape
from .correlations import CORRELATION_NAMES
from .logistic import fit_logistic, logistic_curve
from .pairs import pairwise_accuracy
from .reports import correlation_metrics, correlation_report, group_mean_metrics, grouped_metrics
from .resampling import mean_interval

_CITATION = """\
@inproceedings{lu2024aigcvqa,
  title={AIGC-VQA: A Holistic Perception Metric for AIGC Video Quality Assessment},
  author={Lu, Yiting and others},
  booktitle={CVPR Workshops},
  year={2024}
}
@inproceedings{deutsch2023ties,
  title={Ties Matter: Meta-Evaluating Modern Metrics with Pairwise Accuracy and Tie Calibration},
  author={Deutsch, Daniel and Foster, George and Freitag, Markus},
  booktitle={EMNLP},
  year={2023}
}
"""

_DESCRIPTION = """\
Agreement of predicted video-quality scores with human opinion: SROCC, PLCC, KROCC, RMSE (after matching mean and
standard deviation, and after a four-parameter logistic fit) and the main score (SROCC + PLCC) / 2, with bootstrap
intervals: for all samples, per generator, per category and between the means of the generators. For preference data
(config_name="pairs"): pairwise accuracy with and without ties.
"""

_KWARGS_DESCRIPTION = """
Args of every configuration (config_name):
    num_bootstrap (int): number of resamples for each interval; 0 for no intervals. Defaults to 1000.
    confidence_level (float): confidence level of the intervals. Defaults to 0.95.
    seed (int): seed of the resampling. Defaults to 0.
Args of every configuration except "pairs":
    predictions (floats): scores of the clips, on any scale.
    references (floats): mean opinion scores (MOS) of the clips.
    generators (strings): generator of each clip. A column of "generators" and "grouped"; an optional argument of
        compute() in the other configurations. A clip with an empty string counts only in the overall figures.
    categories (strings): category of each clip. A column of "categories" and "grouped", otherwise like generators.
    clusters (list of strings): clips with the same name are drawn together, for example the prompt of each clip.
    logistic (bool): whether to fit the four-parameter logistic. Defaults to True.
    max_logistic_bootstrap (int): maximum number of resamples for the intervals after the fit. Defaults to 200.
    min_group_size (int): the figures of smaller groups are null. Defaults to 3.
Args of "pairs":
    predictions_a, predictions_b (floats): scores of the two clips of each pair.
    preferences: "A", "B" or "same" for each pair, or 1, -1 or 0.
    tie_threshold (float): the scores tie if |a - b| is at most this number. Calibrated on the data by default.
Returns:
    srocc, plcc, krocc, rmse, rmse_logistic, plcc_logistic, main_score, logistic_parameters, logistic_converged,
    num_samples, intervals {metric: [low, high]}; with groups also per_generator, per_category, generator_means.
    "pairs": accuracy_without_ties, accuracy_with_ties, tie_threshold, num_pairs, num_human_ties, num_model_ties,
    intervals.
Examples:
    >>> metric = evaluate.load("training/vqa_correlation")
    >>> result = metric.compute(predictions=[1.0, 2.0, 4.0, 3.0], references=[10.0, 20.0, 30.0, 40.0])
    >>> round(result["srocc"], 4)
    0.8
"""

COLUMNS = {
    "default": ("predictions", "references"),
    "generators": ("predictions", "references", "generators"),
    "categories": ("predictions", "references", "categories"),
    "grouped": ("predictions", "references", "generators", "categories"),
    "pairs": ("predictions_a", "predictions_b", "preferences"),
}
COLUMN_TYPES = {"generators": "string", "categories": "string", "preferences": "int64"}


class VQACorrelation(evaluate.Metric):
    """The `evaluate` metric. `config_name` determines the columns, see `COLUMNS` and the metric card."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in COLUMNS:
            raise ValueError(f"config_name={self.config_name!r} is unknown; choose one of {sorted(COLUMNS)}.")
        types = {name: datasets.Value(COLUMN_TYPES.get(name, "float64")) for name in COLUMNS[self.config_name]}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(types),
            reference_urls=["https://arxiv.org/abs/2305.14324"],
        )

    def add(self, *, prediction: float | None = None, reference: float | None = None, **kwargs: Any) -> None:
        """Add one sample. Other columns are passed by their plural names, for example `generators="name"`."""
        if "preferences" in kwargs:
            kwargs["preferences"] = int(as_preferences([kwargs["preferences"]])[0])
        super().add(prediction=prediction, reference=reference, **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add a batch: every column of the configuration, 1-D and of equal length. Nothing is stored on an error."""
        given = {"predictions": predictions, "references": references, **kwargs}
        batch = {name: self._checked_column(name, given.get(name)) for name in COLUMNS[self.config_name]}
        check_lengths(batch)
        extra = {name: values for name, values in given.items() if name not in batch and values is not None}
        super().add_batch(**{**batch, **extra})

    def _checked_column(self, name: str, values: Any) -> Any:
        if values is None:
            raise ValueError(
                f"{name} is missing; config_name={self.config_name!r} needs {', '.join(COLUMNS[self.config_name])} in "
                "every batch. Pass the column, or load another config_name."
            )
        if name == "preferences":
            return as_preferences(values)
        if COLUMN_TYPES.get(name) == "string":
            return ["" if value is None else str(value) for value in values]
        return check_shape(as_array(values), name)

    def _compute(self, **inputs: Any) -> dict[str, Any]:
        inputs.setdefault("num_bootstrap", 1000)
        if self.config_name == "pairs":
            scores_a, scores_b = inputs.pop("predictions_a"), inputs.pop("predictions_b")
            return pairwise_accuracy(scores_a, scores_b, names=("predictions_a", "predictions_b"), **inputs)
        scores, mos = inputs.pop("predictions"), inputs.pop("references")
        return correlation_report(scores, mos, names=("predictions", "references"), **inputs)


__all__ = [
    "CORRELATION_NAMES",
    "VQACorrelation",
    "correlation_metrics",
    "correlation_report",
    "fit_logistic",
    "group_mean_metrics",
    "grouped_metrics",
    "logistic_curve",
    "mean_interval",
    "pairwise_accuracy",
]
