"""The front of optimizer steps S against fresh env steps E, and its knee (McCandlish et al. 2018, eq. 2.11).

    S = S_min (1 + B_crit / B),   E = S B / epochs,   E_min = S_min B_crit / epochs

B is the batch size of one optimizer step in env steps. With epochs = 1 this is (S/S_min - 1)(E/E_min - 1) = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from rl_gns.noise.curves import bent, hyperbola, power_law
from rl_gns.noise.knee import (
    LEAST_RATES,
    LOG_B_CRIT,
    LOG_S_MIN,
    Knee,
    Points,
    climb,
    edges,
    f_limit,
    find_knee,
    interval,
    profile,
)
from rl_gns.noise.resample import LEAST_SEEDS, cells, seed_limits

SPAN = 4.0
"""A knee counts as seen when the batch sizes reach this factor beyond it on both sides."""
KNEELESS_GAIN = 4.0
"""A power law whose AICc is lower by more than this has an evidence ratio above 7 (a choice): the knee is not called
resolved."""
LIMIT_GAIN = 1e-6
"""A knee whose -2 ln L is less than this below a limit of the model's is that limit: no data can tell them apart."""


class NoFront(ValueError):
    """The points do not make a front; the message says what is missing."""


@dataclass(frozen=True)
class Front:
    """A fitted front. At the limits of the model b_crit is 0 (S is flat) or None (S falls as 1/B throughout)."""

    s_min: float
    """Optimizer steps as B grows without bound, the floor of S; 0 where b_crit is None."""
    s_min_low: float
    """Lower end of its interval; 0 where unbounded."""
    s_min_high: float | None
    """Upper end; None where unbounded."""
    e_min: float
    """Fresh env steps as B shrinks: s_min b_crit / epochs."""
    b_crit: float | None
    """Env steps an optimizer step: the batch size at the knee, where S = 2 s_min and E = 2 e_min."""
    low: float
    """Lower end of the interval of b_crit, env steps; 0 where unbounded."""
    high: float | None
    """Upper end; None where unbounded."""
    confidence: float
    """Of both intervals."""
    resolved: bool
    """The knee lies inside the batch sizes and its interval is bounded on both sides."""
    reason: str | None
    """Why it is not resolved; None where it is."""
    rms_log: float
    """Root mean square residual of ln S, of the runs that reached the goal."""
    n: int
    """Points fitted."""
    n_reached: int
    """Points of these that reached the goal; the others are censored at their own S."""
    batch_min: float
    """Smallest and largest batch size of the points that reached the goal."""
    batch_max: float
    epochs: int
    interval: str
    """What the interval's limit was: `F` or `seeds` (resampled)."""
    learning_rates: tuple[tuple[float, float], ...]
    """(batch size, its most likely best learning rate); empty where rates are not part of the model."""
    widen: tuple[float, ...]
    """Batch sizes left out because their best learning rate is not inside those tried (or fewer than 3 were)."""
    aic: dict[str, float | None]
    """Akaike's criterion with its small-sample correction, of `hyperbola`, `power_law` and `bent` in ln S; the least
    is the best. None where there are too few points for it."""


def fit_front(
    batch_size: np.ndarray,
    optimizer_steps: np.ndarray,
    epochs: int = 1,
    confidence: float = 0.9,
    reached: np.ndarray | None = None,
    learning_rate: np.ndarray | None = None,
    seed: int = 0,
) -> Front:
    """Maximum likelihood of ln S ~ Normal(ln(S_min + epochs E_min / B) + rates, sigma^2) over one goal's runs.

    `batch_size [n]` (env steps); `optimizer_steps [n]`: S at the goal or, where `reached [n]` is False, the S at which
    the run was stopped short of it (right-censored there; by default all reached). `learning_rate [n]` enters where
    some batch size has at least 3: S at a batch size is then S at its best rate, see `curves`. The interval is the
    likelihood's profile with an F quantile; where rates are chosen among cells of at least 3 seeds, with a quantile
    from resampled seeds (`seed`). Misuse: ValueError; points that make no front: NoFront.
    """
    points = _points(batch_size, optimizer_steps, epochs, reached, learning_rate)
    knee = find_knee(points)
    if knee is None:
        sizes = ", ".join(f"{_size(b):g}" for b in points.sizes)
        raise NoFront(f"the best learning rate is not inside those tried at enough of the batch sizes {sizes}: widen")
    limits, how = dict.fromkeys((LOG_B_CRIT, LOG_S_MIN), f_limit(knee, confidence)), "F"
    if points.log_rate is not None and min(len(c) for c in cells(points)) >= LEAST_SEEDS:
        limits, how = seed_limits(knee, confidence, np.random.default_rng(seed)), "seeds"
    return _front(knee, limits, confidence, epochs, how)


def _ends(knee: Knee, limit: float, which: int) -> tuple[float, float | None]:
    """The interval of B_crit or S_min itself: 0 and None where unbounded."""
    (lowest, highest), (low, high) = edges(knee.points, which), interval(knee, limit, which)
    return 0.0 if low <= lowest else math.exp(low), None if high >= highest else math.exp(high)


def _front(knee: Knee, limits: dict[int, float], confidence: float, epochs: int, how: str) -> Front:
    points, (log_s_min, log_b_crit) = knee.points, knee.fit.phi[0, :2]
    lowest, highest = edges(points)
    batch = np.array([_size(b) for b in points.log_batch[knee.counts & points.reached]])
    extreme = profile(knee, np.array([lowest, highest]))
    beyond = np.array([log_b_crit <= lowest, log_b_crit >= highest])
    flat, falling = (extreme.deviance <= knee.fit.deviance + LIMIT_GAIN) | beyond
    if flat or falling:
        log_s_min, log_b_crit = extreme.phi[int(falling), :2]
    b_crit = None if falling else 0.0 if flat else math.exp(log_b_crit)
    low, high = _ends(knee, limits[LOG_B_CRIT], LOG_B_CRIT)
    s_min_low, s_min_high = _ends(knee, limits[LOG_S_MIN], LOG_S_MIN)
    aic = _alternatives(knee)
    reason = _reason(knee, batch, b_crit, low, high) or _kneeless(aic)
    return Front(
        s_min=0.0 if falling else math.exp(log_s_min),
        s_min_low=s_min_low,
        s_min_high=s_min_high,
        e_min=0.0 if flat else math.exp(log_s_min + log_b_crit) / epochs,
        b_crit=b_crit,
        low=low,
        high=high,
        confidence=confidence,
        resolved=reason is None,
        reason=reason,
        rms_log=_rms(knee),
        n=int(knee.counts.sum()),
        n_reached=knee.n_reached,
        batch_min=float(batch.min()),
        batch_max=float(batch.max()),
        epochs=epochs,
        interval=how,
        learning_rates=_best_rates(knee),
        widen=tuple(_size(b) for b in np.unique(points.log_batch[~knee.counts])),
        aic=aic,
    )


def _size(log_batch: float) -> float:
    return float(f"{math.exp(log_batch):.9g}")


def _rms(knee: Knee) -> float:
    residual = knee.points.log_steps - knee.points.mean(hyperbola, 2)(knee.fit.phi)[0][0]
    return math.sqrt(np.mean(residual[knee.counts & knee.points.reached] ** 2))


def _best_rates(knee: Knee) -> tuple[tuple[float, float], ...]:
    rates = knee.points.rates()
    if rates is None:
        return ()
    sizes = np.unique(knee.points.log_batch[knee.counts])
    best = np.exp(rates.optimum(knee.fit.phi[:, 2:], sizes)[0])
    return tuple((_size(b), float(r)) for b, r in zip(sizes, best, strict=True))


def _alternatives(knee: Knee) -> dict[str, float | None]:
    """AICc = -2 ln L + 2 k n / (n - k - 1), k parameters with sigma, n points that reached the goal."""
    log_s_min, log_b = knee.fit.phi[0, :2]
    middle = log_s_min + np.logaddexp(0.0, log_b - knee.points.log_batch.mean())
    starts = {
        "power_law": (power_law, np.array([[middle, 0.1], [middle, 0.9]])),
        "bent": (bent, np.array([[log_s_min, log_b, s] for s in (-0.7, 0.0, 0.7)])),
    }
    found = {"hyperbola": (float(knee.fit.deviance[0]), knee.n_parameters)}
    for name, (curve, start) in starts.items():
        fit = climb(knee.points, knee.counts, curve, start)
        found[name] = (float(fit.deviance[0]), fit.phi.shape[1])
    return {name: _aicc(least, p + 1, knee.n_reached) for name, (least, p) in found.items()}


def _kneeless(aic: dict[str, float | None]) -> str | None:
    """A power law bends nowhere: where it describes the steps better, the hyperbola's knee is not in them."""
    power, ours = aic["power_law"], aic["hyperbola"]
    if power is None or ours is None or ours - power <= KNEELESS_GAIN:
        return None
    return f"a power law, which has no knee, describes the steps better (AICc lower by {ours - power:.1f})"


def _aicc(least: float, k: int, n: int) -> float | None:
    return least + 2 * k * n / (n - k - 1) if n > k + 1 else None


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


def _reason(knee: Knee, batch: np.ndarray, b_crit: float | None, low: float, high: float | None) -> str | None:
    distinct, n = len(np.unique(batch)), int(knee.counts.sum())
    if len(batch) < 4 or distinct < 3:
        return f"{len(batch)} points at {distinct} batch sizes: at least 4 points at 3 sizes are needed"
    if 2 * len(batch) < n:
        return f"only {len(batch)} of {n} runs reached the goal: the knee would rest on where the others were stopped"
    if b_crit is None or b_crit > batch.max() / SPAN:
        return f"no batch size at {SPAN:g} times the knee or above: the steps still fall at the largest"
    if b_crit < batch.min() * SPAN:
        return f"no batch size at 1/{SPAN:g} of the knee or below: the steps are flat from the smallest"
    if low == 0 or high is None:
        return "the knee's interval is unbounded: the points scatter too much"
    return None


def _points(batch_size, optimizer_steps, epochs: int, reached, learning_rate) -> Points:
    """The arrays, checked; the learning rates only where some batch size has enough of them."""
    batch, steps = np.asarray(batch_size, np.float64), np.asarray(optimizer_steps, np.float64)
    there = np.ones(batch.shape, bool) if reached is None else np.asarray(reached, bool)
    rate = None if learning_rate is None else np.asarray(learning_rate, np.float64)
    if batch.ndim != 1 or any(x.shape != batch.shape for x in (steps, there, *([] if rate is None else [rate]))):
        raise ValueError(f"a front needs arrays [n] of one length, got {batch.shape} and {steps.shape}")
    if not all((np.isfinite(x) & (x > 0)).all() for x in (batch, steps, *([] if rate is None else [rate]))):
        raise ValueError("batch sizes, optimizer steps and learning rates must be positive and finite")
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if there.sum() < 3 or len(np.unique(batch[there])) < 2:
        sizes = len(np.unique(batch[there]))
        raise NoFront(
            f"{there.sum()} runs reached the goal, at {sizes} batch sizes: n >= 3 at 2 sizes or more are needed"
        )
    chosen = rate is not None and any(len(np.unique(rate[batch == b])) >= LEAST_RATES for b in np.unique(batch))
    return Points(np.log(batch), np.log(steps), there, np.log(rate) if chosen else None)
