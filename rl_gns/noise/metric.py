"""Noise scale of a frozen policy in another metric M: tr(M Sigma) / G'MG, from the Gram matrices g_i' M g_j.

M = A'A is a metric as good as the plain one: gradients A g instead of g. A Hessian is no such metric; the formulas hold
for it all the same, but either number may be negative, and then the noise scale is undefined.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from rl_gns.noise.interval import jackknife_covariance
from rl_gns.noise.moments import leave_one_out, mean_of_pairs
from rl_gns.noise.scale import hopeless_reasons, noise_scale
from rl_gns.records import NoiseScale


@dataclasses.dataclass(frozen=True)
class MetricGrams:
    """g_i' M g_j of J gradients, where M = sum_k M_k / sum_k rows_k comes from K groups of held-out columns."""

    sums: np.ndarray
    """[K, J, J] float64: g_i' M_k g_j, M_k summed over the rows of held-out group k (K = 1: M is no estimate)."""
    rows: np.ndarray
    """[K] held-out env steps; 1 where M is no estimate."""

    @classmethod
    def of(cls, features: np.ndarray) -> MetricGrams:
        """For a fixed M = A'A: `features` [J, F] = A g."""
        wide = np.asarray(features, np.float64)
        return cls((wide @ wide.T)[None], np.ones(1))

    @property
    def whole(self) -> np.ndarray:
        """[J, J]."""
        return self.sums.sum(axis=0) / self.rows.sum()

    @property
    def deleted(self) -> np.ndarray:
        """[K, J, J]: M without held-out group k; K >= 2."""
        return (self.sums.sum(axis=0) - self.sums) / (self.rows.sum() - self.rows)[:, None, None]


class MetricMoments:
    """Noise traces of one metric over rollouts; the signal comes at the end, from the gradients summed over them."""

    def __init__(self) -> None:
        self.n_rollouts, self._env_steps = 0, 0.0
        self._trace = self._deleted = self._held = np.zeros(())

    def add(self, grams: MetricGrams, env_steps: np.ndarray) -> None:
        """One rollout of J groups with `env_steps` [J]."""
        steps = np.asarray(env_steps, np.float64)
        n = steps.sum()
        self._trace = self._trace + n * _trace(grams.whole, steps)
        self._deleted = self._deleted + n * leave_one_out(grams.whole, steps)[1]
        if len(grams.rows) > 1:
            self._held = self._held + n * _trace(grams.deleted, steps)
        self._env_steps += n
        self.n_rollouts += 1

    def scale(
        self, mean: MetricGrams, confidence: float, coupled: bool = False, off_policy: bool = False, **facts: Any
    ) -> NoiseScale:
        """signal_sq = G'MG over pairs of different groups of `mean` (the groups' gradients over the measurement),
        noise_trace = tr(M Sigma) within rollouts. Interval: Fieller, with a delete-one jackknife over groups, and over
        held-out groups added to it, t of the smaller number less one. Undefined (NaN) where either is <= 0."""
        n_groups, n_held = mean.sums.shape[1], len(mean.rows)
        signal, deleted = mean_of_pairs(mean.whole)
        trace = float(self._trace / self._env_steps)
        cov = jackknife_covariance(np.stack([deleted, self._deleted / self._env_steps], axis=1))
        if n_held > 1:
            held = np.array([mean_of_pairs(gram)[0] for gram in mean.deleted])
            cov = cov + jackknife_covariance(np.stack([held, self._held / self._env_steps], axis=1))
        least = min(n_groups, n_held) if n_held > 1 else n_groups
        found = noise_scale(
            "policy",
            mean=np.array([signal, trace]),
            cov=cov,
            dof=least - 1,
            confidence=confidence,
            hopeless=hopeless_reasons(n_groups, coupled, off_policy),
            n_groups=n_groups,
            pooling="frozen",
            **facts,
        )
        return found if trace > 0 else _undefined(found, f"tr(M Sigma) = {trace:.3g} <= 0")


def defined(scale: NoiseScale) -> NoiseScale:
    """For an indefinite M: `undefined`, with the reason, where G'MG was not found above zero."""
    return scale if scale.signal_sq > 0 else _undefined(scale, f"G'HG = {scale.signal_sq:.3g} <= 0")


def _undefined(scale: NoiseScale, why: str) -> NoiseScale:
    unknown = {"b_simple": math.nan, "low": math.nan, "high": math.nan, "env_steps_needed": None}
    return dataclasses.replace(scale, resolved=False, reason=f"undefined: {why}", **unknown)


def _trace(gram: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """sum_k N_k |g_k - g|^2_M / (J - 1) of each `gram` [..., J, J], not clamped: M may be indefinite."""
    share = steps / steps.sum()
    norms = np.diagonal(gram, axis1=-2, axis2=-1) @ share
    return steps.sum() * (norms - (gram @ share) @ share) / (len(steps) - 1)
