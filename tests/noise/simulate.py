"""Streams of (signal_sq, noise_trace) with a known answer, drawn in the space of the noise, many replications at once.

|G|^2 = 1 unless it drifts. The noise has `rank` equal directions, one of them along G (the hardest place for it). For
normal noise the draws have the exact law of what a probe returns: with u_t the noise of the rollout's mean gradient in
units of its standard deviation, |G + sd u_t|^2 needs the component along G and the squared norm of the others, and
the spread between groups is a squared norm too. The squared norm of d AR(1) coordinates is a Markov chain with
noncentral chi-square steps, so correlated streams cost three numbers a rollout instead of J x rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHUNK = 2_000_000


@dataclass(frozen=True)
class World:
    """Noise of a probe. `ratio`: B_simple / env steps of a rollout, at |G|^2 = 1."""

    ratio: float
    n_groups: int
    rank: int
    tail: str = "normal"
    """`normal`, `t4` (Student t with 4 degrees of freedom, i.i.d. per coordinate) or `t4 joint` (multivariate t)."""

    def group_gradients(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """[*shape, J, rank] group means for rollouts of one env step: tr(Sigma) = ratio, group noise J ratio / rank."""
        noise = self._unit(rng, (*shape, self.n_groups, self.rank)) * np.sqrt(self.ratio * self.n_groups / self.rank)
        noise[..., 0] += 1.0
        return noise

    def _unit(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if self.tail == "t4":
            return rng.standard_t(4, shape) / np.sqrt(2)
        normal = rng.standard_normal(shape)
        if self.tail == "t4 joint":
            normal *= np.sqrt(2 / rng.chisquare(4, (*shape[:-1], 1)))
        return normal


def independent(rng: np.random.Generator, world: World, repeats: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(signal_sq, noise_trace), each [repeats, n], of independent rollouts of one env step each."""
    if world.tail == "normal":
        return correlated(rng, world, repeats, np.ones(n))
    chunk = max(1, CHUNK // (n * world.n_groups * world.rank))
    parts = [_drawn(rng, world, min(chunk, repeats - i), n) for i in range(0, repeats, chunk)]
    return np.concatenate([s for s, _ in parts]), np.concatenate([t for _, t in parts])


def _drawn(rng: np.random.Generator, world: World, repeats: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    gradients = world.group_gradients(rng, (repeats, n))
    mean_sq = (gradients.mean(axis=-2) ** 2).sum(axis=-1)
    trace = ((gradients**2).sum(axis=(-2, -1)) / world.n_groups - mean_sq) / (world.n_groups - 1)
    return mean_sq - trace, trace


def correlated(
    rng: np.random.Generator,
    world: World,
    repeats: int,
    env_steps: np.ndarray,
    rho: float = 0.0,
    signal_sq: np.ndarray | float = 1.0,
    trace_factor: np.ndarray | float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """(signal_sq, noise_trace), each [repeats, n]: normal group noise that is AR(1) `rho` from rollout to rollout.

    `env_steps [n]` in units of the first rollout; |G_t|^2 = signal_sq and tr(Sigma_t) = ratio x trace_factor, [n] or
    numbers.
    """
    n, rank, n_groups = len(env_steps), world.rank, world.n_groups
    trace = world.ratio * np.broadcast_to(trace_factor, n)
    variance = trace / (rank * env_steps)
    along = ar1(rng, (repeats, n), rho) * np.sqrt(variance) + np.sqrt(np.broadcast_to(signal_sq, n))
    across = ar1_squares(rng, (repeats, n), rho, rank - 1) * variance
    estimated_trace = trace * ar1_squares(rng, (repeats, n), rho, rank * (n_groups - 1)) / (rank * (n_groups - 1))
    return along**2 + across - estimated_trace / env_steps, estimated_trace


def ar1(rng: np.random.Generator, shape: tuple[int, int], rho: float) -> np.ndarray:
    """[repeats, n] unit-variance AR(1) series."""
    noise = rng.standard_normal(shape)
    for t in range(1, shape[1]):
        noise[:, t] = rho * noise[:, t - 1] + np.sqrt(1 - rho**2) * noise[:, t]
    return noise


def ar1_squares(rng: np.random.Generator, shape: tuple[int, int], rho: float, dof: int) -> np.ndarray:
    """[repeats, n] sums of the squares of `dof` independent unit-variance AR(1) series."""
    if not rho:
        return rng.chisquare(dof, shape)
    squares = np.empty(shape)
    squares[:, 0] = rng.chisquare(dof, shape[0])
    rest = 1 - rho**2
    for t in range(1, shape[1]):
        squares[:, t] = rest * rng.noncentral_chisquare(dof, rho**2 / rest * squares[:, t - 1])
    return squares
