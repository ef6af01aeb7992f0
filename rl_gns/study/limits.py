"""How hard runs met their limits: the KL of their steps, and how often rows and gradients were clipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LIMITS = ("approx_kl", "clip_fraction", "grad_clip_fraction")
"""Fields of a record, means over the optimizer steps of a rollout."""


@dataclass(frozen=True)
class AtBatchSize:
    """How hard the runs of the chosen learning rate met their limits, at one batch size."""

    batch_size: int
    runs: int
    approx_kl: float | None
    """Nats, collecting to updated policy: mean over the optimizer steps of a run to the goal, then over runs. None
    where no rollout ended before the goal."""
    clip_fraction: float | None
    """Of rows, likewise; 0 without a clip."""
    grad_clip_fraction: float | None
    """Of optimizer steps, likewise."""


def limit_means(records: Sequence[Mapping[str, Any]], until: float) -> dict[str, float | None]:
    """Mean of each of `LIMITS` over the rollouts up to `until` optimizer steps; each gives as many steps."""
    before = [r for r in records if r["optimizer_steps"] <= until]
    return {name: known_mean([r[name] for r in before]) for name in LIMITS}


def known_mean(values: Sequence[float | None]) -> float | None:
    """Mean of those that are not None; None where all are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
