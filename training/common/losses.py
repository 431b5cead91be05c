"""The dual loss (paper eq. 6 and 7) on the global batch, and its gradient with respect to the scores of each process.

The losses are statistics of the whole batch, not means over clips, so they cannot be averaged over processes or
accumulation steps. Instead, the scores of all processes are gathered, and the loss and its gradient are computed on the
gathered scores. Each process then propagates its share of this gradient back through its own clips, in one or several
micro-batches.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from modeling_aigcvqa import AIGCVQAConfig
from modeling_aigcvqa.loss_aigcvqa import preference_loss, quality_loss

from .arguments import StageArguments
from .labels import MIN_LABELLED
from .sources import Source

Loss = Callable[[Tensor, Tensor], Tensor]  # of the scores and the labels of a global batch


@dataclass(frozen=True)
class DualLoss:
    """`quality_loss` with the weights and the scale of a model's config.

    Args:
        plcc_weight, rank_weight: weights of eq. 6 and eq. 7.
        unit: standard deviation of the labels whose scale the scores have; the scores are divided by it.
        incomplete: whether some clips may have no label (NaN). These clips do not count; a batch with fewer than two
            others has a loss of 0. Finding them waits for the device, so this is off where all labels are known.
        label_unit: standard deviation by which the labels are divided, for a data set with a scale of its own; None
            for `unit`.
    """

    plcc_weight: float
    rank_weight: float
    unit: float
    incomplete: bool = False
    label_unit: float | None = None

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Scores and labels, (B,) or (B, P) with P prompts per clip -> scalar."""
        if self.incomplete:
            labelled = labels.isfinite().reshape(len(labels), -1).all(1)
            scores, labels = scores[labelled], labels[labelled]
            if len(scores) < MIN_LABELLED:
                return 0 * scores.sum()
        label_unit = self.unit if self.label_unit is None else self.label_unit
        return quality_loss(
            scores.flatten() / self.unit, labels.flatten() / label_unit, self.plcc_weight, self.rank_weight
        )


@dataclass(frozen=True)
class PairLoss:
    """`preference_loss` on the clips of pairs, A and B in turn.

    Args:
        weight: factor of the loss.
        unit: standard deviation of the labels whose scale the scores have. A difference of one unit is odds of e.
        tie_margin: see `preference_loss`, in units.
    """

    weight: float
    unit: float
    tie_margin: float

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Scores (2 B,) and preferences (2 B,), the same for both clips of a pair -> scalar.

        A pair counts if its preference is known on both sides: it is NaN on that of a clip that cannot be read.
        """
        scores, labels = scores.unflatten(0, (-1, 2)) / self.unit, labels.unflatten(0, (-1, 2))
        return self.weight * preference_loss(*scores.unbind(1), labels.mean(1), self.tie_margin)


@dataclass(frozen=True)
class DistillLoss:
    """`DualLoss` for the scores of a teacher, and the mean squared error for its maps.

    Args:
        dual: the loss of the scores.
        map_weight: factor of the error of a map, which is in units of the deviation of the teacher's quality.
    """

    dual: DualLoss
    map_weight: float

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Scores and labels (B,), or maps (B, T/2, 7, 7) -> scalar.

        Raises:
            ValueError: if the maps have other shapes.
        """
        if labels.ndim < 3:
            return self.dual(scores, labels)
        if scores.shape != labels.shape:
            raise ValueError(
                f"the student's maps are {tuple(scores.shape[1:])}, the teacher's {tuple(labels.shape[1:])}: they read "
                "other numbers of frames; set --map_weight 0, or give the student's processor as many frames."
            )
        return self.map_weight * F.mse_loss(scores / self.dual.unit, labels / self.dual.unit)


def source_losses(arguments: StageArguments, config: AIGCVQAConfig, sources: list[Source], terms: list[str]) -> list:
    """The loss of each source: `DualLoss` with its own scale of labels, or `PairLoss`.

    Args:
        config: of the model, after it got the scale of the labels.
        terms: the scores that have a loss.
    """
    weights, unit = (config.plcc_loss_weight, config.rank_loss_weight), config.mos_std
    losses: list[Loss] = []
    for source in sources:
        if not source.has_mos:
            losses.append(PairLoss(arguments.preference_weight, unit, arguments.tie_margin))
            continue
        dual = DualLoss(*weights, unit, any(term in source.unlabelled for term in terms), source.scale[1])
        losses.append(DistillLoss(dual, source.map_weight) if source.maps else dual)
    return losses


def score_gradients(
    accelerator: Accelerator, scores: dict[str, Tensor], labels: dict[str, Tensor], loss: Loss
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss of every score on the global batch, and its gradient for the clips of this process.

    Args:
        scores: scores of this process by name, (b,) or (b, P) with P prompts per clip; b is equal on all processes.
        labels: labels with the same names and shapes.

    Returns:
        The losses by name, as scalars on the device, so that nothing waits for it, and d(sum of the losses)/d(scores)
        in the shapes of the scores. The gradients are multiplied by the number of processes, because DDP and FSDP
        average the parameters' gradients over the processes.
    """
    losses, gradients = {}, {}
    for name, local in scores.items():
        gathered = accelerator.gather(local.detach().float().contiguous()).requires_grad_()
        target = accelerator.gather(labels[name].to(local.device).float().contiguous())
        with torch.enable_grad():
            value = loss(gathered, target)
        (gradient,) = torch.autograd.grad(value, gathered)
        first = accelerator.process_index * len(local)
        losses[name] = value.detach()
        gradients[name] = gradient[first : first + len(local)] * accelerator.num_processes
    return losses, gradients


def fetch_values(steps: list[dict[str, Tensor]]) -> list[dict[str, float]]:
    """The scalars of some steps as numbers: one transfer from the device, which waits until the device is done."""
    if not steps:
        return []
    values = iter(torch.stack([value for losses in steps for value in losses.values()]).tolist())
    return [{name: next(values) for name in losses} for losses in steps]


def check_losses(losses: dict[str, float]) -> None:
    """Raise FloatingPointError if a loss is not finite."""
    if not all(math.isfinite(value) for value in losses.values()):
        raise FloatingPointError(
            f"the loss is not finite ({losses}); the last checkpoint is still valid. Lower learning_rate, set "
            "mixed_precision to no, or check the labels."
        )


def carry_back(scores: dict[str, Tensor], gradients: dict[str, Tensor]) -> Tensor:
    """A scalar with the same gradient as the loss: the sum of the scores times their (constant) gradients."""
    return torch.stack([(scores[name] * gradients[name]).sum() for name in scores]).sum()
