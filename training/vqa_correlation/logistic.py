"""The four-parameter logistic from scores to MOS (VQEG Final Report, 2000), its fit and the figures after it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize
from scipy.special import expit

from .checks import as_vector, check_lengths, floats, is_constant
from .resampling import Statistic, distributions, drawn_samples, intervals

# The logistic has four parameters: with four points or fewer it passes through all of them.
MIN_LOGISTIC_SAMPLES = 5
# A fit takes milliseconds, so the logistic's intervals use fewer resamples, each fitted to a relative 1e-6 of its
# squared error in at most so many evaluations: where the data are nearly linear, more only wander in a flat valley.
MAX_LOGISTIC_BOOTSTRAP = 200
MAX_RESAMPLE_EVALUATIONS = 100
MAX_FIT_EVALUATIONS = 2000
LOGISTIC_NAMES = ("rmse_logistic", "plcc_logistic")
LOGISTIC_DETAILS = ("logistic_parameters", "logistic_converged")


def logistic_curve(scores: np.ndarray, upper: float, lower: float, centre: float, scale: float) -> np.ndarray:
    """The four-parameter logistic, lower + (upper - lower) / (1 + exp(-(scores - centre) / |scale|)), (N,) -> (N,)."""
    return lower + (upper - lower) * expit((np.asarray(scores) - centre) / abs(scale))


def _standard_logistic(x: np.ndarray, upper: float, lower: float, centre: float, log_scale: float) -> np.ndarray:
    return lower + (upper - lower) * expit((x - centre) * np.exp(-np.clip(log_scale, -20, 20)))


def _standard_jacobian(x: np.ndarray, upper: float, lower: float, centre: float, log_scale: float) -> np.ndarray:
    """(N, 4) derivatives of `_standard_logistic`; the logarithm of the scale keeps it positive."""
    slope = np.exp(-np.clip(log_scale, -20, 20))
    gate = expit((x - centre) * slope)
    steep = (upper - lower) * gate * (1 - gate) * slope
    return np.stack([gate, 1 - gate, -steep, -steep * (x - centre)], axis=1)


def _search(
    x: np.ndarray, y: np.ndarray, start: Sequence[float], tolerance: float, max_evaluations: int
) -> tuple[np.ndarray, bool]:
    """Levenberg-Marquardt from `start`: the parameters (4,) where it stops, and whether it converged.

    This is what `scipy.optimize.curve_fit` runs, but `leastsq` keeps the parameters when the evaluations are used up.
    """
    with np.errstate(all="ignore"):
        parameters, _, _, _, status = optimize.leastsq(
            lambda parameters: _standard_logistic(x, *parameters) - y,
            start,
            Dfun=lambda parameters: _standard_jacobian(x, *parameters),
            ftol=tolerance,
            xtol=tolerance,
            maxfev=max_evaluations,
            full_output=True,
        )
    return parameters, status in (1, 2, 3, 4)


def _squared_error(x: np.ndarray, y: np.ndarray, parameters: np.ndarray) -> float:
    return float(np.sum((_standard_logistic(x, *parameters) - y) ** 2))


def _starts(x: np.ndarray, y: np.ndarray, plcc: float) -> list[list[float]]:
    """Starts for standardised (N,) and (N,): upper, lower, centre, logarithm of the scale."""
    upper, lower = (y.max(), y.min()) if plcc >= 0 else (y.min(), y.max())
    # So wide that it is the straight line of least squares: slope (upper - lower) / (4 scale) = PLCC.
    wide = 4.0
    line = [2 * plcc * np.exp(wide), -2 * plcc * np.exp(wide), 0.0, wide]
    literature = [upper, lower, 0.0, 0.0]
    return [literature, line, [upper, lower, -1.0, 0.0], [upper, lower, 1.0, 0.0], [upper, lower, 0.0, -2.0]]


def _fit_standard(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, bool]:
    """Parameters (4,) for standardised (N,) and (N,), and whether the search for them converged.

    The first start is the literature's (range of the MOS, mean and deviation of the scores), turned over for a negative
    correlation. A straight line is a limit of the logistic, so a fit worse than the line is a local minimum: then the
    line itself and shifted and steeper starts follow, and the best of all is kept.
    """
    plcc = float(np.mean(x * y))
    acceptable = y.size * (1 - plcc**2) * (1 + 1e-6) + 1e-12
    best, best_error, best_converged = None, np.inf, False
    for start in _starts(x, y, plcc):
        parameters, converged = _search(x, y, start, 1e-8, MAX_FIT_EVALUATIONS)
        error = _squared_error(x, y, parameters)
        if best is None or error < best_error:
            best, best_error, best_converged = parameters, error, converged
        if best_error <= acceptable:
            break
    return best, best_converged


def fit_logistic(scores: Any, mos: Any) -> tuple[np.ndarray, bool] | None:
    """Least-squares parameters (4,) of `logistic_curve` from (N,) scores to (N,) MOS, and whether the search converged.

    Parameters: upper, lower, centre, scale > 0. A search that is still moving after 2,000 evaluations gives its
    parameters with False: the data are then a limit of the logistic (a line, an exponential, a step), and the curve is
    already as close as makes no difference. None with fewer than 5 samples or constant values.
    """
    scores, mos = as_vector(scores, "scores"), as_vector(mos, "mos")
    check_lengths({"scores": scores, "mos": mos})
    if scores.size < MIN_LOGISTIC_SAMPLES or is_constant(scores) or is_constant(mos):
        return None
    fitted, converged = _fit_standard((scores - scores.mean()) / scores.std(), (mos - mos.mean()) / mos.std())
    upper, lower, centre, log_scale = fitted
    parameters = [
        mos.mean() + mos.std() * upper,
        mos.mean() + mos.std() * lower,
        scores.mean() + scores.std() * centre,
        scores.std() * np.exp(np.clip(log_scale, -20, 20)),
    ]
    return np.array(parameters), converged


def _logistic_metrics(fitted: np.ndarray, mos: np.ndarray) -> dict[str, float]:
    """RMSE and PLCC between the fitted scores (N,) and the MOS (N,)."""
    constant = is_constant(fitted) or is_constant(mos)
    plcc = np.nan if constant else np.corrcoef(fitted, mos)[0, 1]
    return {"rmse_logistic": np.sqrt(np.mean((fitted - mos) ** 2)), "plcc_logistic": plcc}


def _resampled_logistic(scores: np.ndarray, mos: np.ndarray, parameters: np.ndarray) -> Statistic:
    """The logistic figures for blocks of resamples, fitted again on each from the fit on all samples."""
    x, y = (scores - scores.mean()) / scores.std(), (mos - mos.mean()) / mos.std()
    upper, lower = (parameters[:2] - mos.mean()) / mos.std()
    start = [upper, lower, (parameters[2] - scores.mean()) / scores.std(), np.log(parameters[3] / scores.std())]

    def one(row: np.ndarray) -> dict[str, float]:
        found, _ = _search(x[row], y[row], start, 1e-6, MAX_RESAMPLE_EVALUATIONS)
        values = _logistic_metrics(_standard_logistic(x[row], *found), y[row])
        return {**values, "rmse_logistic": values["rmse_logistic"] * mos.std()}

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        rows = [one(drawn_samples(row)) for row in weights]
        return {name: np.array([row[name] for row in rows]) for name in LOGISTIC_NAMES}

    return statistic


def logistic_report(
    scores: np.ndarray,
    mos: np.ndarray,
    num_bootstrap: int,
    confidence_level: float,
    seed: int,
    clusters: np.ndarray | None = None,
) -> dict[str, Any]:
    """The logistic's part of `correlation_metrics`; every value None where there is no fit."""
    fit = fit_logistic(scores, mos)
    if fit is None:
        missing = dict.fromkeys(LOGISTIC_NAMES) if num_bootstrap else {}
        return {**dict.fromkeys((*LOGISTIC_NAMES, *LOGISTIC_DETAILS)), "intervals": missing}
    parameters, converged = fit
    values = _logistic_metrics(logistic_curve(scores, *parameters), mos)
    statistic = _resampled_logistic(scores, mos, parameters)
    resampled = distributions(statistic, scores.size, num_bootstrap, seed, clusters)
    return {
        **floats(values),
        "logistic_parameters": [float(value) for value in parameters],
        "logistic_converged": bool(converged),
        "intervals": intervals(resampled, confidence_level),
    }
