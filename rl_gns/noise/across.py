"""The running noise scale across rollouts, which a trainer feeds beside the pool: three fading windows, one chosen.

A longer window is less noisy, but sees a gradient that turns as too small. So the sums are held at three lengths, and
the longest is used whose signal no shorter one exceeds by more than a standard error of their difference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rl_gns.noise.decayed import DecayedMoments, WindowEstimate
from rl_gns.noise.held import across_scale
from rl_gns.noise.interval import fieller, jackknife_covariance, student_quantile
from rl_gns.noise.moments import gram_signal_trace, leave_one_out
from rl_gns.noise.pooling import obstacle
from rl_gns.noise.projection import DIMENSIONS, Projection
from rl_gns.records import PARTS, GroupMoments, MomentsKey, NoiseScale, Part

LADDER = (1.0, 1 / 4, 1 / 16)
"""Windows, in units of the longest."""
TOLERANCE = 1.0
"""Standard errors by which a shorter window's signal may be larger. Simulated: at 1 a standing gradient keeps the
longest window in nine of ten cases, and turning lowers the signal by at most 1.2 half-widths of its interval on
average; at 1.5 by twice that."""

COUNTERS = ("_n_groups", "_began_at", "_first_version", "_last_version", "_batch_size", "_batch_size_rollouts")


class Across:
    """Gradient sums of J groups over a window of rollouts, for each part (noise/decayed.py: formulas and targets).

    Groups must hold the same columns from rollout to rollout (new columns may join any of them). It starts anew when
    the key, J or P changes, and leaves out what the pool leaves out, and probes of two groups. Memory and checkpoint:
    3 windows x 2 parts x J x min(P, 16,381) x 8 bytes, 12.6 MB for 16 groups.
    """

    def __init__(
        self, window_env_steps: float, confidence: float = 0.95, seed: int = 0, dimensions: int = DIMENSIONS
    ) -> None:
        if not window_env_steps > 0:
            raise ValueError(f"window_env_steps must be positive, got {window_env_steps}")
        self.window_env_steps, self.confidence = window_env_steps, confidence
        self.key: MomentsKey | None = None
        self._seed, self._dimensions = seed, dimensions
        self._projection: Projection | None = None
        self._clear(0)

    def _clear(self, n_groups: int) -> None:
        self._n_groups = n_groups
        self._began_at = self._first_version = self._last_version = self._batch_size_rollouts = 0
        self._batch_size: int | None = None
        self._windows = [DecayedMoments(share * self.window_env_steps) for share in LADDER]
        self._scales: dict[str, NoiseScale] | None = None

    def add(self, gradients: Mapping[str, np.ndarray], moments: GroupMoments, at_env_steps: int) -> None:
        """The rollout that ended at E = `at_env_steps`: `gradients` {'policy', 'rest'} -> [J, P], and their moments."""
        n_parameters = gradients["policy"].shape[1]
        if self._projection is None or self._projection.n_parameters != n_parameters:
            self._projection, self._n_groups = Projection(n_parameters, self._seed, self._dimensions), 0
        if moments.key != self.key or moments.n_groups != self._n_groups:
            self.key = moments.key
            self._clear(moments.n_groups)
        if obstacle(moments) is None and moments.n_groups > 2:
            self._take(gradients, moments, at_env_steps)

    def _take(self, gradients: Mapping[str, np.ndarray], moments: GroupMoments, at_env_steps: int) -> None:
        env_steps = int(moments.env_steps.sum())
        if not self._windows[0].weight:
            self._began_at, self._first_version = at_env_steps - env_steps, moments.policy_version
        self._last_version, self._scales = moments.policy_version, None
        if moments.batch_size != self._batch_size:
            self._batch_size, self._batch_size_rollouts = moments.batch_size, 0
        self._batch_size_rollouts += 1
        projected = {part: self._projection(matrix) for part, matrix in gradients.items()}
        within = {part: _within(moments.gram[part], moments.env_steps) for part in PARTS}
        for window in self._windows:
            window.add(projected, within, env_steps, at_env_steps, begins_anew=self._batch_size_rollouts == 1)

    def estimates(self, part: Part) -> list[WindowEstimate]:
        """Of each window, the longest first."""
        return [window.estimate(part) for window in self._windows]

    def noise_scales(self) -> dict[str, NoiseScale] | None:
        """part -> noise scale over the chosen window; None while there is nothing in it."""
        if self._scales is None and self._windows[0].weight:
            self._scales = {part: self._scale(part) for part in PARTS}
        return self._scales

    def _scale(self, part: Part) -> NoiseScale:
        windows = self.estimates(part)
        chosen = windows[longest_steady(windows)]
        scale = across_scale(
            chosen,
            part,
            self.confidence,
            self._projection.relative_variance,
            first_version=self._first_version,
            last_version=self._last_version,
            key_id=self.key.id if self.key else None,
            batch_size=self._batch_size,
            batch_size_env_steps=round(chosen.newest_share * chosen.env_steps),
            batch_size_rollouts=self._batch_size_rollouts,
            **coherence(windows[0], self.confidence, self._projection.relative_variance),
        )
        return in_training_steps(scale, self._windows[0].ended_at - self._began_at)

    def state(self) -> dict[str, Any]:
        """Everything: plain JSON values and arrays."""
        plain = ("window_env_steps", "confidence", "_seed", "_dimensions", *COUNTERS)
        return {
            **{name.lstrip("_"): getattr(self, name) for name in plain},
            "n_parameters": self._projection.n_parameters if self._projection else None,
            "key": dataclasses.asdict(self.key) if self.key else None,
            "windows": [window.state() for window in self._windows],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Across:
        """The accumulator that `state()` described; later results are the same to the bit."""
        across = cls(state["window_env_steps"], state["confidence"], state["seed"], state["dimensions"])
        across.key = MomentsKey(**state["key"]) if state["key"] else None
        if state["n_parameters"] is not None:
            across._projection = Projection(state["n_parameters"], state["seed"], state["dimensions"])
        for name in COUNTERS:
            setattr(across, name, state[name.lstrip("_")])
        across._windows = [DecayedMoments.from_state(window) for window in state["windows"]]
        return across


def longest_steady(windows: Sequence[WindowEstimate]) -> int:
    """Index of the longest window (longest first) whose signal no shorter one exceeds by more than TOLERANCE standard
    errors of the difference: the jackknife's, which knows that both windows hold the same groups."""
    return next(
        i for i, window in enumerate(windows) if not any(_exceeds(shorter, window) for shorter in windows[i + 1 :])
    )


def coherence(
    window: WindowEstimate, confidence: float = 0.95, relative_variance: float = 0.0
) -> dict[str, float | None]:
    """signal_sq / within_signal_sq and Fieller's interval for it, with jackknife covariances and t of J - 1 degrees of
    freedom. signal_sq alone is of projected gradients, all groups by one projection: no jackknife sees that error, so
    its `relative_variance` is added. No value where the denominator is not above zero; no upper limit where its
    interval touches zero."""
    quantile = student_quantile(confidence, len(window.deleted) - 1)
    across, within = window.signal_sq, window.within_signal_sq
    cov = jackknife_covariance(window.deleted[:, [1, 0]])
    cov[1, 1] += relative_variance * across**2
    low, high, _ = fieller(within, across, cov, quantile)
    return {
        "coherence": across / within if within > 0 else None,
        "coherence_low": low,
        "coherence_high": high if math.isfinite(high) else None,
    }


def in_training_steps(scale: NoiseScale, elapsed_env_steps: float) -> NoiseScale:
    """`env_steps_needed` counted in env steps of training.

    After t of them a fading window holds tanh(t / (2 window)) of the effective env steps that it ever comes to. None,
    and said in the reason, where more are needed.
    """
    if not scale.env_steps_needed:
        return scale
    twice = 2 * scale.window_env_steps
    share = (1 + scale.env_steps_needed / scale.env_steps) * math.tanh(elapsed_env_steps / twice)
    if share < 1:
        needed = max(1, math.ceil(twice * math.atanh(share) - elapsed_env_steps))
        return dataclasses.replace(scale, env_steps_needed=needed)
    reason = f"{scale.reason}; the window of {scale.window_env_steps:,.0f} env steps is too short for it"
    return dataclasses.replace(scale, env_steps_needed=None, reason=reason)


def _exceeds(shorter: WindowEstimate, window: WindowEstimate) -> bool:
    variance = jackknife_covariance(shorter.deleted[:, :1] - window.deleted[:, :1])[0, 0]
    return shorter.signal_sq - window.signal_sq > TOLERANCE * float(variance) ** 0.5


def _within(gram: np.ndarray, env_steps: np.ndarray) -> np.ndarray:
    """[J + 1, 2]: (signal_sq, noise_trace) of all groups, then without each."""
    return np.vstack([gram_signal_trace(gram, env_steps), np.column_stack(leave_one_out(gram, env_steps))])
