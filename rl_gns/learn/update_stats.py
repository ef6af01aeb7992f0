"""What a rollout's optimizer steps say of themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rl_gns.learn.ppo import LossSums

TERMS = ("policy", "value", "entropy", "kl", "clipped")


@dataclass(frozen=True)
class UpdateStats:
    """Means over the optimizer steps of one rollout; None where every step was skipped."""

    optimizer_steps: int
    batch_env_steps: float | None
    policy_loss: float | None
    value_loss: float | None
    entropy: float | None
    approx_kl: float | None
    clip_fraction: float | None
    grad_norm: float | None
    grad_clip_fraction: float | None
    explained_variance: float | None


def row_sums(sums: list[LossSums]) -> dict[str, float]:
    """Each term over all micro-batches of a minibatch; 0 where there is none."""
    return {name: float(sum(getattr(s, name) for s in sums)) for name in TERMS}


def update_stats(steps: list[dict[str, float]], explained_variance: float | None) -> UpdateStats:
    """`steps`: one a step that was taken, means over its rows and `rows`, `grad_norm`, `grad_clipped`."""

    def mean(name: str) -> float | None:
        return float(np.mean([s[name] for s in steps])) if steps else None

    return UpdateStats(
        optimizer_steps=len(steps),
        batch_env_steps=mean("rows"),
        policy_loss=mean("policy"),
        value_loss=mean("value"),
        entropy=mean("entropy"),
        approx_kl=mean("kl"),
        clip_fraction=mean("clipped"),
        grad_norm=mean("grad_norm"),
        grad_clip_fraction=mean("grad_clipped"),
        explained_variance=explained_variance,
    )
