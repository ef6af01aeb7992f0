"""The knee's likelihood: its maximum, its profiles in ln B_crit and ln S_min, and which batch sizes the learning rates
leave in.

The interval of B_crit is {b: D(b) - D_min <= limit}, D(b) = -2 ln L at B_crit = b with everything else at its most
likely (that of S_min likewise), n of the points reached and p parameters in the mean. `f_limit` is exact for a linear
model without censoring: there it is SSE(b) <= SSE_min (1 + F_{1,n-p} / (n-p)). `seed_limits` are quantiles of
D(b_hat) - D_min over resamples of the seeds, each of which chooses its learning rates anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rl_gns.noise.censored import Fit, Mean, Sample, maximise
from rl_gns.noise.curves import Curve, RateTerm, hyperbola, mean_of

EDGE = 14.0
"""How far, in ln B, the knee is looked for beyond the batch sizes of the front: a factor of 1.2 million."""
GRID = 71
"""Points of the first look along the profile."""
LEAST_SIZES = 3
"""Batch sizes that a front needs."""
LEAST_RATES = 3
"""Learning rates that show an optimum."""
LOG_S_MIN, LOG_B_CRIT = 0, 1
"""Which parameter of the hyperbola is which."""
NEARLY_FLAT = 0.01
"""A search at an S_min above the runs' own level starts with a curve that rises so little over them, in ln S."""


@dataclass(frozen=True)
class Points:
    """Runs to one goal, arrays `[n]`."""

    log_batch: np.ndarray
    log_steps: np.ndarray
    """ln S; of a run that did not reach the goal, ln of the S at which it was stopped."""
    reached: np.ndarray
    log_rate: np.ndarray | None
    """Natural logarithm of the learning rate; None where the rates are not part of the model."""

    @property
    def sizes(self) -> np.ndarray:
        """`[m]`: ln of each batch size, ascending."""
        return np.unique(self.log_batch)

    def rates(self) -> RateTerm | None:
        return None if self.log_rate is None else RateTerm(self.log_batch, self.log_rate)

    def mean(self, curve: Curve, n_curve: int) -> Mean:
        """The whole model of ln S with this curve of n_curve parameters."""
        return mean_of(curve, n_curve, self.log_batch, self.rates())


@dataclass(frozen=True)
class Knee:
    """A maximum of the likelihood. Parameters: ln S_min, ln B_crit, then the rates'."""

    points: Points
    counts: np.ndarray
    """`[n]`, False at the batch sizes whose optimum is not inside their learning rates."""
    fit: Fit

    @property
    def n_parameters(self) -> int:
        """Of the mean."""
        return self.fit.phi.shape[1]

    @property
    def n_reached(self) -> int:
        return int((self.points.reached & self.counts).sum())

    def sample(self) -> Sample:
        return Sample(self.points.log_steps[None], self.points.reached[None], self.counts[None])


def find_knee(points: Points) -> Knee | None:
    """The most likely hyperbola over the batch sizes whose most likely optimal rate lies strictly inside the rates
    tried there: the others are left out, and the rest fitted anew until none is. None where
    fewer than `LEAST_SIZES` are left, or nothing was reached there."""
    counts = tried(points)
    while len(np.unique(points.log_batch[counts])) >= LEAST_SIZES and (points.reached & counts).any():
        knee = Knee(points, counts, climb(points, counts, hyperbola, _starts(points, counts)))
        edge = on_edge(points, knee.fit.phi)[0] & counts
        if not edge.any():
            return knee
        counts = counts & ~edge
    return None


def tried(points: Points) -> np.ndarray:
    """`[n]`: True at the batch sizes with at least `LEAST_RATES` rates, and everywhere where rates play no part."""
    enough = np.ones(len(points.log_batch), bool)
    for size in points.sizes if points.log_rate is not None else ():
        here = points.log_batch == size
        enough[here] = len(np.unique(points.log_rate[here])) >= LEAST_RATES
    return enough


def on_edge(points: Points, phi: np.ndarray) -> np.ndarray:
    """`[R, n]`: True at points whose batch size has its optimum on the edge of its rates, or beyond."""
    if points.log_rate is None:
        return np.zeros((len(phi), len(points.log_batch)), bool)
    best = points.rates().optimum(phi[:, 2:], points.log_batch)
    lowest, highest = (np.empty(len(points.log_batch)) for _ in range(2))
    for size in points.sizes:
        here = points.log_batch == size
        lowest[here], highest[here] = points.log_rate[here].min(), points.log_rate[here].max()
    return (best <= lowest) | (best >= highest)


def climb(points: Points, counts: np.ndarray, curve: Curve, starts: np.ndarray) -> Fit:
    """The most likely of the fits from `starts [R, p]`, p the curve's parameters; the rates' are started here."""
    rates, n_curve = points.rates(), starts.shape[1]
    if rates is not None:
        starts = np.column_stack([starts, np.tile(rates.start(points.log_steps), (len(starts), 1))])
    sample = Sample(points.log_steps[None], points.reached[None], counts[None])
    return maximise(points.mean(curve, n_curve), sample, starts, np.ones(starts.shape[1], bool)).best()


def _starts(points: Points, counts: np.ndarray) -> np.ndarray:
    """Knees over and around the batch sizes that count, each with the S_min that suits it: `[8, 2]`."""
    log_batch, y = points.log_batch[counts], points.log_steps[counts]
    knees = np.linspace(log_batch.min() - 3, log_batch.max() + 3, 8)
    return np.column_stack([(y - np.logaddexp(0.0, knees[:, None] - log_batch)).mean(axis=1), knees])


def profile(knee: Knee, held_at: np.ndarray, which: int = LOG_B_CRIT) -> Fit:
    """The fits with one parameter of the curve (`LOG_B_CRIT` or `LOG_S_MIN`) held at `held_at [R]`; their deviance is
    D. The other starts where the mean level of the curve stays what it was, as far as it can."""
    start, log_batch = np.repeat(knee.fit.phi, len(held_at), axis=0), knee.points.log_batch
    rise = np.logaddexp(0.0, knee.fit.phi[0, LOG_B_CRIT] - log_batch).mean()
    if which == LOG_B_CRIT:
        start[:, LOG_S_MIN] += rise - np.array([np.logaddexp(0.0, b - log_batch).mean() for b in held_at])
    else:
        left = np.maximum(rise + start[:, LOG_S_MIN] - held_at, NEARLY_FLAT)
        start[:, LOG_B_CRIT] = log_batch.mean() + np.log(np.expm1(left))
    start[:, which] = held_at
    free = np.arange(start.shape[1]) != which
    return maximise(knee.points.mean(hyperbola, 2), knee.sample(), start, free)


def f_limit(knee: Knee, confidence: float) -> float:
    """n ln(1 + F_{1,n-p}(confidence) / (n-p)); infinite where n <= p."""
    n = knee.n_reached
    if n <= knee.n_parameters:
        return math.inf
    free = n - knee.n_parameters
    return n * math.log1p(stats.f.ppf(confidence, 1, free) / free)


def edges(points: Points, which: int = LOG_B_CRIT) -> tuple[float, float]:
    """Where the search for the knee, or for S_min, ends: in ln B, or in ln S."""
    if which == LOG_B_CRIT:
        return points.log_batch.min() - EDGE, points.log_batch.max() + EDGE
    return points.log_steps.min() - EDGE, points.log_steps.max() + EDGE


def interval(knee: Knee, limit: float, which: int = LOG_B_CRIT) -> tuple[float, float]:
    """(low, high) of ln B_crit or ln S_min: where the profile leaves D_min + limit for good; `edges` where it does
    not."""
    lowest, highest = edges(knee.points, which)
    at = min(max(float(knee.fit.phi[0, which]), lowest), highest)
    if not math.isfinite(limit):
        return lowest, highest
    top = float(knee.fit.deviance[0]) + limit
    grid = np.unique([*np.linspace(lowest, highest, GRID), at])
    inside = np.append(grid[profile(knee, grid, which).deviance <= top], at)
    ends = float(inside.min()), float(inside.max())
    return _leaving(knee, top, grid, ends[0], -1, which), _leaving(knee, top, grid, ends[1], +1, which)


def _leaving(knee: Knee, top: float, grid: np.ndarray, inner: float, side: int, which: int) -> float:
    """The crossing of `top` between `inner` and the next grid point beyond it, closed in on three times."""
    beyond = grid[side * (grid - inner) > 0]
    if not len(beyond):
        return inner
    outer = float(beyond[0] if side > 0 else beyond[-1])
    for _ in range(3):
        along = np.linspace(inner, outer, 11)
        values = profile(knee, along, which).deviance
        first = max(int(np.argmax(values > top)), 1)
        inner, outer = along[first - 1], along[first]
        below, above = values[first - 1], values[first]
    share = (top - below) / (above - below) if above > below else 1.0
    return float(inner + np.clip(share, 0, 1) * (outer - inner))
