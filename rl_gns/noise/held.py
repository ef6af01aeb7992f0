"""Noise scales from group gradients summed over rollouts: on a frozen policy, or over a fading window."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from rl_gns.noise.decayed import WindowEstimate
from rl_gns.noise.interval import fieller, jackknife_covariance, student_quantile
from rl_gns.noise.moments import FrozenMoments
from rl_gns.noise.scale import hopeless_reasons, noise_scale
from rl_gns.records import MomentsKey, NoiseScale, Part


def frozen_scale(
    frozen: FrozenMoments,
    part: Part = "policy",
    confidence: float = 0.95,
    *,
    key: MomentsKey | None = None,
    batch_size: int | None = None,
    policy_version: int = 0,
    off_policy: bool = False,
) -> NoiseScale:
    """Noise scale of one frozen policy: noise_trace within rollouts over signal_sq across groups.

    Interval: delete-one-group jackknife (a group leaves every rollout), Fieller with t of J - 1 degrees of freedom.
    """
    estimate = frozen.estimate(part)
    ratio = estimate.long_run_ratio
    return noise_scale(
        part,
        mean=np.array([estimate.signal_sq, estimate.noise_trace]),
        cov=jackknife_covariance(estimate.deleted),
        dof=frozen.n_groups - 1,
        confidence=confidence,
        hopeless=hopeless_reasons(frozen.n_groups, key is not None and key.coupled, off_policy),
        n_groups=frozen.n_groups,
        env_steps=frozen.env_steps,
        batch_size=batch_size,
        n_rollouts=frozen.n_rollouts,
        first_version=policy_version,
        last_version=policy_version,
        pooling="frozen",
        key_id=key.id if key else None,
        long_run_ratio=ratio if math.isfinite(ratio) else None,
    )


def across_scale(
    window: WindowEstimate,
    part: Part = "policy",
    confidence: float = 0.95,
    relative_variance: float = 0.0,
    **facts: Any,
) -> NoiseScale:
    """Noise scale over a window of rollouts: mean noise_trace over the signal_sq of the mean gradient.

    |mean G|^2 <= mean |G|^2, with equality where the gradient stands still. So a gradient that turned can only make
    b_simple and `high` too large; `low` is therefore taken from the mean of |G|^2 within rollouts, which turning leaves
    alone, and the interval holds B_simple either way. Both ends: delete-one-group jackknife (a group leaves every
    rollout), to which a projection of the gradients adds the `relative_variance` of its squared norms; Fieller with t
    of J - 1 degrees of freedom.
    """
    n_groups, values = len(window.deleted), window.values[[0, 2]]
    cov = jackknife_covariance(window.deleted[:, [0, 2]])
    cov[0, 0] += relative_variance * values[0] ** 2
    scale = noise_scale(
        part,
        mean=values,
        cov=cov,
        dof=n_groups - 1,
        confidence=confidence,
        hopeless=hopeless_reasons(n_groups, coupled=False),
        n_groups=n_groups,
        env_steps=round(window.env_steps),
        n_rollouts=round(window.n_rollouts),
        pooling="across",
        window_env_steps=window.window_env_steps,
        **facts,
    )
    within = jackknife_covariance(window.deleted[:, 1:])
    low, _, _ = fieller(*window.values[1:], within, student_quantile(confidence, n_groups - 1))
    return dataclasses.replace(scale, low=min(low, scale.low))
