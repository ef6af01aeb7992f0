"""How uncertain a mean over training is, where rollouts are correlated, drift, and change their size.

Blocks of consecutive rollouts stand for independent samples. What the gradient really did meanwhile is no noise: the
target is the mean over the window, so a linear trend is taken out before anything is called spread (without that a
drifting signal reads as correlation without end, and no interval ever resolves).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rl_gns.noise.interval import autocorrelation_time

MIN_BLOCKS = 8
"""Full blocks that an interval needs."""
USUAL_BLOCKS = 10
"""Where rollouts abound blocks grow longer instead of more: about ten of them cost 18 % of width against a known
variance (t of 8 degrees of freedom) and hold correlation that the autocorrelation time did not see."""
TAUS_PER_BLOCK = 3
TREND_BLOCKS = 4
"""Below that many blocks no trend is taken out: the interval is provisional anyhow."""


@dataclass(frozen=True)
class BlockSpread:
    """Covariance of the weighted mean of [n, 2] values, and what it rests on."""

    cov: np.ndarray | None
    """[2, 2]; None for a single row."""
    dof: int
    """Degrees of freedom: 1 / sum (W_b / W)^2 less the level and, where it was taken out, the trend; at least 1."""
    n_blocks: int
    """Blocks of full length; below MIN_BLOCKS the covariance is provisional (shorter blocks, at least four)."""
    block_rollouts: int
    """Rows that a full block needs: 3 autocorrelation times, of the column with the longer one."""


def block_spread(values: np.ndarray, weights: np.ndarray, batch_size: np.ndarray | None = None) -> BlockSpread:
    """The spread of `weights @ values / sum(weights)` for `values [n, 2]`; no block straddles two batch sizes [n].

    Cov = sum_b (W_b / W)^2 r_b r_b^T / (1 - sum_b (W_b / W) h_b), with r_b the residual of block b's mean from the
    weighted linear trend and h_b its leverage: unbiased where Var(x_b) = v / W_b. Blocks of m rows of an AR(1) series
    see too little variance by the factor 1 - (tau - 1/tau) / (2 m) K / (K - 2) to first order in 1/m, which is
    divided out.
    """
    n = len(values)
    lengths = _runs(batch_size, n)
    tau = np.array([autocorrelation_time(column) for column in detrended(values, weights)[0].T])
    block_rollouts = math.ceil(TAUS_PER_BLOCK * tau.max())
    length = max(block_rollouts, n // USUAL_BLOCKS)
    n_blocks = sum(run // length for run in lengths)
    starts = block_starts(lengths, length if n_blocks >= TREND_BLOCKS else max(1, n // TREND_BLOCKS))
    if len(starts) < 2:
        return BlockSpread(None, 0, n_blocks, block_rollouts)
    cov, dof, shrinkage = _covariance(values, weights, starts)
    missed = np.minimum((tau - 1 / tau) / 2 * shrinkage / n, 0.75)
    return BlockSpread(cov / np.sqrt(np.outer(1 - missed, 1 - missed)), dof, n_blocks, block_rollouts)


def _covariance(values: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, int, float]:
    """(covariance, degrees of freedom, K^2 / (K - fitted parameters)) of the weighted mean from blocks."""
    block_weight = np.add.reduceat(weights, starts)
    means = np.add.reduceat(values * weights[:, None], starts) / block_weight[:, None]
    share, n_blocks = block_weight / block_weight.sum(), len(starts)
    fitted = 2 if n_blocks >= TREND_BLOCKS else 1
    residual, leverage = detrended(means, share) if fitted == 2 else (means - share @ means, share)
    cov = (residual * share[:, None] ** 2).T @ residual / (1 - share @ leverage)
    dof = max(1, math.floor(1 / (share @ share) + 1e-9) - fitted)
    return cov, dof, n_blocks**2 / (n_blocks - fitted)


def detrended(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(residuals [n, 2] from the weighted linear trend over cumulated weight, leverages [n]).

    Residuals below 1e-9 of the values are rounding errors and become zero.
    """
    share = weights / weights.sum()
    at = np.cumsum(share) - share / 2
    at = at - share @ at
    spread = share @ at**2
    if not spread:
        return np.zeros_like(values), np.ones(len(values))
    residual = values - share @ values - np.outer(at, (share * at) @ values / spread)
    rounding = 1e-9 * np.abs(values).max(axis=0)
    return np.where(np.abs(residual) > rounding, residual, 0.0), share * (1 + at**2 / spread)


def _runs(batch_size: np.ndarray | None, n: int) -> list[int]:
    """Lengths of the stretches of one batch size."""
    return [n] if batch_size is None else [len(list(run)) for _, run in itertools.groupby(batch_size)]


def block_starts(lengths: Sequence[int], block_rollouts: int) -> np.ndarray:
    """First rows of the blocks: as many of at least `block_rollouts` as a stretch holds, or else the whole stretch."""
    first, starts = 0, []
    for n in lengths:
        n_blocks = max(1, n // block_rollouts)
        starts.append(first + np.arange(n_blocks) * n // n_blocks)
        first += n
    return np.concatenate(starts)
