"""Rewards of clips that were generated from the same prompt: the best of them, and advantages within them."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

EPSILON = 1e-4  # as in TRL and Flow-GRPO


def best_of_n(rewards: Tensor, groups: Sequence[Hashable]) -> dict[Hashable, int]:
    """The index of the clip with the highest reward of every group; of equal ones the first. NaN never wins.

    Args:
        rewards: (B,).
        groups: the prompt, or another mark, of every clip.

    Raises:
        ValueError: for another number of groups than rewards, or a group that has no reward but NaN.
    """
    best = {}
    for group, indices in _members(rewards, groups).items():
        known = indices[~rewards[indices].isnan()]
        if not len(known):
            raise ValueError(f"the group {group!r} has no reward: all its {len(indices)} clips failed.")
        best[group] = int(known[rewards[known].argmax()])
    return best


def group_advantages(
    rewards: Tensor, groups: Sequence[Hashable], scale: bool = True, epsilon: float = EPSILON
) -> Tensor:
    """Advantages within groups, (r - mean) / (deviation + epsilon), as of GRPO (Shao et al., 2024, section 4.1).

    Args:
        rewards: (B,). A clip that failed has NaN: it does not count in its group, and its advantage is NaN. Leave it
            out of the loss.
        groups: the prompt, or another mark, of every clip.
        scale: whether to divide by the deviation (with B - 1, as in TRL).

    Returns:
        (B,). A clip that is alone in its group has the advantage 0.

    Raises:
        ValueError: for another number of groups than rewards.
    """
    advantages = torch.full_like(rewards, torch.nan)
    for indices in _members(rewards, groups).values():
        known = indices[~rewards[indices].isnan()]
        values = rewards[known]
        centred = values - values.mean()
        if scale and len(known) > 1:
            centred = centred / (values.std() + epsilon)
        advantages[known] = centred
    return advantages


def _members(rewards: Tensor, groups: Sequence[Hashable]) -> dict[Hashable, Tensor]:
    """The indices of the clips of every group, in the order of their first clips."""
    if rewards.ndim != 1 or len(groups) != len(rewards):
        raise ValueError(f"{len(groups)} groups for rewards of shape {tuple(rewards.shape)}; pass one group per clip.")
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return {group: torch.tensor(indices, device=rewards.device) for group, indices in members.items()}
