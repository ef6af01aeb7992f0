"""A noisy quadratic: a bowl that keeps being pushed about, where everything that SGD will do is known exactly.

At optimizer step k the loss is L_k(w) = h/2 |w - m_k|^2, with its minimum at m_k = m +- (sqrt(C) / h) e_i: in turn
along each of the coordinates i = 1 .. P - 1, to a random side. One env step gives the gradient h (w - m_k) + xi, with
xi ~ N(0, Sigma), and a batch averages B of them. H = h I; m lies along coordinate 0, in which there is no noise. The
return of a policy w is -L(w), L(w) = h/2 |w - m|^2: the mean of -L_k, less a constant.

With learning rate eps, a = (1 - eps h)^2 and f = eps (C + tr Sigma / B) / (2 (2 - eps h)), second moments give

    E L after n steps of SGD = L(w) a^n + f (1 - a^n).

Noise enters as eps (C + tr Sigma / B) alone, up to terms in eps h << 1. So the best learning rate goes as
1 / (1 + B_crit / B), and S as 1 + B_crit / B, with B_crit = tr Sigma / C: the hyperbola is exact, at every goal. The
gradient at step k has |G_k|^2 = h^2 |w - m|^2 + C in the mean, of which the first term, that of the progress, is about
1 / S. Then B_simple = tr Sigma / |G|^2, which is B_noise as H = h I, lies near B_crit all the way.

The pushes stand for the gradient's turning from rollout to rollout, which limits the rate of large batches. In a bowl
that stands still, H = h I is descended in one full-batch step; with curvatures far apart it is stability that limits
the rate, and the tuned S(B) is a poor hyperbola: S is off by 2 to 3 % within a factor 8 of the knee, and that knee lies
a fifth below the ratio of its limits E_min / S_min (computed, for a goal at 1/20 of the first loss).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs import world

N_PARAMETERS = 512
"""P: so many that L scatters little from run to run (by 0.07 in ln S at small batches)."""
CURVATURE = 1.0
"""h."""
START_LOSS = 1.65
"""L(0): learners begin at w = 0."""
PUSH_SQ = 256.0
"""C. The goal return -1 is then reached in 51.5 optimizer steps at the least."""
B_CRIT = 90.0
"""tr Sigma / C, env steps an optimizer step."""
MINIMUM = np.sqrt(2 * START_LOSS / CURVATURE) * np.eye(N_PARAMETERS)[0]
"""m [P]."""
NOISE_VARIANCE = np.where(np.arange(N_PARAMETERS) > 0, B_CRIT * PUSH_SQ / (N_PARAMETERS - 1), 0.0)
"""Sigma's diagonal [P]."""
BLOCK_ENV_STEPS = 32
"""Env steps of a column's noise that are drawn at a time."""


class QuadraticWorld:
    """N columns whose observation is the noise of one env step's gradient, xi [P]; there is one action, and no reward.

    Column n's xi at env step t is a function of (seed n, t) alone. Episodes never end: see `policy_return`.
    """

    def __init__(self, n_columns: int, seeds: Sequence[int]) -> None:
        self._seeds = world.checked_seeds(seeds, n_columns)
        self.n_columns = n_columns
        self.n_actions = 1
        self.frame_shape = (N_PARAMETERS,)
        self.frame_dtype = np.dtype(np.float32)
        self.frame_stack = 1
        self._block, self._noise = -1, np.empty((BLOCK_ENV_STEPS, n_columns, N_PARAMETERS), np.float32)
        self.reset()

    def reset(self) -> np.ndarray:
        """Env step 0 of every stream; see `World`."""
        self._step = 0
        self.episode_start = np.ones(self.n_columns, dtype=bool)
        return self._observation()

    def step(self, action: np.ndarray) -> world.Transition:
        """The next draw of every column; see `World`."""
        world.checked_actions(action, self.n_columns, self.n_actions)
        self._step += 1
        never, nothing = np.zeros(self.n_columns, dtype=bool), np.zeros(self.n_columns, np.float32)
        self.episode_start = never.copy()
        return world.Transition(self._observation(), nothing, nothing.copy(), never, never.copy(), ~never, never.copy())

    def scatter(self, rng: np.random.Generator, max_steps: int) -> tuple[np.ndarray, int]:
        """Desynchronise the columns, whose draws have no phase; see `World`."""
        return world.scatter(self, self._restart, rng, max_steps)

    def state(self) -> dict[str, Any]:
        """How far the streams are; see `World`."""
        return {"step": self._step, "episode_start": self.episode_start.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state; see `World`."""
        self._step = int(state["step"])
        self.episode_start = np.array(state["episode_start"], dtype=bool)

    def close(self) -> None:
        """Nothing to give back."""

    def _restart(self, columns: np.ndarray) -> np.ndarray:
        self.episode_start = self.episode_start | columns
        return self._observation()

    def _observation(self) -> np.ndarray:
        block, row = divmod(self._step, BLOCK_ENV_STEPS)
        if block != self._block:
            self._draw(block)
        return self._noise[row].copy()

    def _draw(self, block: int) -> None:
        self._block = block
        for column, seed in enumerate(self._seeds.tolist()):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(block,))))
            self._noise[:, column] = rng.standard_normal((BLOCK_ENV_STEPS, N_PARAMETERS), dtype=np.float32)
        self._noise *= np.sqrt(NOISE_VARIANCE).astype(np.float32)


def policy_return(weights: np.ndarray) -> float:
    """-L(w) of `weights` [P], exactly."""
    return -0.5 * CURVATURE * float(np.square(np.asarray(weights, np.float64) - MINIMUM).sum())


def pushed_minimum(seed: int, optimizer_step: int) -> np.ndarray:
    """m_k [P] float64 of a run with this seed at its optimizer step k."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(5, optimizer_step)))
    pushed = MINIMUM.copy()
    pushed[1 + optimizer_step % (N_PARAMETERS - 1)] += rng.choice((-1.0, 1.0)) * np.sqrt(PUSH_SQ) / CURVATURE
    return pushed


def expected_loss(
    weights: np.ndarray, batch_size: float, learning_rate: float, optimizer_steps: np.ndarray | float
) -> np.ndarray:
    """E L after so many steps of SGD from `weights` [P] (n steps cost n `batch_size` env steps); of the shape of
    `optimizer_steps`, which may be fractional."""
    keeps, floor = _law(batch_size, learning_rate)
    kept = keeps ** np.asarray(optimizer_steps, np.float64)
    return -policy_return(weights) * kept + floor * (1 - kept)


def steps_to_return(goal_return: float, batch_size: float, learning_rate: float) -> float:
    """S: optimizer steps from w = 0 until E L is -`goal_return`; inf where the noise's floor lies above it."""
    keeps, floor = _law(batch_size, learning_rate)
    if not keeps < 1 or floor >= -goal_return:
        return float("inf")
    return float(np.log((START_LOSS - floor) / (-goal_return - floor)) / -np.log(keeps))


def tuned(goal_return: float, batch_size: float) -> tuple[float, float]:
    """(S, learning rate) at the best constant learning rate: the front, to 6 digits; E = S B."""
    lowest, highest = -14.0, np.log(2 / CURVATURE)
    for _ in range(6):  # each look is 20 times finer
        rates = np.linspace(lowest, highest, 82)[1:-1]
        steps = [steps_to_return(goal_return, batch_size, rate) for rate in np.exp(rates)]
        at = int(np.argmin(steps))
        lowest, highest = rates[at] - 2 * (rates[1] - rates[0]), rates[at] + 2 * (rates[1] - rates[0])
    return steps[at], float(np.exp(rates[at]))


def noise_scale(weights: np.ndarray) -> float:
    """B_simple = B_noise at `weights` [P], over the pushes: tr Sigma / (h^2 |w - m|^2 + C), env steps."""
    lasting = -2 * CURVATURE * policy_return(weights)
    return float(NOISE_VARIANCE.sum() / (lasting + PUSH_SQ))


def _law(batch_size: float, learning_rate: float) -> tuple[float, float]:
    """(a, f): what is left of L after a step, and what the noise keeps it at."""
    noise = PUSH_SQ + NOISE_VARIANCE.sum() / batch_size
    keeps = (1 - learning_rate * CURVATURE) ** 2
    return keeps, learning_rate**2 * CURVATURE * noise / (2 * (1 - keeps))
