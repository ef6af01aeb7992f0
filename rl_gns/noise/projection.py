"""A random projection that keeps inner products: J gradients of millions of parameters in a few megabytes.

Parameter p goes to coordinate p mod K with a random sign s_p: y_k = sum over p = k (mod K) of s_p x_p. Signs of
different parameters are independent, so E[y . y'] = x . x' over the seeds, and for gradients spread over many
parameters the relative standard deviation of |y|^2 is sqrt(2 / K): 1.1 % at K = 16,381. (Of x . x': at most
sqrt(2 / K) |x| |x'|.) It is one fixed linear map a seed, so sums of gradients may be projected piece by piece.
"""

from __future__ import annotations

import numpy as np

DIMENSIONS = 16_381
"""K, the largest prime below 2^14: layer widths share no factor with it, so no row of a weight matrix piles up in few
coordinates."""


class Projection:
    """P parameters to min(P, K) coordinates; up to K parameters nothing is projected and inner products are exact."""

    def __init__(self, n_parameters: int, seed: int, dimensions: int = DIMENSIONS) -> None:
        self.n_parameters, self._dimensions = n_parameters, dimensions
        self._signs: np.ndarray | None = None
        if n_parameters > dimensions:
            self._signs = np.random.default_rng(seed).integers(0, 2, n_parameters, dtype=np.int8) * np.int8(2) - 1

    @property
    def relative_variance(self) -> float:
        """Of the squared norm of a vector spread over many parameters: 2 / K; 0 where nothing is projected."""
        return 0.0 if self._signs is None else 2 / self._dimensions

    def __call__(self, matrix: np.ndarray) -> np.ndarray:
        """[J, min(P, K)] float64 of `matrix` [J, P]; the temporary memory is one row."""
        if self._signs is None:
            return np.asarray(matrix, np.float64)
        return np.stack([self._row(row) for row in matrix])

    def _row(self, row: np.ndarray) -> np.ndarray:
        folded = np.zeros(self._dimensions)
        signed = row * self._signs
        whole = len(signed) // self._dimensions * self._dimensions
        signed[:whole].reshape(-1, self._dimensions).sum(axis=0, dtype=np.float64, out=folded)
        folded[: len(signed) - whole] += signed[whole:]
        return folded
