"""Rewards for trainers: scores of frames in memory, in batches, with gradients if they are wanted."""

from .groups import best_of_n, group_advantages
from .reward import AIGCVQAReward
from .trainers import flow_grpo_reward, trl_reward

__all__ = ["AIGCVQAReward", "best_of_n", "flow_grpo_reward", "group_advantages", "trl_reward"]
