"""The dual loss (paper eq. 6 and 7) on the global batch, and its gradient with respect to every process's scores.

The losses are statistics of a batch, so they are neither a mean over processes nor over accumulation steps. Both are
handled the same way: scores are gathered, the loss and its gradient are taken on the gathered scores, and each process
carries its share of that gradient back through its own clips, in as many parts as fit into memory.
"""

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
        plcc_weight, rank_weight: of eq. 6 and eq. 7.
        unit: deviation of the labels; the losses see scores and labels in units of it.
    """

    plcc_weight: float
    rank_weight: float
    unit: float

    @classmethod
    def of(cls, config: AIGCVQAConfig) -> "DualLoss":
        return cls(config.plcc_loss_weight, config.rank_loss_weight, config.mos_std)

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Scores and labels (B,) on the labels' scale -> scalar."""
        return quality_loss(scores / self.unit, labels / self.unit, self.plcc_weight, self.rank_weight)


def score_gradients(
    accelerator: Accelerator, scores: dict[str, Tensor], labels: dict[str, Tensor], loss: DualLoss
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The loss of every score on the global batch, and its gradient for this process's clips.

    Args:
        scores: of this process, (b,) or (b, P) with P prompts a clip, by name; equally many on each process.
        labels: of the same names and shapes.

    Returns:
        The losses by name, and d(sum of the losses)/d(scores), as the scores are shaped. They are multiplied by the
        number of processes, which DDP and FSDP divide by when they average the parameters' gradients.
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
    return losses, gradients


def carry_back(scores: dict[str, Tensor], gradients: dict[str, Tensor]) -> Tensor:
    """A scalar whose gradient is that of the loss: sum of scores times their (constant) gradients."""
    return torch.stack([(scores[name] * gradients[name]).sum() for name in scores]).sum()
