"""The four-parameter logistic curve from scores to MOS (VQEG Final Report, 2000): fit, and RMSE and PLCC after it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize
from scipy.special import expit

from .checks import as_vectors, floats, is_constant
from .resampling import Statistic, distributions, drawn_samples, intervals

# With four samples or fewer, a curve with four parameters can pass through every sample.
MIN_LOGISTIC_SAMPLES = 5
# Every resample needs its own fit, which takes milliseconds, so the intervals use fewer resamples and shorter fits. On
# nearly linear data the error hardly changes with the parameters, and more evaluations would not improve the fit.
MAX_LOGISTIC_BOOTSTRAP = 200
MAX_RESAMPLE_EVALUATIONS = 100
MAX_FIT_EVALUATIONS = 2000
LOGISTIC_NAMES = ("rmse_logistic", "plcc_logistic")
LOGISTIC_DETAILS = ("logistic_parameters", "logistic_converged")


def logistic_curve(scores: np.ndarray, upper: float, lower: float, centre: float, scale: float) -> np.ndarray:
    """lower + (upper - lower) / (1 + exp(-(scores - centre) / |scale|)): scores (N,) -> predicted MOS (N,)."""
    return lower + (upper - lower) * expit((np.asarray(scores) - centre) / abs(scale))


def _standard_logistic(x: np.ndarray, upper: float, lower: float, centre: float, log_scale: float) -> np.ndarray:
    return lower + (upper - lower) * expit((x - centre) * np.exp(-np.clip(log_scale, -20, 20)))


def _standard_jacobian(x: np.ndarray, upper: float, lower: float, centre: float, log_scale: float) -> np.ndarray:
    """Derivatives (N, 4) of `_standard_logistic`. It takes the logarithm of the scale to keep the scale positive."""
    slope = np.exp(-np.clip(log_scale, -20, 20))
    gate = expit((x - centre) * slope)
    steep = (upper - lower) * gate * (1 - gate) * slope
    return np.stack([gate, 1 - gate, -steep, -steep * (x - centre)], axis=1)


def _search(
    x: np.ndarray, y: np.ndarray, start: Sequence[float], tolerance: float, max_evaluations: int
) -> tuple[np.ndarray, bool]:
    """Levenberg-Marquardt from `start`: the last parameters (4,), and whether the search converged.

    `scipy.optimize.curve_fit` runs the same search, but discards the parameters when the evaluations are used up.
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


def _starts(x: np.ndarray, y: np.ndarray, plcc: float) -> list[list[float]]:
    """Start values for standardised x (N,) and y (N,): upper, lower, centre, logarithm of the scale."""
    upper, lower = (y.max(), y.min()) if plcc >= 0 else (y.min(), y.max())
    # This curve is so wide that it is the least-squares line, whose slope PLCC is (upper - lower) / (4 scale).
    wide = 4.0
    line = [2 * plcc * np.exp(wide), -2 * plcc * np.exp(wide), 0.0, wide]
    literature = [upper, lower, 0.0, 0.0]
    return [literature, line, [upper, lower, -1.0, 0.0], [upper, lower, 1.0, 0.0], [upper, lower, 0.0, -2.0]]


def _fit_standard(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, bool]:
    """Parameters (4,) for standardised x (N,) and y (N,), and whether the search for them converged.

    The first start is the one in the literature (range of the MOS, mean and standard deviation of the scores), mirrored
    for a negative correlation. A straight line is a limit of the logistic, so a fit worse than the line is only a local
    minimum. In that case the line, shifted curves and a steeper curve are tried too, and the best fit is kept.
    """
    plcc = float(np.mean(x * y))
    acceptable = y.size * (1 - plcc**2) * (1 + 1e-6) + 1e-12
    best, best_error, best_converged = None, np.inf, False
    for start in _starts(x, y, plcc):
        parameters, converged = _search(x, y, start, 1e-8, MAX_FIT_EVALUATIONS)
        error = np.sum((_standard_logistic(x, *parameters) - y) ** 2)
        if best is None or error < best_error:
            best, best_error, best_converged = parameters, error, converged
        if best_error <= acceptable:
            break
    return best, best_converged


def fit_logistic(scores: Any, mos: Any) -> tuple[np.ndarray, bool] | None:
    """Least-squares fit of `logistic_curve` from scores (N,) to MOS (N,).

    Returns:
        The parameters (4,) upper, lower, centre and scale > 0, and whether the search converged. It does not converge
        within 2,000 evaluations where the data follow a limit of the logistic (a line, an exponential, a step); the
        curve is then close to the data, but the parameters mean nothing. None with fewer than 5 samples, or constant
        scores or MOS.
    """
    scores, mos = as_vectors(scores, mos, ("scores", "mos"))
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
    """RMSE and PLCC after a fit on each resample, which starts from the `parameters` of the fit on all samples."""
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
    """The entries of `correlation_metrics` about the logistic fit; every value is None where there is no fit."""
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
