"""The control channel: a synthetic gradient of known noise scale that rides beside every transition.

In rollout r row t of column n carries, in D = COORDINATES coordinates,

    y[t, n] = G + c[n, r] + e[t, n],   |G|^2 = SIGNAL_SQ,   e ~ N(0, row_variance I),  new in every row,
    c[n, r] = rho c[n, r-1] + sqrt(1 - rho^2) N(0, column_variance I),   rho = OVER_ROLLOUTS,

so two rows of a column correlate by WITHIN_COLUMNS within a rollout, whichever of its waves they are in, and its
rollouts are AR(1). It goes the way of the real gradient: block, batch, group means, dot products, pool. A group of
columns with n_c valid rows each over all waves, N_k in all, has

    group_variance v_k = E|g_k - G|^2 = D (row_variance N_k + column_variance sum_c n_c^2) / N_k^2,

(a column that is seeded anew between two waves has a noise of its own before and after, and counts there as two),
from which everything that an estimate of it should read follows (`noise/control_check.py`). Full columns of T rows have
B_simple = D (row_variance + T column_variance) / |G|^2; were transitions shuffled, it would read
1 + (T - 1) WITHIN_COLUMNS times lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl_gns.config import RunConfig

COORDINATES = 8
"""32 bytes an env step; the noise's effective rank."""
SIGNAL_SQ = 1.0
WITHIN_COLUMNS = 0.8
OVER_ROLLOUTS = 0.8
B_SIMPLE_SHARE = 0.5
"""B_simple in rollouts of the configured batch size. All four are choices. By them a 95 % interval resolves after about
35 probes each 10 rollouts, and 220 each rollout (eight blocks of three autocorrelation times); a constant number of
env steps would resolve at some batch sizes only."""


@dataclass(frozen=True)
class ControlLaw:
    """Variances of one coordinate, in gradient^2."""

    row_variance: float
    column_variance: float

    def b_simple(self, segment_steps: int) -> float:
        """Of full columns of T = `segment_steps` rows (of W waves: W T), in env steps."""
        return COORDINATES * (self.row_variance + segment_steps * self.column_variance) / SIGNAL_SQ

    def group_variance(self, column_env_steps: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
        """v_k [J] of groups of columns (index arrays) with `column_env_steps` [G, N] valid rows in each generation."""
        rows = np.array([column_env_steps[:, group].sum() for group in groups], np.float64)
        squares = np.array([(column_env_steps[:, group].astype(np.float64) ** 2).sum() for group in groups])
        held = np.maximum(rows, 1.0)
        return COORDINATES * (self.row_variance * rows + self.column_variance * squares) / held**2


def control_law(config: RunConfig) -> ControlLaw | None:
    """The law of a run's control channel; None where nothing is probed."""
    if config.noise.every == 0:
        return None
    b_simple = B_SIMPLE_SHARE * config.batch.rollout_env_steps
    steps = config.batch.segment_steps * config.rollout.waves
    variance = b_simple * SIGNAL_SQ / (COORDINATES * (1 + (steps - 1) * WITHIN_COLUMNS))
    return ControlLaw((1 - WITHIN_COLUMNS) * variance, WITHIN_COLUMNS * variance)


def coordinates(config: RunConfig) -> int:
    """D of a run's blocks: 0 where nothing is probed."""
    return COORDINATES if control_law(config) else 0


class ControlStream:
    """The synthetic gradients of one collector's columns, from a random stream of their own."""

    def __init__(self, config: RunConfig, collector_id: int, generation: int):
        self._law, self._n_columns = control_law(config), config.rollout.columns_per_collector
        self._rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(4, collector_id, generation)))
        self._column = self._innovation()

    def _innovation(self) -> np.ndarray:
        """[N, D] float64, stationary."""
        if self._law is None:
            return np.zeros((self._n_columns, 0))
        return np.sqrt(self._law.column_variance) * self._rng.standard_normal((self._n_columns, COORDINATES))

    def draw(self, segment_steps: int, wave: int = 0) -> np.ndarray:
        """y [T, N, D] float32 of the next rollout, or (`wave` > 0) of more rows of the same one; D = 0 where nothing is
        probed."""
        if self._law is None:
            return np.empty((segment_steps, self._n_columns, 0), np.float32)
        if wave == 0:
            self._column = OVER_ROLLOUTS * self._column + np.sqrt(1 - OVER_ROLLOUTS**2) * self._innovation()
        drawn = self._rng.standard_normal((segment_steps, *self._column.shape), dtype=np.float32)
        drawn *= np.float32(np.sqrt(self._law.row_variance))
        drawn += (np.sqrt(SIGNAL_SQ / COORDINATES) + self._column).astype(np.float32)
        return drawn

    def state(self) -> dict[str, Any]:
        """Everything that the next draw depends on."""
        return {"rng": self._rng.bit_generator.state, "column": self._column.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self._rng.bit_generator.state = state["rng"]
        self._column = np.array(state["column"])


@dataclass(frozen=True)
class ControlMoments:
    """The control channel's share of a probe."""

    gram: np.ndarray
    """[J, J] float64: dot products of the groups' mean synthetic gradients."""
    group_variance: np.ndarray
    """[J] float64: v_k, what E|g_k - G|^2 is, from the law and the valid rows of each column alone."""


def tripped(record: dict[str, Any]) -> bool:
    """Whether the control channel did not read the truth, by a record of metrics.jsonl (older ones have none)."""
    return record.get("noise_control_flag") in ("reads low", "reads high")


def trip_words(record: dict[str, Any]) -> str:
    """`reads 16 times too low: B_simple 32 where 512 env steps are true (...)` of a record that `tripped`."""
    found, truth = record["noise_control"], record["noise_control_truth"]
    terms = ", ".join(f"{name} {found[name] / truth[name]:.2g}" for name in ("noise_trace", "signal_sq"))
    where = (
        f"where {truth['b_simple']:,.4g} env steps are true ({terms} times the truth, env step {record['env_steps']:,})"
    )
    if not found["b_simple"]:
        nothing = "no signal" if found["b_simple"] is None else "no noise"
        return f"{record['noise_control_flag'].replace('reads', 'reads too')}: {nothing} {where}"
    ratio = found["b_simple"] / truth["b_simple"]
    times = f"{max(ratio, 1 / ratio):,.2g} times too {'low' if ratio < 1 else 'high'}"
    return f"reads {times}: B_simple {found['b_simple']:,.4g} {where}"
