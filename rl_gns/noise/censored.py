"""Maximum likelihood for y ~ Normal(mean(phi), sigma^2), where some y are only known to lie above a cap.

    -2 ln L = n ln 2 pi + sum_reached (2 ln sigma + z^2) - 2 sum_censored ln(1 - Phi(z)),    z = (y - mean) / sigma

(n: the reached). Many fits of one shape run at once along a leading axis R: the points of a profile, or the resamples
of a bootstrap. phi takes damped Gauss-Newton steps on the curvature of each term; for given phi, -2 ln L is convex in
1 / sigma and sigma is found by Newton's method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

Mean = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""phi [R, p] -> mean [R, n] and its slope in phi [R, n, p]."""

SIGMA_FLOOR = 1e-9
"""Least scatter of ln S: what is left of points without any is rounding."""
STEP = 2.0
"""No parameter moves further in one step (a choice: all are logarithms of order 1)."""
MAX_STEPS = 60
TOLERANCE = 1e-8
"""A fit rests when its -2 ln L falls by less."""


@dataclass(frozen=True)
class Sample:
    """Points of R data sets of one shape; an axis of length 1 is shared by all."""

    y: np.ndarray
    """`[R, n]`, ln S; of a censored point, ln of its cap."""
    reached: np.ndarray
    """`[R, n]`, bool: False where y is only a lower limit."""
    counts: np.ndarray
    """`[R, n]`, bool: False leaves a point out."""

    def rows(self, which: np.ndarray) -> Sample:
        """These data sets; what is shared stays so."""
        return Sample(*(x if len(x) == 1 else x[which] for x in (self.y, self.reached, self.counts)))


@dataclass(frozen=True)
class Fit:
    """R fits."""

    phi: np.ndarray
    """`[R, p]`."""
    sigma: np.ndarray
    """`[R]`, scatter of y, not corrected for the parameters fitted."""
    deviance: np.ndarray
    """`[R]`, -2 ln L."""

    def best(self) -> Fit:
        """The most likely of the R, alone."""
        at = slice(int(np.argmin(self.deviance)), int(np.argmin(self.deviance)) + 1)
        return Fit(self.phi[at], self.sigma[at], self.deviance[at])


def maximise(mean: Mean, sample: Sample, start: np.ndarray, free: np.ndarray) -> Fit:
    """Fit from `start [R, p]`; only the parameters that are `free [p]` move. ValueError where nothing was reached."""
    if not (sample.reached & sample.counts).any(axis=-1).all():
        raise ValueError("nothing was reached: there is nothing to fit")
    phi = np.array(start, np.float64)
    sigma, deviance = _scatter(mean(phi)[0], sample)
    damping, moving = np.full(len(phi), 1e-9), np.arange(len(phi))
    for _ in range(MAX_STEPS):
        part = sample.rows(moving)
        trial = phi[moving]
        trial[:, free] += _step(mean, part, trial, sigma[moving], free, damping[moving])
        trial_sigma, trial_deviance = _scatter(mean(trial)[0], part, sigma[moving])
        gain = deviance[moving] - trial_deviance
        better = gain > 0
        won = moving[better]
        phi[won], sigma[won], deviance[won] = trial[better], trial_sigma[better], trial_deviance[better]
        damping[won] = np.maximum(damping[won] / 10, 1e-9)
        lost = moving[~better]
        damping[lost] = np.maximum(damping[lost], 1e-4) * 10
        moving = moving[(np.abs(gain) > TOLERANCE) & (damping[moving] < 1e4)]
        if not len(moving):
            break
    return Fit(phi, sigma, deviance)


def _step(mean: Mean, sample: Sample, phi: np.ndarray, sigma: np.ndarray, free: np.ndarray, damping: np.ndarray):
    """(J' h J + damping)^-1 J' g for each fit, J the slope, g and h the first and second derivative of each term."""
    at, slope = mean(phi)
    slope = np.broadcast_to(slope[:, :, free], (len(phi), *slope.shape[1:2], int(free.sum())))
    z = (sample.y - at) / sigma[:, None]
    hazard, curvature = z.copy(), np.ones_like(z)
    some = ~sample.reached.all(axis=0)
    if some.any():
        capped = ~np.broadcast_to(sample.reached, z.shape)[:, some]
        near = z[:, some]
        beyond = _hazard(near)
        hazard[:, some] = np.where(capped, beyond, near)
        curvature[:, some] = np.where(capped, beyond * (beyond - near), 1.0)
    curvature = curvature * sample.counts
    weighted = np.swapaxes(slope, 1, 2)
    matrix = weighted @ (curvature[:, :, None] * slope)
    target = weighted @ (hazard * sample.counts * sigma[:, None])[:, :, None]
    diagonal = np.einsum("rii->ri", matrix)
    ridge = damping[:, None] * diagonal + 1e-12
    step = np.linalg.solve(matrix + ridge[:, :, None] * np.eye(diagonal.shape[1]), target)[:, :, 0]
    return np.clip(step, -STEP, STEP) if np.abs(step).max() < 1e12 else np.zeros_like(step)


def _hazard(z: np.ndarray) -> np.ndarray:
    """phi(z) / (1 - Phi(z)); beyond z = 30 its series z + 1/z."""
    near = np.minimum(z, 30.0)
    exact = np.exp(-0.5 * near * near - 0.5 * math.log(2 * math.pi) - log_ndtr(-near))
    return np.where(z > 30.0, z + 1 / np.maximum(z, 30.0), exact)


def _scatter(mean: np.ndarray, sample: Sample, guess: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(sigma [R], -2 ln L [R]) at the most likely sigma for these means."""
    residual = sample.y - mean
    kept = sample.reached & sample.counts
    n, total = kept.sum(axis=-1), (kept * residual**2).sum(axis=-1)
    n = np.broadcast_to(n, total.shape)
    sigma = np.maximum(np.sqrt(total / n), SIGMA_FLOOR)
    capped = sample.counts & ~sample.reached
    if not capped.any():
        return sigma, n * (math.log(2 * math.pi) + 2 * np.log(sigma)) + total / sigma**2
    some = capped.any(axis=0)
    capped, residual = capped[:, some], residual[:, some]
    inverse = 1 / (sigma if guess is None else np.maximum(guess, SIGMA_FLOOR))
    for _ in range(6):
        inverse = _newton(inverse, n, total, residual, capped)
    beyond = np.where(capped, log_ndtr(-inverse[:, None] * residual), 0.0).sum(axis=-1)
    return 1 / inverse, n * (math.log(2 * math.pi) - 2 * np.log(inverse)) + total * inverse**2 - 2 * beyond


def _newton(inverse: np.ndarray, n: np.ndarray, total: np.ndarray, residual: np.ndarray, capped: np.ndarray):
    """One step towards the most likely 1 / sigma, at most a factor of 2 either way."""
    z = inverse[:, None] * residual
    hazard = np.where(capped, _hazard(np.where(capped, z, 0.0)), 0.0)
    first = n / inverse - inverse * total - (residual * hazard).sum(axis=-1)
    second = n / inverse**2 + total + (residual**2 * hazard * (hazard - z)).sum(axis=-1)
    return np.clip(inverse + first / second, inverse / 2, np.minimum(inverse * 2, 1 / SIGMA_FLOOR))
