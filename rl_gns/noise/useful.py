"""The interval of the largest useful batch, from resampled seeds: every resample chooses its learning rates anew."""

from __future__ import annotations

import numpy as np

from rl_gns.noise.front import largest_useful_batch
from rl_gns.noise.resample import LEAST_SEEDS, RESAMPLES


def useful_limits(
    batch: np.ndarray,
    learning_rate: np.ndarray,
    env_steps: np.ndarray,
    reached: np.ndarray,
    confidence: float = 0.9,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Quantiles of `largest_useful_batch` over resamples of the seeds within each batch size and learning rate.

    All arrays [n], a run each: E at the goal, or at the end of a run that was stopped short. Each resample takes at
    each batch size the rate whose runs reached the goal most often and then soonest, and leaves out batch sizes that
    less than half of those runs reached. Resampling m seeds shrinks the variance of their mean by (m - 1) / m: ln E is
    spread by the root of its inverse about the mean of each cell's runs that got there. None where a cell has fewer
    than 3 seeds. Both ends are batch sizes that were tried; it cannot reach beyond them.
    """
    log_e, batch = np.log(np.asarray(env_steps, np.float64)), np.asarray(batch, np.float64)
    reached, pairs = np.asarray(reached, bool), np.column_stack([batch, learning_rate])
    which = np.unique(pairs, axis=0, return_inverse=True)[1].ravel()
    cells = [np.flatnonzero(which == cell) for cell in range(which.max() + 1)]
    if min(map(len, cells)) < LEAST_SEEDS:
        return None
    spread = _spread(log_e, reached, cells)
    rng = np.random.default_rng(seed)
    found = [_once(batch, spread, reached, [rng.choice(cell, len(cell)) for cell in cells]) for _ in range(RESAMPLES)]
    known = np.array([value for value in found if value is not None])
    if 2 * len(known) < RESAMPLES:
        return None
    ends = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return float(ends[0]), float(ends[1])


def _spread(log_e: np.ndarray, reached: np.ndarray, cells: list[np.ndarray]) -> np.ndarray:
    spread = log_e.copy()
    for cell in cells:
        there = cell[reached[cell]]
        if len(there) > 1:
            mean = log_e[there].mean()
            spread[there] = mean + np.sqrt(len(there) / (len(there) - 1)) * (log_e[there] - mean)
    return spread


def _once(batch: np.ndarray, log_e: np.ndarray, reached: np.ndarray, drawn: list[np.ndarray]) -> float | None:
    """Of one resample; None where no batch size got there."""
    best: dict[float, tuple[tuple[float, float], np.ndarray]] = {}
    for cell in drawn:
        there = cell[reached[cell]]
        slowness = (1 - len(there) / len(cell), float(log_e[there].mean()) if len(there) else 0.0)
        if batch[cell[0]] not in best or slowness < best[batch[cell[0]]][0]:
            best[batch[cell[0]]] = slowness, there
    kept = [there for (missed, _), there in best.values() if missed <= 0.5]
    if not kept:
        return None
    runs = np.concatenate(kept)
    return largest_useful_batch(batch[runs], np.exp(log_e[runs]))
