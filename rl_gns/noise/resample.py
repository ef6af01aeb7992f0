"""The limits of profile intervals from resampled seeds: every resample selects its learning rates anew."""

from __future__ import annotations

import numpy as np

from rl_gns.noise.censored import Sample, maximise
from rl_gns.noise.curves import hyperbola
from rl_gns.noise.knee import LOG_B_CRIT, LOG_S_MIN, Knee, Points

RESAMPLES = 199
"""Resamples behind a limit: its own error is then a fortieth of the probability (a choice)."""
LEAST_SEEDS = 3
"""Seeds a cell below which resampling them says nothing (a choice)."""


def cells(points: Points) -> list[np.ndarray]:
    """The points of each batch size and learning rate, as indices."""
    keys = np.column_stack([points.log_batch, points.log_rate])
    which = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    return [np.flatnonzero(which == cell) for cell in range(which.max() + 1)]


def seed_limits(knee: Knee, confidence: float, rng: np.random.Generator) -> dict[int, float]:
    """For `LOG_B_CRIT` and `LOG_S_MIN` the `confidence` quantile of D(where it was found) - D_min over `RESAMPLES`
    resamples of the seeds within each cell.

    Every resample chooses its learning rates anew; the batch sizes that `knee` leaves out stay out. Resampling m seeds
    shrinks the variance of a cell's mean by (m - 1) / m but not sigma, to which the cells' means about the fit return
    what the cells lose: the quantile is divided by that factor's mean over the cells.
    """
    points, free = knee.points, np.ones(knee.n_parameters, bool)
    index = np.empty((RESAMPLES, len(points.log_batch)), int)
    drawn_from = cells(points)
    for cell in drawn_from:
        index[:, cell] = rng.choice(cell, (RESAMPLES, len(cell)))
    drawn = Sample(points.log_steps[index], points.reached[index], knee.counts[None])
    mean, start = points.mean(hyperbola, 2), np.repeat(knee.fit.phi, RESAMPLES, axis=0)
    least = maximise(mean, drawn, start, free).deviance
    shrunk = np.mean([(len(cell) - 1) / len(cell) for cell in drawn_from])
    limits = {}
    for which in (LOG_B_CRIT, LOG_S_MIN):
        held = maximise(mean, drawn, start, np.arange(len(free)) != which).deviance
        limits[which] = float(np.quantile(np.maximum(held - least, 0.0), confidence) / shrunk)
    return limits
