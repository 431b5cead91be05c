"""SROCC, PLCC, KROCC, RMSE and pairwise accuracy of video-quality scores, as one `evaluate` metric.

The functions on arrays (`correlation_metrics`, `grouped_metrics`, `group_mean_metrics`, `correlation_report`,
`pairwise_accuracy`) need no `evaluate` object; they stand in the files beside this one.
"""

from typing import Any

import datasets
import evaluate

# `evaluate` copies the files that this one imports itself: each file beside it must be named here.
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
deviation, and after a four-parameter logistic fit) and the main score (SROCC + PLCC) / 2, each with a bootstrap
interval, overall, per generator, per category and between the generators' means; pairwise accuracy with and without
ties for preference data (config_name="pairs").
"""

_KWARGS_DESCRIPTION = """
Args, by config_name:
    predictions (floats), references (floats, the MOS): "default", "generators", "categories" and "grouped".
    generators (strings): a column of "generators" and "grouped"; elsewhere an optional list given to compute().
    categories (strings): a column of "categories" and "grouped"; elsewhere an optional list given to compute().
        An empty string leaves the sample out of the groups, not out of the overall figures.
    predictions_a, predictions_b (floats), preferences ("A", "B", "same", or 1, -1, 0): "pairs".
    num_bootstrap (int): resamples behind each interval; 0 for none. Defaults to 1000.
    confidence_level (float): defaults to 0.95.
    seed (int): seed of the resampling. Defaults to 0.
    clusters (list of strings): names of samples that are drawn together, such as the clips' prompts. Not in "pairs".
    logistic (bool): whether to fit the four-parameter logistic. Defaults to True. Not in "pairs".
    max_logistic_bootstrap (int): resamples behind the logistic's intervals, at most. Defaults to 200. Not in "pairs".
    min_group_size (int): smaller groups get null metrics. Defaults to 3. Not in "pairs".
    tie_threshold (float): only in "pairs": |a - b| up to it counts as a tie; calibrated on the data when not given.
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
    """The `evaluate` metric. `config_name` fixes the columns: see `COLUMNS` and the metric card."""

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
        """Add one sample; columns other than the two keep their plural names."""
        if "preferences" in kwargs:
            kwargs["preferences"] = int(as_preferences([kwargs["preferences"]])[0])
        super().add(prediction=prediction, reference=reference, **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add a batch: every column of the configuration, 1-D and of one length. Checked before anything is stored."""
        given = {"predictions": predictions, "references": references, **kwargs}
        batch = {name: self._checked_column(name, given.get(name)) for name in COLUMNS[self.config_name]}
        check_lengths(batch)
        extra = {name: values for name, values in given.items() if name not in batch and values is not None}
        super().add_batch(**{**batch, **extra})

    def _checked_column(self, name: str, values: Any) -> Any:
        if values is None:
            raise ValueError(
                f"{name} is missing; config_name={self.config_name!r} needs {', '.join(COLUMNS[self.config_name])} in "
                "every batch. Pass it, or load another config_name."
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
