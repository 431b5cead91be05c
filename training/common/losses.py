"""The dual loss (paper eq. 6 and 7) on the global batch, and its gradient with respect to the scores of each process.

The losses are statistics of the whole batch, not means over clips, so they cannot be averaged over processes or
accumulation steps. Instead, the scores of all processes are gathered, and the loss and its gradient are computed on the
gathered scores. Each process then propagates its share of this gradient back through its own clips, in one or several
micro-batches.
"""

import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from modeling_aigcvqa import AIGCVQAConfig
from modeling_aigcvqa.loss_aigcvqa import quality_loss

from .labels import MIN_LABELLED


@dataclass(frozen=True)
class DualLoss:
    """`quality_loss` with the weights and the scale of a model's config.

    Args:
        plcc_weight, rank_weight: weights of eq. 6 and eq. 7.
        unit: standard deviation of the labels; scores and labels are divided by it.
        incomplete: whether some clips may have no label (NaN). These clips do not count; a batch with fewer than two
            others has a loss of 0. Finding them waits for the device, so this is off where all labels are known.
    """

    plcc_weight: float
    rank_weight: float
    unit: float
    incomplete: bool = False

    @classmethod
    def of(cls, config: AIGCVQAConfig, incomplete: bool = False) -> "DualLoss":
        return cls(config.plcc_loss_weight, config.rank_loss_weight, config.mos_std, incomplete)

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Scores and labels, (B,) or (B, P) with P prompts per clip, both on the scale of the labels -> scalar."""
        if self.incomplete:
            labelled = labels.isfinite().reshape(len(labels), -1).all(1)
            scores, labels = scores[labelled], labels[labelled]
            if len(scores) < MIN_LABELLED:
                return 0 * scores.sum()
        return quality_loss(
            scores.flatten() / self.unit, labels.flatten() / self.unit, self.plcc_weight, self.rank_weight
        )


def score_gradients(
    accelerator: Accelerator, scores: dict[str, Tensor], labels: dict[str, Tensor], loss: DualLoss
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


def fetch_losses(steps: list[dict[str, Tensor]]) -> list[dict[str, float]]:
    """The losses of some steps as numbers: one transfer from the device, which waits until the device is done.

    Raises:
        FloatingPointError: if a loss is not finite.
    """
    if not steps:
        return []
    names = list(steps[0])
    values = torch.stack([losses[name] for losses in steps for name in names]).tolist()
    fetched = [dict(zip(names, values[start : start + len(names)])) for start in range(0, len(values), len(names))]
    for losses in fetched:
        if not all(math.isfinite(value) for value in losses.values()):
            raise FloatingPointError(
                f"the loss is not finite ({losses}); the last checkpoint is still valid. Lower learning_rate, set "
                "mixed_precision to no, or check the labels."
            )
    return fetched


def carry_back(scores: dict[str, Tensor], gradients: dict[str, Tensor]) -> Tensor:
    """A scalar with the same gradient as the loss: the sum of the scores times their (constant) gradients."""
    return torch.stack([(scores[name] * gradients[name]).sum() for name in scores]).sum()
