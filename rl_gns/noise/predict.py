"""What a run's log of noise scales says about the front, before any sweep (McCandlish et al. 2018, appendix D).

A step at batch size B moves as far as ds = 1 / (1 + b / B) of a full-batch step, b being the noise scale there. In
full-batch steps s the whole run is S_min = int ds, E_min = int b ds / epochs, and B_crit of its goal is the ds-mean of
b: not a mean over updates or env steps, and not the last value. With b = noise_trace / signal_sq the same is

    ds = B signal_sq / (B signal_sq + noise_trace),   b ds = B noise_trace / (B signal_sq + noise_trace),

which needs no ratio: a stretch whose signal estimate is zero or negative by noise counts in full, where leaving it out
would favour the stretches of small noise scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rl_gns.noise.interval import fieller, student_quantile


@dataclass(frozen=True)
class Prediction:
    """A front predicted from one run; None where it is not defined."""

    s_min: float | None
    """Full-batch optimizer steps in the part of the run that is covered; None where nothing is."""
    e_min: float | None
    """Fresh env steps in the limit of small batches, over the same part."""
    b_crit: float | None
    """Env steps an optimizer step: epochs e_min / s_min; None where s_min <= 0."""
    gamma: float | None
    """(sum ds sqrt b)^2 / (sum ds . sum ds b), in (0, 1]: below 1 an adaptive batch size can save (eq. D.4). None
    where a signal was not positive."""
    covered: float
    """Fraction of the optimizer steps for which signal and trace were known."""
    epochs: int


def predict_front(
    optimizer_steps: np.ndarray,
    batch_size: np.ndarray,
    signal_sq: np.ndarray,
    noise_trace: np.ndarray,
    epochs: int = 1,
) -> Prediction:
    """B_crit of the goal reached at the end of a log of n lines.

    `optimizer_steps [n]`: steps taken in each line (increments); `batch_size [n]`: B, env steps; `signal_sq [n]` and
    `noise_trace [n]`: the pooled estimates at each line, NaN where none is known (such lines are left out, and
    `covered` tells how much stays). S_min = sum ds, E_min = sum b ds / epochs, B_crit = sum b ds / sum ds.
    """
    steps, batch, signal, trace = (
        np.asarray(x, np.float64) for x in (optimizer_steps, batch_size, signal_sq, noise_trace)
    )
    _check(steps, batch, signal, trace, epochs)
    known = np.isfinite(signal) & np.isfinite(trace) & (batch * signal + trace > 0)
    covered = float(steps[known].sum() / steps.sum())
    if covered == 0:
        return Prediction(None, None, None, None, 0.0, epochs)
    batch, signal, trace = batch[known], signal[known], trace[known]
    share = steps[known] * batch / (batch * signal + trace)
    s_min, weighted = float(share @ signal), float(share @ trace)
    b_crit = weighted / s_min if s_min > 0 else None
    root = float(share @ np.sqrt(signal * trace)) if (signal > 0).all() else None
    gamma = root**2 / (s_min * weighted) if root else None
    return Prediction(s_min, weighted / epochs, b_crit, gamma, covered, epochs)


@dataclass(frozen=True)
class PooledPrediction:
    """One goal's B_crit, predicted from several runs."""

    b_crit: float | None
    """Env steps an optimizer step; None where the runs' full-batch steps sum to zero or less."""
    low: float
    high: float | None
    """Interval from the spread between runs; high is None where unbounded."""
    confidence: float
    n_runs: int
    covered: float
    """Fraction of the runs' optimizer steps for which a noise scale was known, mean over runs."""


def pool_predictions(predictions: Sequence[Prediction], confidence: float = 0.9) -> PooledPrediction:
    """epochs sum E_min / sum S_min over independent runs to one goal, never a mean of the runs' ratios.

    Interval: Fieller on the covariance of (S_min, epochs E_min) between runs, t with runs - 1 degrees of freedom.
    ValueError below two runs that cover anything.
    """
    pairs = np.array([(p.s_min, p.epochs * p.e_min) for p in predictions if p.s_min is not None])
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} runs with a known noise scale: the spread between runs needs at least 2")
    s_min, weighted = pairs.mean(axis=0)
    cov = np.cov(pairs.T) / len(pairs)
    low, high, _ = fieller(s_min, weighted, cov, student_quantile(confidence, len(pairs) - 1))
    return PooledPrediction(
        b_crit=float(weighted / s_min) if s_min > 0 else None,
        low=low,
        high=high if math.isfinite(high) else None,
        confidence=confidence,
        n_runs=len(pairs),
        covered=float(np.mean([p.covered for p in predictions])),
    )


def _check(steps: np.ndarray, batch: np.ndarray, signal: np.ndarray, trace: np.ndarray, epochs: int) -> None:
    if steps.ndim != 1 or not (steps.shape == batch.shape == signal.shape == trace.shape) or not len(steps):
        raise ValueError("optimizer_steps, batch_size, signal_sq and noise_trace must be arrays [n] of one n >= 1")
    if (steps < 0).any() or not steps.sum() > 0 or not (batch > 0).all() or epochs < 1:
        raise ValueError("optimizer_steps must be increments >= 0 with a positive sum, batch_size and epochs positive")
    if (trace < 0).any():
        raise ValueError("noise_trace must be positive, or NaN where it is not known")
