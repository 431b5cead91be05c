"""Training losses on a batch of scores: PLCC loss (paper eq. 6), rank loss (eq. 7), and a loss for preferences."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _check(scores: Tensor, mos: Tensor) -> None:
    if scores.ndim != 1 or scores.shape != mos.shape:
        raise ValueError(
            f"scores and mos must both be (B,), one value per clip (got {tuple(scores.shape)} and {tuple(mos.shape)}); "
            "other shapes would broadcast to a wrong loss."
        )
    if scores.shape[0] < 2:
        raise ValueError(f"the losses compare clips and need at least 2 in a batch (got {scores.shape[0]}).")


def plcc_loss(scores: Tensor, mos: Tensor, eps: float = 1e-8) -> Tensor:
    """(1 - r) / 2 with Pearson's r over the batch (paper eq. 6): 0 at r = 1, 1 at r = -1, 0.5 for constant input.

    Args:
        scores: predictions (B,), on any scale.
        mos: labels (B,), on any scale.
        eps: keeps the gradient finite if the scores or the labels are constant.
    """
    _check(scores, mos)
    scores, mos = scores.float() - scores.float().mean(), mos.float() - mos.float().mean()
    r = (scores * mos).mean() / torch.sqrt(scores.square().mean() * mos.square().mean() + eps)
    return (1 - r) / 2


def rank_loss(scores: Tensor, mos: Tensor) -> Tensor:
    """(1 / m^2) sum_ij max(0, |y_i - y_j| - e_ij (s_i - s_j)), e_ij = 1 if y_i >= y_j else -1 (paper eq. 7).

    Args:
        scores: predictions s (B,), on the scale of the labels, because the margin is the difference of two labels.
        mos: labels y (B,).
    """
    _check(scores, mos)
    scores, mos = scores.float(), mos.float()
    label_difference = mos[:, None] - mos[None, :]
    score_difference = scores[:, None] - scores[None, :]
    sign = torch.where(label_difference >= 0, 1.0, -1.0)
    return (label_difference.abs() - sign * score_difference).clamp(min=0).mean()


def quality_loss(scores: Tensor, mos: Tensor, plcc_weight: float = 1.0, rank_weight: float = 1.0) -> Tensor:
    """The weighted sum of `plcc_loss` and `rank_loss` (weights in the paper: 1 and 1)."""
    return plcc_weight * plcc_loss(scores, mos) + rank_weight * rank_loss(scores, mos)


def preference_loss(scores_a: Tensor, scores_b: Tensor, preferences: Tensor, tie_margin: float = 1.0) -> Tensor:
    """Mean negative log-likelihood of preferences between two clips, in the Bradley-Terry model with ties.

    With d = s_a - s_b and the margin m: P(A) = sigmoid(d - m), P(B) = sigmoid(-d - m), and a tie has the rest (Rao and
    Kupper, 1967, with theta = exp(m); VideoAlign, Liu et al., 2025, uses m = log 5 = 1.6). m = 0 is the model of
    Bradley and Terry, in which no tie can happen.

    Args:
        scores_a, scores_b: scores (B,) of the two clips of each pair; a difference of 1 is odds of e.
        preferences: (B,) of 1 for A, -1 for B, 0 for a tie, NaN where it is not known: these pairs do not count.
        tie_margin: m, at least 0.
    """
    if scores_a.ndim != 1 or not scores_a.shape == scores_b.shape == preferences.shape or not len(scores_a):
        shapes = [tuple(value.shape) for value in (scores_a, scores_b, preferences)]
        raise ValueError(f"scores_a, scores_b and preferences must all be (B,), one value per pair (got {shapes}).")
    if tie_margin < 0 or (tie_margin == 0 and bool((preferences == 0).any())):
        raise ValueError(f"tie_margin={tie_margin}: expected a number above 0 where pairs are tied, and at least 0.")
    known = preferences.isfinite()
    preferences = preferences.nan_to_num()
    difference = scores_a.float() - scores_b.float()
    decided = F.softplus(tie_margin - preferences * difference)
    # P(tie) = (1 - exp(-2 m)) sigmoid(m + d) sigmoid(m - d)
    rest = math.log(-math.expm1(-2 * tie_margin)) if tie_margin else 0.0
    tied = F.softplus(-tie_margin - difference) + F.softplus(difference - tie_margin) - rest
    values = torch.where(preferences == 0, tied, decided)
    return (values * known).sum() / known.sum().clamp(min=1)
