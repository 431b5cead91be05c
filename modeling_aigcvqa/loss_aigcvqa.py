"""The training losses of the paper on a batch of scores: PLCC loss (eq. 6) and rank loss (eq. 7)."""

import torch
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
