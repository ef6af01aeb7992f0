"""Noise that a column's seed and the env step alone decide, so that no column can shift another's stream."""

from __future__ import annotations

import numpy as np

BLOCK_ENV_STEPS = 1024
"""Env steps of noise that are drawn at a time."""


class NoiseStreams:
    """One normal and one uniform a column and env step, from N seeds."""

    def __init__(self, seeds: np.ndarray) -> None:
        self._seeds = seeds
        self._block, self._noise = -1, np.empty((2, 0, len(seeds)))

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(standard normal [N], uniform in [0, 1) [N]) of env step `step`, float64; any order of steps will do."""
        block, row = divmod(step, BLOCK_ENV_STEPS)
        if block != self._block:
            self._block, self._noise = block, _noise_block(self._seeds, block)
        normals, uniforms = self._noise
        return normals[row], uniforms[row]


def _noise_block(seeds: np.ndarray, block: int) -> np.ndarray:
    """[2, BLOCK_ENV_STEPS, N] standard normals and uniforms of block number `block` of every column."""
    noise = np.empty((2, BLOCK_ENV_STEPS, len(seeds)))
    for column, seed in enumerate(seeds.tolist()):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(block,))))
        noise[0, :, column] = rng.standard_normal(BLOCK_ENV_STEPS)
        noise[1, :, column] = rng.random(BLOCK_ENV_STEPS)
    return noise
