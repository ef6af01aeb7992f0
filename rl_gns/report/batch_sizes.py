"""The runs of one front, a batch size each: what its figures and tables draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl_gns.noise.interval import student_quantile

CONFIDENCE = 0.9
"""Of the bars, that of a swept knee."""


@dataclass(frozen=True)
class BatchSize:
    """The runs at one batch size whose learning rate stands for it."""

    batch_size: int
    """B that was asked for."""
    batch_env_steps: float
    """Valid env steps that an optimizer step averaged."""
    learning_rate: float
    runs: int
    reached: int
    """Of them, the goal."""
    optimizer_steps: float | None
    """S at the goal, geometric mean of the runs that reached it; None where none did."""
    factor: float | None
    """The interval of that mean is S / factor to S factor; None below two runs."""
    epochs: int

    @property
    def env_steps(self) -> float | None:
        """E = S B / epochs."""
        return None if self.optimizer_steps is None else self.optimizer_steps * self.batch_env_steps / self.epochs

    @property
    def half_there(self) -> bool:
        """Half of its runs or more reached the goal: the quick ones among few would speak for all."""
        return 2 * self.reached >= self.runs


def by_batch_size(cells: list[dict[str, Any]], epochs: int) -> list[BatchSize]:
    """Ascending, of the chosen learning rates."""
    chosen = [cell for cell in cells if cell["chosen"]]
    sizes = sorted({cell["batch_size"] for cell in chosen})
    return [_of_one([cell for cell in chosen if cell["batch_size"] == size], epochs) for size in sizes]


def _of_one(cells: list[dict[str, Any]], epochs: int) -> BatchSize:
    first, steps = cells[0], [cell["optimizer_steps"] for cell in cells if cell["reached"]]
    mean, factor = geometric(steps)
    size, valid, rate = (first[name] for name in ("batch_size", "batch_env_steps", "learning_rate"))
    return BatchSize(size, valid, rate, len(cells), len(steps), mean, factor, epochs)


def fitted_steps(fit: dict[str, Any], batch: np.ndarray) -> np.ndarray:
    """S = S_min (1 + B_crit / B) of a fitted front."""
    return fit["s_min"] * (1 + fit["b_crit"] / batch)


def geometric(values: list[float]) -> tuple[float | None, float | None]:
    """(geometric mean, factor): the t interval of the mean of ln, from mean / factor to mean factor."""
    if not values:
        return None, None
    logs, n = np.log(values), len(values)
    if n < 2:
        return math.exp(logs[0]), None
    half = student_quantile(CONFIDENCE, n - 1) * float(logs.std(ddof=1)) / math.sqrt(n)
    return math.exp(float(logs.mean())), math.exp(min(half, 50.0))
