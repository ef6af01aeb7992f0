"""A front predicted from one run's log of probes, with intervals (McCandlish et al. 2018, appendix D).

At rollout i, with B_i env steps an optimizer step and n_i steps, the pooled signal s_i and trace t_i are means over the
probes within half a window on either side of it. A full-batch step is worth ds_i = B_i s_i / (B_i s_i + t_i) =
1 / (1 + B_noise / B) of an optimizer step, and to the end of the log

    S_min = sum n_i ds_i,   epochs E_min = sum n_i B_noise_i ds_i,   B_crit = epochs E_min / S_min,
    gamma = (sum n_i ds_i sqrt(B_noise_i))^2 / (S_min epochs E_min).

B_i s_i + t_i is the mean square of the probes' own gradients near rollout i, and t_i over it is a ratio of one noisy
number to another: with m probes near, ds_i reads low by about (2 / (m d)) (1 - ds_i), d the effective dimension of the
noise, at every batch size alike. So ds_i is corrected by the jackknife,

    ds_i = m ds_i - (m - 1) mean_j ds_i(without probe j),   B_noise_i ds_i = B_i (1 - ds_i),

which takes that term away; gamma, a ratio of like terms, is left as it is.

Interval: means x_b = (signal, trace) of blocks of consecutive probes, at least 3 autocorrelation times long, at least 8
of them. What x_b leaves of the line through its two neighbours is noise whatever the drift; its square, over 1.5 inside
and 6 at the ends, is the block's variance. With C_b the derivative of the numbers by x_b,

    Cov = sum_b C_b e_b e_b' C_b'

with t of (K - 2) / 2 degrees of freedom, since neighbouring e_b overlap (exact for equal variances: 1.94). B_crit by
Fieller, the others by +-. A spread around the windows' own means would not do: a block is a good part of its window.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from rl_gns.noise.blocks import MIN_BLOCKS, TAUS_PER_BLOCK, block_starts, detrended
from rl_gns.noise.interval import autocorrelation_time, fieller, student_quantile
from rl_gns.noise.scale import MIN_GROUPS

NUDGE = 1e-4
"""Change of a block's mean, in units of the largest probe, by which its influence is found: far above rounding, far
below curvature."""
BLOCKS = 24
"""Wanted where probes abound: 11 degrees of freedom (a choice)."""


@dataclass(frozen=True)
class Interval:
    """A number and its interval; None where it is not defined or unbounded."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RunPrediction:
    """What one run's noise scales say of the front to where the run ended."""

    s_min: Interval
    """Optimizer steps in the limit of large batches."""
    s_min_rollouts: Interval
    """The same in rollouts: divided by the optimizer steps of a rollout."""
    e_min: Interval
    """Fresh env steps in the limit of small batches."""
    b_crit: Interval
    """Env steps an optimizer step: epochs E_min / S_min."""
    b_crit_rollout: Interval
    """The same a rollout: times minibatches."""
    gamma: Interval
    """In (0, 1]: below 1 an adaptive batch size can save; no value where a pooled signal was not positive."""
    confidence: float
    resolved: bool
    """B_crit's interval is bounded, and there were enough blocks."""
    reason: str | None
    covered: float
    """Share of the optimizer steps that lie within half a window of a probe."""
    n_probes: int
    n_blocks: int
    epochs: int
    minibatches: int


@dataclass(frozen=True)
class RunLog:
    """What a run left behind: n rollouts, p of them probed."""

    ended_at: np.ndarray
    """[n] E at the end of each rollout."""
    optimizer_steps: np.ndarray
    """[n] taken in each (increments)."""
    batch_size: np.ndarray
    """[n] B, valid env steps an optimizer step."""
    probe: np.ndarray
    """[p] index of the rollout of each probe."""
    signal_sq: np.ndarray
    """[p] of each probe alone."""
    noise_trace: np.ndarray
    """[p]"""
    env_steps: np.ndarray
    """[p] valid env steps in each: its weight."""
    asked: np.ndarray | None = None
    """[p] B that was asked for at each, of which valid env steps fall a little short: no block spans two. None: one."""
    n_groups: int | None = None
    """J of the probe with the fewest."""


def predict_run(
    log: RunLog, window_env_steps: float, epochs: int = 1, minibatches: int = 1, confidence: float = 0.95
) -> RunPrediction:
    """The front that `log` predicts. ValueError where there is no rollout or no probe."""
    if not len(log.ended_at) or not len(log.probe):
        raise ValueError("a prediction needs rollouts, and a probe in at least one of them")
    near = np.abs(log.ended_at[:, None] - log.ended_at[log.probe]) <= window_env_steps / 2
    covered = near.any(axis=1)
    values, starts = _corrected(log, near), _blocks(log)
    n_blocks = len(starts)
    known = n_blocks > 2
    dof = max(1, (n_blocks - 2) // 2)
    cov = _covariance(log, near, starts) if known else np.full((3, 3), math.inf)
    quantile = student_quantile(confidence, dof)
    half_widths = quantile * np.sqrt(np.diag(cov))
    s_min, weighted, gamma = (_symmetric(v, half) for v, half in zip(values, half_widths, strict=True))
    low, high, _ = fieller(values[0], values[1], cov[:2, :2], quantile) if known else (0.0, math.inf, False)
    value = float(values[1] / values[0]) if values[0] > 0 else None
    b_crit = Interval(value, low, high if math.isfinite(high) else None)
    reason = _reason(log, near, n_blocks, b_crit)
    return RunPrediction(
        s_min=s_min,
        s_min_rollouts=_scaled(s_min, 1 / (epochs * minibatches)),
        e_min=_scaled(weighted, 1 / epochs),
        b_crit=b_crit,
        b_crit_rollout=_scaled(b_crit, minibatches),
        gamma=gamma,
        confidence=confidence,
        resolved=reason is None,
        reason=reason,
        covered=float(log.optimizer_steps[covered].sum() / log.optimizer_steps.sum()),
        n_probes=len(log.probe),
        n_blocks=n_blocks,
        epochs=epochs,
        minibatches=minibatches,
    )


def _covariance(log: RunLog, near: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """[3, 3] of `_numbers`, from blocks of probes that begin at `starts`."""
    owner = np.searchsorted(starts, np.arange(len(log.probe)), side="right") - 1
    series = np.stack([log.signal_sq, log.noise_trace], axis=1)
    weight = np.add.reduceat(log.env_steps, starts)
    left = _left_by_neighbours(np.add.reduceat(series * log.env_steps[:, None], starts) / weight[:, None])
    size = NUDGE * np.abs(series).max(axis=0)
    total = np.zeros((3, 3))
    for block, noise in enumerate(left):
        shifts = (owner == block)[:, None, None] * np.diag(size)
        up, down = ([_numbers(_shifted(log, sign * shifts[..., i]), near) for i in range(2)] for sign in (1, -1))
        effect = (noise / (2 * size)) @ (np.array(up) - np.array(down))
        total += np.outer(effect, effect)
    return total


def _shifted(log: RunLog, by: np.ndarray) -> RunLog:
    return replace(log, signal_sq=log.signal_sq + by[:, 0], noise_trace=log.noise_trace + by[:, 1])


def _left_by_neighbours(means: np.ndarray) -> np.ndarray:
    """[K, 2]: each block's mean less the line through its neighbours (the ends: through the two next), at the scale at
    which its variance is that of the block's mean where that is the same for all three."""
    inside = (means[1:-1] - (means[:-2] + means[2:]) / 2) / math.sqrt(1.5)
    first = (means[0] - 2 * means[1] + means[2]) / math.sqrt(6)
    last = (means[-1] - 2 * means[-2] + means[-3]) / math.sqrt(6)
    return np.vstack([first, inside, last])


def _numbers(log: RunLog, near: np.ndarray) -> np.ndarray:
    """[3] (S_min, epochs E_min, gamma); gamma NaN where not defined."""
    covered = near.any(axis=1)
    weights = near[covered] * log.env_steps
    total = weights.sum(axis=1)
    signal, trace = weights @ log.signal_sq / total, weights @ log.noise_trace / total
    size, steps = log.batch_size[covered], log.optimizer_steps[covered]
    share = steps * size / (size * signal + trace)
    s_min, weighted = share @ signal, share @ trace
    positive = bool((signal > 0).all()) and s_min > 0
    gamma = (share @ np.sqrt(signal * trace)) ** 2 / (s_min * weighted) if positive else math.nan
    return np.array([s_min, weighted, gamma])


def _corrected(log: RunLog, near: np.ndarray) -> np.ndarray:
    """[3] `_numbers`, the first two by the jackknife over the probes of each window."""
    covered = near.any(axis=1)
    size, steps, inside = log.batch_size[covered, None], log.optimizer_steps[covered], near[covered]
    weight = inside * log.env_steps
    signal, square = weight * size * log.signal_sq, weight * (size * log.signal_sq + log.noise_trace)
    signal_sum, square_sum = signal.sum(axis=1, keepdims=True), square.sum(axis=1, keepdims=True)
    whole, m = (signal_sum / square_sum)[:, 0], inside.sum(axis=1)
    rest = np.where(m[:, None] > 1, square_sum - square, 1.0)
    without = ((signal_sum - signal) / rest * inside).sum(axis=1) / m
    full = np.where(m > 1, m * whole - (m - 1) * without, whole)
    return np.array([steps @ full, steps @ (size[:, 0] * (1 - full)), _numbers(log, near)[2]])


def _blocks(log: RunLog) -> np.ndarray:
    """First probe of each block."""
    n = len(log.probe)
    residual, _ = detrended(np.stack([log.signal_sq, log.noise_trace], axis=1), np.ones(n))
    tau = max(autocorrelation_time(column) for column in residual.T)
    lengths = [n] if log.asked is None else [len(list(run)) for _, run in itertools.groupby(log.asked)]
    return block_starts(lengths, max(math.ceil(TAUS_PER_BLOCK * tau), n // BLOCKS, 1))


def _symmetric(value: float, half_width: float) -> Interval:
    if not math.isfinite(value):
        return Interval(None, None, None)
    if not math.isfinite(half_width):
        return Interval(float(value), None, None)
    return Interval(float(value), float(value - half_width), float(value + half_width))


def _scaled(interval: Interval, factor: float) -> Interval:
    numbers = (interval.value, interval.low, interval.high)
    return Interval(*(None if number is None else number * factor for number in numbers))


def _reason(log: RunLog, near: np.ndarray, n_blocks: int, b_crit: Interval) -> str | None:
    weights, size = near * log.env_steps, log.batch_size[:, None]
    square = (weights * (size * log.signal_sq + log.noise_trace)).sum(axis=1)
    if not log.optimizer_steps[near.any(axis=1)].sum():
        return "no optimizer step lies near a probe"
    if log.n_groups is not None and log.n_groups < MIN_GROUPS:
        return f"{log.n_groups} groups: at least {MIN_GROUPS} are needed"
    if (square[near.any(axis=1)] <= 0).any():
        return "the probes near some rollouts say that its gradient's mean square is not above zero"
    if n_blocks < MIN_BLOCKS:
        return f"{n_blocks} blocks of probes: at least {MIN_BLOCKS} are needed"
    if b_crit.value is None:
        return "the full-batch steps do not add up to anything above zero"
    return "the interval has no upper end" if b_crit.high is None else None
