"""The one-step line search: which step is best for a gradient of B env steps, and what B_noise that makes.

In a quadratic bowl eps_opt(B) = eps_max / (1 + B_noise / B) (McCandlish et al. 2018, eq. 2.6), so 1 / eps_opt is a
straight line in 1 / B, and B_noise = slope / intercept. Nothing here knows a network: losses come from a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rl_gns.noise.interval import fieller, jackknife_covariance, student_quantile

MAX_DOUBLINGS = 40
"""Steps that are tried in either direction before a minimum is given up."""
MARGIN = 2
"""Steps beyond the best one on either side, so that the best one of a jackknife replicate lies inside too."""

FLAT = 0.01
"""A minimum gives back this share of its gain at 2^MARGIN times its step (a parabola gives back 9 times all of it);
what does not is a surrogate that saturates, whose best step is the longest."""

Loss = Callable[[int, float], np.ndarray]
"""(direction, eps) -> [K] mean loss of each held-out group after the step -eps x direction, less that of no step."""


@dataclass(frozen=True)
class Level:
    """Losses along several gradients of one batch size, all after the same steps and on the same held-out rows."""

    batch_size: float
    """B, env steps in each gradient."""
    eps: np.ndarray
    """[E] steps, each twice the one before."""
    losses: np.ndarray
    """[D, E, K]."""
    leave_one_out: np.ndarray | None = None
    """[J] env steps of D - 1 = J gradients that leave one group out, where direction 0 alone is the gradient; None
    where the D = J directions are the groups' own gradients."""

    def best(self, held: np.ndarray, left_out: int | None = None) -> tuple[float, float]:
        """(B, eps_opt) with weights `held` [K], with one group left out: the vertex of the parabola through the best
        step and its neighbours, exact for a quadratic."""
        if self.leave_one_out is None:
            kept = np.delete(self.losses, [] if left_out is None else left_out, axis=0).mean(axis=0)
            return self.batch_size, _vertex(self.eps, kept @ held)
        if left_out is None:
            return self.batch_size, _vertex(self.eps, self.losses[0] @ held)
        return float(self.leave_one_out[left_out]), _vertex(self.eps, self.losses[1 + left_out] @ held)


def search(
    loss: Loss, batch_size: float, n: int, start: float, leave_one_out: np.ndarray | None = None
) -> Level | None:
    """Steps doubled and halved from `start` until the least mean loss over `n` directions lies inside; None where it
    does not after `MAX_DOUBLINGS`, or where the loss stays flat beyond it: no minimum along the gradient."""
    tried: dict[int, np.ndarray] = {}

    def at(power: int) -> float:
        if power not in tried:
            tried[power] = np.stack([loss(d, start * 2.0**power) for d in range(n)])
        value = float((tried[power] if leave_one_out is None else tried[power][:1]).mean())
        return value if np.isfinite(value) else np.inf

    best = 0
    while abs(best) < MAX_DOUBLINGS:
        lower = min((p for p in range(best - MARGIN, best + MARGIN + 1)), key=at)
        if lower == best:
            if not at(best + MARGIN) > (1 - FLAT) * at(best):
                return None
            powers = range(min(tried), max(tried) + 1)
            for power in powers:
                at(power)
            losses = np.stack([tried[p] for p in powers], axis=1)
            return Level(batch_size, start * 2.0 ** np.array(powers), losses, leave_one_out)
        best = lower
    return None


@dataclass(frozen=True)
class Line:
    """The straight line of 1 / eps_opt against 1 / B, and its B_noise."""

    eps_max: float
    """1 / intercept: the best step of the full gradient; infinite where the intercept is <= 0."""
    b_noise: float
    """slope / intercept, env steps; infinite where the intercept is <= 0."""
    low: float
    high: float
    resolved: bool
    """The intercept's interval excludes zero."""
    eps_opt: np.ndarray
    """[levels]."""


def fit(levels: Sequence[Level], held_rows: np.ndarray, n_groups: int, confidence: float) -> Line:
    """Weighted least squares (weights eps_opt^2: equal relative errors) over at least two levels.

    Interval: Fieller, with the covariance of a delete-one jackknife over the J groups, and over the K held-out groups
    (`held_rows` [K] env steps) added to it; t of the smaller number less one.
    """
    share, n_held = held_rows / held_rows.sum(), len(held_rows)
    _, eps_opt = np.transpose([level.best(share) for level in levels])
    weights = eps_opt**2
    whole = _coefficients([level.best(share) for level in levels], weights)
    deleted = [_coefficients([level.best(share, j) for level in levels], weights) for j in range(n_groups)]
    cov = jackknife_covariance(np.array(deleted))
    for_held = [_without(held_rows, k) for k in range(n_held)]
    cov = cov + jackknife_covariance(
        np.array([_coefficients([level.best(w) for level in levels], weights) for w in for_held])
    )
    quantile = student_quantile(confidence, min(n_groups, n_held) - 1)
    low, high, resolved = fieller(whole[0], whole[1], cov, quantile)
    b_noise, eps_max = (whole[1] / whole[0], 1 / whole[0]) if whole[0] > 0 else (np.inf, np.inf)
    return Line(float(eps_max), float(b_noise), low, high, resolved, eps_opt)


def _without(rows: np.ndarray, k: int) -> np.ndarray:
    kept = rows.astype(np.float64)
    kept[k] = 0.0
    return kept / kept.sum()


def _coefficients(points: Sequence[tuple[float, float]], weights: np.ndarray) -> np.ndarray:
    """[2] (intercept, slope) of 1 / eps against 1 / B."""
    inverse = 1 / np.array(points)
    design = np.stack([np.ones(len(inverse)), inverse[:, 0]], axis=1)
    root = np.sqrt(weights)[:, None]
    return np.linalg.lstsq(root * design, root[:, 0] * inverse[:, 1], rcond=None)[0]


def _vertex(eps: np.ndarray, loss: np.ndarray) -> float:
    """Of the parabola through the least loss and its neighbours; the best step itself at an end of the grid."""
    loss = np.where(np.isfinite(loss), loss, np.inf)
    i = int(np.argmin(loss))
    if i in (0, len(eps) - 1) or not np.isfinite(loss[[i - 1, i + 1]]).all():
        return float(eps[i])
    left, right = (loss[i] - loss[i - 1]) / (eps[i] - eps[i - 1]), (loss[i + 1] - loss[i]) / (eps[i + 1] - eps[i])
    curvature = (right - left) / (eps[i + 1] - eps[i - 1])
    middle = (eps[i] + eps[i - 1]) / 2
    return float(middle - left / (2 * curvature)) if curvature > 0 else float(eps[i])
