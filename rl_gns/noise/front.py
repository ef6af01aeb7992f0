"""The front of optimizer steps S against fresh env steps E, and its knee (McCandlish et al. 2018, eq. 2.11).

    S = S_min (1 + B_crit / B),   E = S B / epochs,   E_min = S_min B_crit / epochs

B is the batch size of one optimizer step in env steps. With epochs = 1 this is (S/S_min - 1)(E/E_min - 1) = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

EDGE = 14.0
"""How far, in ln B, the knee is looked for beyond the batch sizes of the front: a factor of 1.2 million."""
SPAN = 4.0
"""A knee counts as seen when the batch sizes reach this factor beyond it on both sides."""


@dataclass(frozen=True)
class Front:
    """A fitted front. At the limits of the model b_crit is 0 (S is flat) or None (S falls as 1/B throughout)."""

    s_min: float
    """Optimizer steps as B grows without bound; 0 where b_crit is None."""
    e_min: float
    """Fresh env steps as B shrinks: s_min b_crit / epochs."""
    b_crit: float | None
    """Env steps an optimizer step: the batch size at the knee, where S = 2 s_min and E = 2 e_min."""
    low: float
    """Lower end of the interval of b_crit, env steps; 0 where unbounded."""
    high: float | None
    """Upper end; None where unbounded."""
    confidence: float
    resolved: bool
    """The knee lies inside the batch sizes and its interval is bounded on both sides."""
    reason: str | None
    """Why it is not resolved; None where it is."""
    rms_log: float
    """Root mean square residual of ln S."""
    n: int
    """Points."""
    batch_min: float
    batch_max: float
    epochs: int


def fit_front(batch_size: np.ndarray, optimizer_steps: np.ndarray, epochs: int = 1, confidence: float = 0.9) -> Front:
    """Least squares in ln S over points `batch_size [n]` (env steps) and `optimizer_steps [n]` (S at one goal).

    For given B_crit, ln S_min is the mean of ln S - ln(1 + B_crit/B); what is left is a profile in ln B_crit. The
    interval is {b: SSE(b) <= SSE_min (1 + F_{1,n-2}(confidence) / (n-2))}. Points that never reached the goal must be
    left out by the caller, who knows whether that is harmless.
    """
    batch, log_s = _checked(batch_size, optimizer_steps, epochs)
    log_b_crit, low, high, sse = _profile(batch, log_s, confidence)
    edges = math.log(batch.min()) - EDGE, math.log(batch.max()) + EDGE
    if log_b_crit <= edges[0]:
        b_crit, s_min, e_min = 0.0, math.exp(log_s.mean()), 0.0
    elif log_b_crit >= edges[1]:
        b_crit, s_min, e_min = None, 0.0, math.exp(np.mean(log_s + np.log(batch))) / epochs
    else:
        b_crit = math.exp(log_b_crit)
        s_min = math.exp(np.mean(log_s - np.log1p(b_crit / batch)))
        e_min = s_min * b_crit / epochs
    low = 0.0 if low <= edges[0] else math.exp(low)
    high = None if high >= edges[1] else math.exp(high)
    reason = _reason(batch, b_crit, low, high)
    return Front(
        s_min=s_min,
        e_min=e_min,
        b_crit=b_crit,
        low=low,
        high=high,
        confidence=confidence,
        resolved=reason is None,
        reason=reason,
        rms_log=math.sqrt(sse / len(batch)),
        n=len(batch),
        batch_min=float(batch.min()),
        batch_max=float(batch.max()),
        epochs=epochs,
    )


def largest_useful_batch(batch: np.ndarray, env_steps: np.ndarray, factor: float = 1.2) -> float:
    """The largest B of the points whose E is within `factor` of the least, read from the points without the model.

    `env_steps [n]` is E at one goal for `batch [n]`. Mean ln E at each B is made nondecreasing in B (isotonic
    regression, weights: runs), so that one lucky run at large B does not count. The model's own value, from
    E = E_min (1 + B / B_crit), is (factor - 1) B_crit, that is 0.2 B_crit: a check, not the definition.
    """
    batch, env_steps = np.asarray(batch, np.float64), np.asarray(env_steps, np.float64)
    if batch.shape != env_steps.shape or not batch.size or not ((batch > 0) & (env_steps > 0)).all():
        raise ValueError("batch and env_steps must be positive arrays [n] of one length n >= 1")
    sizes, index, runs = np.unique(batch, return_inverse=True, return_counts=True)
    log_e = np.bincount(index, np.log(env_steps)) / runs
    smooth = optimize.isotonic_regression(log_e, weights=runs).x
    return float(sizes[smooth <= smooth[0] + math.log(factor) + 1e-9].max())


def _profile(batch: np.ndarray, log_s: np.ndarray, confidence: float) -> tuple[float, float, float, float]:
    """(ln B_crit, ln low, ln high, SSE) over a grid in ln B_crit that ends `EDGE` beyond the batch sizes."""
    grid = np.linspace(math.log(batch.min()) - EDGE, math.log(batch.max()) + EDGE, 801)

    def sse(log_b_crit: np.ndarray) -> np.ndarray:
        residual = log_s - np.log1p(np.exp(log_b_crit)[..., None] / batch)
        return ((residual - residual.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)

    values = sse(grid)
    best = int(np.argmin(values))
    at = float(grid[best])
    if 0 < best < len(grid) - 1:
        bounds = (grid[best - 1], grid[best + 1])
        at = float(optimize.minimize_scalar(sse, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x)
    least = float(sse(np.float64(at)))
    n = len(batch)
    limit = least * (1 + stats.f.ppf(confidence, 1, n - 2) / (n - 2))
    inside = np.append(grid[values <= limit], at)
    low = _crossing(sse, limit, grid, float(inside.min()), -1)
    high = _crossing(sse, limit, grid, float(inside.max()), +1)
    return at, low, high, least


def _crossing(sse: Callable, limit: float, grid: np.ndarray, inner: float, side: int) -> float:
    """Where the profile leaves the limit between `inner` and the next grid point; the grid's end if there is none."""
    beyond = grid[side * (grid - inner) > 0]
    if not len(beyond):
        return inner
    outer = float(beyond[0] if side > 0 else beyond[-1])
    return float(optimize.brentq(lambda x: float(sse(np.float64(x))) - limit, inner, outer, xtol=1e-10))


def _reason(batch: np.ndarray, b_crit: float | None, low: float, high: float | None) -> str | None:
    distinct = len(np.unique(batch))
    if len(batch) < 4 or distinct < 3:
        return f"{len(batch)} points at {distinct} batch sizes: at least 4 points at 3 sizes are needed"
    if b_crit is None or b_crit > batch.max() / SPAN:
        return f"no batch size at {SPAN:g} times the knee or above: the steps still fall at the largest"
    if b_crit < batch.min() * SPAN:
        return f"no batch size at 1/{SPAN:g} of the knee or below: the steps are flat from the smallest"
    if low == 0 or high is None:
        return "the knee's interval is unbounded: the points scatter too much"
    return None


def _checked(batch_size: np.ndarray, optimizer_steps: np.ndarray, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    batch, steps = np.asarray(batch_size, np.float64), np.asarray(optimizer_steps, np.float64)
    if batch.ndim != 1 or batch.shape != steps.shape or len(batch) < 3:
        raise ValueError(f"a front needs arrays [n] of one length n >= 3, got {batch.shape} and {steps.shape}")
    if not (np.isfinite(batch) & np.isfinite(steps) & (batch > 0) & (steps > 0)).all():
        raise ValueError("batch sizes and optimizer steps must be positive and finite")
    if len(np.unique(batch)) < 2 or epochs < 1:
        raise ValueError("a front needs two different batch sizes and epochs >= 1")
    return batch, np.log(steps)
