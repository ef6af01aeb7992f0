"""Predictions of many runs to one goal made into one, and held against the knee that a sweep has found.

Each run gives S_min and epochs E_min, with noise, sometimes below zero. Their sums are divided, never their ratios
averaged:

    B_crit = sum epochs E_min / sum S_min.

Interval: runs of one batch size may err alike (its columns and windows are the same, and theory may not hold), so the
independent units are the batch sizes where there are at least 3, else the runs. With u_k the sum over the runs of unit
k of (S_min, epochs E_min) less their mean over all n runs,

    Cov of the means = K / (K - 1) sum_k u_k u_k' / n^2,

and B_crit by Fieller, t with K - 1 degrees of freedom. Small batches give by far the noisiest numbers; units of unequal
variance make such an interval too wide, not too narrow (for normal units, at 90 % up to K = 14: Bakirov and Szekely
2005, Ibragimov and Mueller 2010). A single run has the interval of its own blocks of probes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rl_gns.noise.interval import fieller, student_quantile
from rl_gns.noise.run_prediction import Interval, RunPrediction

CONFIDENCE = 0.9
"""That of a swept knee, so that the two can be held against each other."""
AGREE_WORDS = {True: "they agree", False: "they do not agree", None: "too wide to tell"}
"""`Comparison.agree` for people."""
LEAST_UNITS = 3
"""Batch sizes below which runs are the units (a choice: t of one degree of freedom says nothing)."""


@dataclass(frozen=True)
class GoalPrediction:
    """What one run's noise scales up to a goal predict."""

    s_min: float
    """Optimizer steps in the limit of large batches."""
    e_min: float
    """Fresh env steps in the limit of small batches."""
    b_crit: float | None
    """Env steps an optimizer step; None where S_min is not above zero."""
    low: float
    """Interval of B_crit from the run's own blocks of probes."""
    high: float | None
    gamma: float | None
    covered: float
    """Share of the optimizer steps near a probe."""
    epochs: int
    minibatches: int


@dataclass(frozen=True)
class BatchPrediction:
    """The runs of one batch size; the interval is from the spread between them, or a single run's own."""

    batch_size: int
    n_runs: int
    s_min: float
    e_min: float
    b_crit: float | None
    low: float
    high: float | None


@dataclass(frozen=True)
class PooledPrediction:
    """One goal's front, predicted from all runs."""

    s_min: Interval
    s_min_rollouts: Interval
    """S_min divided by the optimizer steps of a rollout."""
    e_min: Interval
    b_crit: float | None
    """Env steps an optimizer step; None where the runs' full-batch steps sum to zero or less."""
    low: float
    high: float | None
    """None where unbounded."""
    b_crit_rollout: Interval
    """B_crit a rollout: times minibatches."""
    confidence: float
    unit: Literal["batch sizes", "runs", "blocks of probes"]
    """What the interval takes for independent."""
    n_units: int
    n_runs: int
    covered: float
    """Mean over runs."""
    epochs: int
    minibatches: int
    by_batch_size: list[BatchPrediction]


@dataclass(frozen=True)
class Comparison:
    """Predicted over swept B_crit."""

    ratio: float | None
    low: float
    high: float | None
    agree: bool | None
    """The interval holds 1; None where it does and has no end on one side, so that little could contradict it."""


def goal_prediction(found: RunPrediction) -> GoalPrediction:
    """The flat form of one run's prediction."""
    return GoalPrediction(
        s_min=found.s_min.value or 0.0,
        e_min=found.e_min.value or 0.0,
        b_crit=found.b_crit.value,
        low=found.b_crit.low or 0.0,
        high=found.b_crit.high,
        gamma=found.gamma.value,
        covered=found.covered,
        epochs=found.epochs,
        minibatches=found.minibatches,
    )


def pool_runs(
    runs: Sequence[GoalPrediction], batch_size: Sequence[int], confidence: float = CONFIDENCE
) -> PooledPrediction:
    """One prediction from `runs`, of `batch_size [n]` each. ValueError for none, or of different epochs and
    minibatches, whose fronts are never pooled."""
    if not runs or len({(run.epochs, run.minibatches) for run in runs}) != 1:
        raise ValueError("predictions are pooled over one run or more, all of the same epochs and minibatches")
    epochs, minibatches = runs[0].epochs, runs[0].minibatches
    sizes = np.asarray(batch_size)
    by_size = len(np.unique(sizes)) >= LEAST_UNITS
    owner = sizes if by_size else np.arange(len(runs))
    mean, cov = _mean(_pairs(runs), owner)
    b_crit, low, high = _ratio(runs, owner, confidence)
    n_units = len(np.unique(owner))
    half = student_quantile(confidence, n_units - 1) * np.sqrt(np.diag(cov)) if n_units > 1 else None
    s_min, weighted = (_interval(mean[i], None if half is None else half[i]) for i in range(2))
    return PooledPrediction(
        s_min=s_min,
        s_min_rollouts=_scaled(s_min, 1 / (epochs * minibatches)),
        e_min=_scaled(weighted, 1 / epochs),
        b_crit=b_crit,
        low=low,
        high=high,
        b_crit_rollout=_scaled(Interval(b_crit, low, high), minibatches),
        confidence=confidence,
        unit="blocks of probes" if len(runs) == 1 else "batch sizes" if by_size else "runs",
        n_units=n_units,
        n_runs=len(runs),
        covered=float(np.mean([run.covered for run in runs])),
        epochs=epochs,
        minibatches=minibatches,
        by_batch_size=[_of_one_size(runs, sizes, size, confidence) for size in np.unique(sizes)],
    )


def _of_one_size(runs: Sequence[GoalPrediction], sizes: np.ndarray, size: int, confidence: float) -> BatchPrediction:
    these = [run for run, other in zip(runs, sizes, strict=True) if other == size]
    s_min, weighted = _pairs(these).mean(axis=0)
    knee = _ratio(these, np.arange(len(these)), confidence)
    return BatchPrediction(int(size), len(these), float(s_min), float(weighted) / these[0].epochs, *knee)


def _pairs(runs: Sequence[GoalPrediction]) -> np.ndarray:
    """[n, 2] (S_min, epochs E_min)."""
    return np.array([(run.s_min, run.epochs * run.e_min) for run in runs])


def _mean(pairs: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean [2], its covariance [2, 2] from the spread between units; infinite for a single one)."""
    mean, units = pairs.mean(axis=0), np.unique(owner)
    if len(units) < 2:
        return mean, np.full((2, 2), math.inf)
    sums = np.array([(pairs[owner == unit] - mean).sum(axis=0) for unit in units])
    return mean, len(units) / (len(units) - 1) * sums.T @ sums / len(pairs) ** 2


def _ratio(
    runs: Sequence[GoalPrediction], owner: np.ndarray, confidence: float
) -> tuple[float | None, float, float | None]:
    """(B_crit, low, high)."""
    if len(runs) == 1:
        return runs[0].b_crit, runs[0].low, runs[0].high
    (s_min, weighted), cov = _mean(_pairs(runs), owner)
    dof = len(np.unique(owner)) - 1
    low, high, _ = fieller(s_min, weighted, cov, student_quantile(confidence, dof))
    return float(weighted / s_min) if s_min > 0 else None, low, high if math.isfinite(high) else None


def _interval(value: float, half_width: float | None) -> Interval:
    if half_width is None:
        return Interval(float(value), None, None)
    return Interval(float(value), float(value - half_width), float(value + half_width))


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(*(None if number is None else number * factor for number in dataclasses.astuple(interval)))


def hold_against(predicted: Mapping[str, Any], swept: Mapping[str, Any]) -> Comparison:
    """`b_crit`, `low`, `high` of both, with intervals of one confidence; None and 0 are what is not known.

    In logarithms each distance from the ratio to its limit is the root of the summed squares of the two numbers' own
    (MOVER, Zou and Donner 2008, for independent estimates: here the noise of gradients and the luck of crossings).
    Where a number is missing the limits are divided, which holds at least 1 - 2 (1 - confidence).
    """
    (p, p_low, p_high), (f, f_low, f_high) = _logs(predicted), _logs(swept)
    low, high = p_low - f_high, p_high - f_low
    ratio = p - f
    if math.isfinite(ratio):
        low, high = ratio - math.hypot(p - p_low, f_high - f), ratio + math.hypot(p_high - p, f - f_low)
    inside, bounded = low <= 0 <= high, math.isfinite(low) and math.isfinite(high)
    return Comparison(
        ratio=math.exp(ratio) if math.isfinite(ratio) else None,
        low=math.exp(low),
        high=math.exp(high) if math.isfinite(high) else None,
        agree=(True if bounded else None) if inside else False,
    )


def _logs(known: Mapping[str, Any]) -> tuple[float, float, float]:
    value, low, high = known["b_crit"], known["low"], known["high"]
    return (
        math.log(value) if value else math.nan,
        math.log(low) if low else -math.inf,
        math.log(high) if high else math.inf,
    )
