"""The running pool that a trainer feeds, one rollout's moments at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from rl_gns.noise.control_check import ControlReading, control_row, reading
from rl_gns.noise.moments import signal_and_trace
from rl_gns.noise.scale import batch_sizes, pool_series
from rl_gns.records import PARTS, GroupMoments, MomentsKey, NoiseScale, Part


class Pool:
    """Signal, trace and env steps of the newest rollouts under one key, for each part.

    It starts anew when the key changes, holds the rollouts that ended within the newest `window_env_steps` of
    training, probed or not (None: all of them), and leaves out coupled, off-policy and non-finite moments and those of
    empty groups, counted in `skipped`. A change of the batch size is no change of the key: its rollouts stay, in blocks
    of their own, and weights of env steps decide how rollouts of different size count.
    """

    def __init__(self, window_env_steps: float | None = None, confidence: float = 0.95) -> None:
        if window_env_steps is not None and not window_env_steps > 0:
            raise ValueError(f"window_env_steps must be positive or None, got {window_env_steps}")
        self.window_env_steps = window_env_steps
        self.confidence = confidence
        self.skipped = {"coupled": 0, "off_policy": 0, "not_finite": 0, "empty_groups": 0}
        self.key: MomentsKey | None = None
        self._clear()

    def _clear(self) -> None:
        # (env_steps, n_groups, policy_version, E at its end, B)
        self._rollouts: list[tuple[int, int, int, int, int | None]] = []
        self._series: dict[str, list[tuple[float, float]]] = {part: [] for part in PARTS}
        self._control: list[np.ndarray | None] = []
        self._scales: dict[str, NoiseScale] | None = None
        self._reading: ControlReading | None = None

    @property
    def n_rollouts(self) -> int:
        return len(self._rollouts)

    def add(self, moments: GroupMoments, at_env_steps: int) -> None:
        """Takes in the moments of the rollout that ended at E = `at_env_steps`, or counts why not."""
        if moments.key != self.key:
            self.key = moments.key
            self._clear()
        reason = obstacle(moments)
        if reason:
            self.skipped[reason] += 1
            return
        size = int(moments.env_steps.sum())
        self._rollouts.append((size, moments.n_groups, moments.policy_version, int(at_env_steps), moments.batch_size))
        for part in PARTS:
            self._series[part].append(signal_and_trace(moments, part))
        self._control.append(control_row(moments))
        self._scales = self._reading = None
        self._forget()

    def noise_scales(self) -> dict[str, NoiseScale] | None:
        """part -> noise scale pooled over the window (`pool_series`); None while there is nothing in it."""
        if self._scales is None and self._rollouts:
            self._scales = {part: self._pooled(np.array(self._series[part]), part) for part in PARTS}
        return self._scales

    def control(self) -> ControlReading:
        """The control channel pooled over the same rollouts, and judged; empty where one of them has none."""
        if self._reading is None:
            self._reading = self._judged()
        return self._reading

    def _judged(self) -> ControlReading:
        if not self._rollouts or any(row is None for row in self._control):
            return ControlReading()
        env_steps, _, versions, _, _ = zip(*self._rollouts, strict=True)
        rows = np.array(self._control)
        scale = dataclasses.replace(self._pooled(rows[:, :, 0]), part="control")
        return reading(scale, rows, np.array(env_steps), versions)

    def _pooled(self, series: np.ndarray, part: Part = "policy") -> NoiseScale:
        """Of a series [n, 2] of signal_sq and noise_trace."""
        env_steps, n_groups, versions, ends, sizes = zip(*self._rollouts, strict=True)
        scale = pool_series(
            *series.T,
            np.array(env_steps),
            n_groups=min(n_groups),
            batch_size=batch_sizes(sizes),
            part=part,
            confidence=self.confidence,
            first_version=versions[0],
            last_version=versions[-1],
            key_id=self.key.id if self.key else None,
        )
        spacing = (ends[-1] - ends[0] + env_steps[0]) / sum(env_steps)
        return _in_training_steps(scale, spacing, self.window_env_steps)

    def state(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        return {
            "window_env_steps": self.window_env_steps,
            "confidence": self.confidence,
            "skipped": dict(self.skipped),
            "key": dataclasses.asdict(self.key) if self.key else None,
            "rollouts": [list(row) for row in self._rollouts],
            "series": {part: [list(pair) for pair in pairs] for part, pairs in self._series.items()},
            "control": [None if row is None else row.tolist() for row in self._control],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Pool:
        """The pool that `state()` described; later results are the same to the bit."""
        pool = cls(state["window_env_steps"], state["confidence"])
        pool.skipped = dict(state["skipped"])
        pool.key = MomentsKey(**state["key"]) if state["key"] else None
        pool._rollouts = [tuple(row) for row in state["rollouts"]]
        pool._series = {part: [tuple(pair) for pair in state["series"][part]] for part in PARTS}
        pool._control = [None if row is None else np.array(row) for row in state["control"]]
        return pool

    def _forget(self) -> None:
        if self.window_env_steps is None:
            return
        oldest = self._rollouts[-1][3] - self.window_env_steps
        start = next(i for i, row in enumerate(self._rollouts) if row[3] > oldest)
        if start:
            self._rollouts = self._rollouts[start:]
            self._series = {part: pairs[start:] for part, pairs in self._series.items()}
            self._control = self._control[start:]


def _in_training_steps(scale: NoiseScale, spacing: float, window_env_steps: float | None) -> NoiseScale:
    """`env_steps_needed` counted in env steps of training, of which only one in `spacing` is probed; None, and said in
    the reason, where the window forgets too soon."""
    if not scale.env_steps_needed:
        return scale
    needed = round(scale.env_steps_needed * spacing)
    if window_env_steps is None or scale.env_steps * spacing + needed <= window_env_steps:
        return dataclasses.replace(scale, env_steps_needed=needed)
    reason = f"{scale.reason}; the window of {window_env_steps:,.0f} env steps is too short for it"
    return dataclasses.replace(scale, env_steps_needed=None, reason=reason)


def obstacle(moments: GroupMoments) -> str | None:
    """Why these moments are never pooled, a key of `Pool.skipped`; None where they may be."""
    if moments.coupled:
        return "coupled"
    if moments.off_policy:
        return "off_policy"
    if not (moments.env_steps > 0).all() or moments.n_groups < 2:
        return "empty_groups"
    return None if moments.finite else "not_finite"
