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


@dataclass(frozen=True)
class DualLoss:
    """`quality_loss` with the weights and the scale of a model's config.

    Args:
        plcc_weight, rank_weight: weights of eq. 6 and eq. 7.
        unit: standard deviation of the labels; scores and labels are divided by it.
    """

    plcc_weight: float
    rank_weight: float
    unit: float

    @classmethod
    def of(cls, config: AIGCVQAConfig) -> "DualLoss":
        return cls(config.plcc_loss_weight, config.rank_loss_weight, config.mos_std)

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Scores and labels (B,), both on the scale of the labels -> scalar."""
        return quality_loss(scores / self.unit, labels / self.unit, self.plcc_weight, self.rank_weight)


def score_gradients(
    accelerator: Accelerator, scores: dict[str, Tensor], labels: dict[str, Tensor], loss: DualLoss
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The loss of every score on the global batch, and its gradient for the clips of this process.

    Args:
        scores: scores of this process by name, (b,) or (b, P) with P prompts per clip; b is equal on all processes.
        labels: labels with the same names and shapes.

    Returns:
        The losses by name, and d(sum of the losses)/d(scores) in the shapes of the scores. The gradients are multiplied
        by the number of processes, because DDP and FSDP average the parameters' gradients over the processes.

    Raises:
        FloatingPointError: if a loss is not finite.
    """
    losses, gradients = {}, {}
    for name, local in scores.items():
        gathered = accelerator.gather(local.detach().float().contiguous()).requires_grad_()
        target = accelerator.gather(labels[name].to(local.device).float().contiguous())
        with torch.enable_grad():
            value = loss(gathered.flatten(), target.flatten())
        (gradient,) = torch.autograd.grad(value, gathered)
        first = accelerator.process_index * len(local)
        losses[name] = value.item()
        gradients[name] = gradient[first : first + len(local)] * accelerator.num_processes
    if not all(math.isfinite(value) for value in losses.values()):
        raise FloatingPointError(
            f"the loss is not finite ({losses}); the last checkpoint is still valid. Lower learning_rate, set "
            "mixed_precision to no, or check the labels."
        )
    return losses, gradients


def carry_back(scores: dict[str, Tensor], gradients: dict[str, Tensor]) -> Tensor:
    """A scalar with the same gradient as the loss: the sum of the scores times their (constant) gradients."""
    return torch.stack([(scores[name] * gradients[name]).sum() for name in scores]).sum()
