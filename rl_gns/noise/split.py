"""Where a segment's noise comes from: the law of total variance, from segments replayed from saved states.

Start s of a segment is played under two draws m of what the world does meanwhile, each with two draws k of the actions.
With S the sum of a segment's gradients over its N valid env steps, G = E S / E N and y = S - G N,

    noise_trace = E|y_smk|^2 / E N       all of it
    within      = E y_sm1 . y_sm2 / E N  what start and world decide
    between     = E y_s1  . y_s2  / E N  what the start alone decides, y_sm the mean over k

and columns = between, time = within - between, actions = noise_trace - within: three parts that add up, each a mean of
products of independent draws, so unbiased but for the error of G (a share of one over the number of starts).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class SplitMoments:
    """The sums behind the three parts, a group of columns apart (memory: 4 J P float64)."""

    def __init__(self, n_groups: int, n_parameters: int):
        self.n_starts = self.env_steps = 0
        self._starts, self._n = np.zeros(n_groups), np.zeros(n_groups)
        self._s = np.zeros((n_groups, n_parameters))
        self._dot, self._square = np.zeros((3, n_groups)), np.zeros((3, n_groups))
        self._cross = np.zeros((3, n_groups, n_parameters))

    def add(self, sums: np.ndarray, env_steps: np.ndarray, groups: Sequence[np.ndarray]) -> None:
        """`sums` [starts, 2 worlds, 2 actions, P], `env_steps` [starts, 2, 2], `groups`: J sets of starts."""
        self.n_starts += len(sums)
        self.env_steps += int(env_steps.sum())
        for j, index in enumerate(groups):
            s, n = sums[index].astype(np.float64), env_steps[index].astype(np.float64)
            self._starts[j] += len(index)
            self._n[j] += n.mean(axis=(1, 2)).sum()
            self._s[j] += s.mean(axis=(1, 2)).sum(axis=0)
            for p, (x, y, weight) in enumerate(_pairs(s, n)):
                self._dot[p, j] += weight * (x[0] * y[0]).sum()
                self._square[p, j] += weight * (x[1] * y[1]).sum()
                self._cross[p, j] += weight * (y[1] @ x[0] + x[1] @ y[0])

    def parts(self, left_out: int | None = None) -> np.ndarray:
        """[3] columns, time and actions, gradient^2 x env steps, all groups but one."""
        kept = np.delete(np.arange(len(self._n)), [] if left_out is None else left_out)
        n = self._n[kept].sum()
        g = self._s[kept].sum(axis=0) / n
        dot, square = self._dot[:, kept].sum(axis=1), self._square[:, kept].sum(axis=1)
        product = (dot - self._cross[:, kept].sum(axis=1) @ g + square * (g @ g)) / n
        starts = self._starts[kept].sum()
        total, within, between = product * starts / max(starts - 1, 1)
        return np.array([between, within - between, total - within])

    def replicates(self) -> np.ndarray:
        """[J, 3] the parts with one group left out."""
        return np.stack([self.parts(j) for j in range(len(self._n))])


def _pairs(s: np.ndarray, n: np.ndarray) -> list[tuple[tuple, tuple, float]]:
    """(sums, env steps) twice, [M, P] and [M], and the weight: for the whole, within and between, one mean a start."""
    flat, count = (s.reshape(-1, s.shape[-1]), n.reshape(-1)), 1 / 4
    one, two = ((s[:, :, k].reshape(-1, s.shape[-1]), n[:, :, k].reshape(-1)) for k in (0, 1))
    first, second = ((s[:, m].mean(axis=1), n[:, m].mean(axis=1)) for m in (0, 1))
    return [(flat, flat, count), (one, two, 1 / 2), (first, second, 1.0)]


def jackknife_error(replicates: np.ndarray) -> np.ndarray:
    """Standard errors [...] from delete-one values [J, ...]."""
    n = len(replicates)
    return np.sqrt((n - 1) / n * np.square(replicates - replicates.mean(axis=0)).sum(axis=0))
