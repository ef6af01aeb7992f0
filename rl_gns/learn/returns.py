"""Generalised advantage estimation, and the statistics that scale advantages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


def gae(
    reward: np.ndarray,
    value: np.ndarray,
    last_value: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    """Advantages [T, N] (Schulman et al. 2016, eq. 16), t = 0 .. T-1:

        delta_t = r_t + gamma V(o_{t+1}) (1 - terminated_t) - V(o_t)
        A_t     = delta_t + gamma lambda (1 - terminated_t or truncated_t) A_{t+1},   A_T = 0.

    `reward`, `value`, `terminated`, `truncated`: [T, N]; `last_value` [N] = V(o_T). A time limit bootstraps, a
    death does not. The observation after an ended episode is its true last one, so V of the autoreset row is the
    value that a truncated step needs; the row's own advantage is meaningless and masked by `valid`.
    """
    next_value = np.concatenate([value[1:], last_value[None]])
    delta = reward + gamma * next_value * ~terminated - value
    carry = np.float32(gamma * gae_lambda) * ~(terminated | truncated)
    advantage = np.empty_like(value)
    following = np.zeros_like(last_value)
    for t in range(len(reward) - 1, -1, -1):
        following = delta[t] + carry[t] * following
        advantage[t] = following
    return advantage


@dataclass
class EwmaStatistics:
    """Mean and standard deviation of advantages over earlier rollouts, weighted exp(-age / memory_env_steps).

    Frozen before a rollout is looked at, so that the groups of that rollout stay independent.
    """

    memory_env_steps: int
    weight: float = 0.0
    total: float = 0.0
    total_sq: float = 0.0

    def add(self, advantage: np.ndarray) -> None:
        """Fold one rollout's valid, unscaled advantages in."""
        values = advantage.astype(np.float64)
        self.add_sums(len(values), float(values.sum()), float((values**2).sum()))

    def add_sums(self, env_steps: int, total: float, total_sq: float) -> None:
        """The same from the number, the sum and the sum of squares of those advantages."""
        keep = math.exp(-env_steps / self.memory_env_steps)
        self.weight = keep * self.weight + env_steps
        self.total = keep * self.total + total
        self.total_sq = keep * self.total_sq + total_sq

    def mean_std(self) -> tuple[float, float] | None:
        """(mean, standard deviation), or None before the first rollout."""
        if self.weight == 0:
            return None
        mean = self.total / self.weight
        return mean, math.sqrt(max(self.total_sq / self.weight - mean**2, 0.0))

    def state(self) -> dict[str, Any]:
        return {"weight": self.weight, "total": self.total, "total_sq": self.total_sq}

    def restore(self, state: dict[str, Any]) -> None:
        self.weight, self.total, self.total_sq = state["weight"], state["total"], state["total_sq"]
