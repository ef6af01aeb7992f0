"""Mean curves of ln S over ln B and, where several learning rates were tried, over ln learning rate.

    hyperbola   ln S = ln S_min + ln(1 + B_crit / B)             (McCandlish et al. 2018, eq. 2.11)
    power law   ln S = ln a - p ln B
    bent        ln S = ln S_min + ln(1 + (B_c / B)^beta)

Each plus kappa (x - x*(B))^2 at ln learning rate x: one curvature kappa for all batch sizes, and an optimum x*(B) that
is a straight line in ln B. S at a batch size is S at its optimum, not that of the luckiest rate tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

Curve = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(phi [R, p], ln B [n]) -> ln S [R, n] and its slope [R, n, p]."""


def hyperbola(phi: np.ndarray, log_batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """phi = (ln S_min, ln B_crit)."""
    beyond = phi[:, 1:2] - log_batch
    return phi[:, :1] + np.logaddexp(0.0, beyond), np.stack([np.ones_like(beyond), expit(beyond)], axis=-1)


def power_law(phi: np.ndarray, log_batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """phi = (ln S at the middle of the batch sizes, p)."""
    along = np.broadcast_to(log_batch - log_batch.mean(), (len(phi), len(log_batch)))
    return phi[:, :1] - phi[:, 1:2] * along, np.stack([np.ones_like(along), -along], axis=-1)


def bent(phi: np.ndarray, log_batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """phi = (ln S_min, ln B_c, ln beta)."""
    beta, beyond = np.exp(np.clip(phi[:, 2:3], -3, 3)), phi[:, 1:2] - log_batch
    share = expit(beta * beyond)
    slope = np.stack([np.ones_like(share), beta * share, beta * beyond * share], axis=-1)
    return phi[:, :1] + np.logaddexp(0.0, beta * beyond), slope


@dataclass(frozen=True)
class RateTerm:
    """kappa (x - x*(B))^2, x*(B) = x_0 + c_0 + c_1 t; parameters (ln kappa, c_0, c_1), t = ln B scaled, x_0 the mean x.

    The optimum is a power of B: where the truth bends away from it by d in ln rate, ln S is off by kappa d^2.
    """

    log_batch: np.ndarray
    """`[n]`."""
    log_rate: np.ndarray
    """`[n]`, natural logarithm of each point's learning rate."""

    def along(self, log_batch: np.ndarray) -> np.ndarray:
        """(1, t) `[n, 2]`, t in [-1, 1] over the points' own batch sizes."""
        middle, half = np.ptp(self.log_batch) / 2 + self.log_batch.min(), max(np.ptp(self.log_batch) / 2, 1e-9)
        return np.column_stack([np.ones(len(log_batch)), (log_batch - middle) / half])

    def optimum(self, phi: np.ndarray, log_batch: np.ndarray) -> np.ndarray:
        """x*(B) `[R, n]` from this term's parameters phi `[R, 3]`."""
        return self.log_rate.mean() + phi[:, 1:] @ self.along(log_batch).T

    def __call__(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kappa = np.exp(np.clip(phi[:, :1], *LOG_CURVATURE))
        away = self.log_rate - self.optimum(phi, self.log_batch)
        slope = -2 * (kappa * away)[:, :, None] * self.along(self.log_batch)
        return kappa * away**2, np.concatenate([(kappa * away**2)[:, :, None], slope], axis=-1)

    def start(self, y: np.ndarray) -> np.ndarray:
        """Parameters `[3]` from a linear regression of y `[n]` on batch size, x, t x and x^2."""
        x = self.log_rate - self.log_rate.mean()
        sizes = (self.log_batch[:, None] == np.unique(self.log_batch)).astype(float)
        columns = np.column_stack([sizes, self.along(self.log_batch) * x[:, None], x**2])
        *_, c_0, c_1, kappa = np.linalg.lstsq(columns, y, rcond=None)[0]
        if kappa <= START_CURVATURE:
            return np.array([np.log(START_CURVATURE), 0.0, 0.0])
        return np.array([np.log(kappa), *np.clip([-c_0 / (2 * kappa), -c_1 / (2 * kappa)], -3, 3)])


LOG_CURVATURE = (-9.0, 5.0)
"""Limits of ln kappa: at the lower one ln S is straight in ln learning rate as far as any run can tell."""
START_CURVATURE = 0.02
"""Where the search for kappa starts when the points show none (a guess: S 1 % higher at 2 x the best rate)."""


def mean_of(curve: Curve, n_curve: int, log_batch: np.ndarray, rates: RateTerm | None):
    """phi -> mean and slope of the whole model: the curve's n_curve parameters first, then the rates'."""

    def mean(phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, slope = curve(phi[:, :n_curve], log_batch)
        if rates is None:
            return value, slope
        more, more_slope = rates(phi[:, n_curve:])
        return value + more, np.concatenate([slope, more_slope], axis=-1)

    return mean
