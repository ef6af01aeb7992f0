"""Two-armed bandits, whose gradient noise scale is known in closed form: the instrument's calibration weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs import world

REWARD_MEAN = (1.0, 0.5)
"""Mean reward of each arm."""
REWARD_STD = (1.0, 1.0)
"""Standard deviation of each arm's normal reward."""
NEVER_ENDS = (0.0, 0.0)
"""Probability that the pull of each arm ends the episode: "Bandit"."""
ENDS_BY_ARM = (0.5, 0.05)
"""The same for "EpisodicBandit": which rows are masked depends on what the policy did."""
BLOCK_ENV_STEPS = 1024
"""Env steps of noise that are drawn at a time."""


class BanditWorld:
    """N bandits with the constant observation [1.0]; after an episode's end comes an autoreset row, as in any world.

    Column n's noise at env step t is a function of (seed n, t) alone: no column can shift another's stream.
    """

    def __init__(self, n_columns: int, seeds: Sequence[int], end_probability: tuple[float, float]) -> None:
        self._seeds = world.checked_seeds(seeds, n_columns)
        self._end_probability = np.array(end_probability)
        self.n_columns = n_columns
        self.n_actions = 2
        self.frame_shape = (1,)
        self.frame_dtype = np.dtype(np.float32)
        self.frame_stack = 1
        self.reset()

    def reset(self) -> np.ndarray:
        """Env step 0 of every stream; see `World`."""
        self._move_to(0)
        self._ended = np.zeros(self.n_columns, dtype=bool)
        self.episode_start = np.ones(self.n_columns, dtype=bool)
        return self._observation()

    def step(self, action: np.ndarray) -> world.Transition:
        """One pull in every column; see `World`."""
        arm = world.checked_actions(action, self.n_columns, self.n_actions)
        normal, uniform = self._next_noise()
        started = self._ended
        raw_reward = np.where(started, 0.0, np.take(REWARD_MEAN, arm) + np.take(REWARD_STD, arm) * normal)
        self._ended = ~started & (uniform < self._end_probability[arm])
        self.episode_start = started.copy()
        reward, never = raw_reward.astype(np.float32), np.zeros(self.n_columns, dtype=bool)
        return world.Transition(
            self._observation(), reward, reward.copy(), self._ended.copy(), never, ~started, started
        )

    def scatter(self, rng: np.random.Generator, max_steps: int) -> tuple[np.ndarray, int]:
        """Desynchronise the columns; see `World`."""
        return world.scatter(self, self._restart, rng, max_steps)

    def state(self) -> dict[str, Any]:
        """How far the streams are, and who ended; see `World`."""
        return {"step": self._step, "ended": self._ended.copy(), "episode_start": self.episode_start.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state; see `World`."""
        self._move_to(int(state["step"]))
        self._ended = np.array(state["ended"], dtype=bool)
        self.episode_start = np.array(state["episode_start"], dtype=bool)

    def close(self) -> None:
        """Nothing to give back."""

    def _restart(self, columns: np.ndarray) -> np.ndarray:
        self._ended = self._ended & ~columns
        self.episode_start = self.episode_start | columns
        return self._observation()

    def _observation(self) -> np.ndarray:
        return np.ones((self.n_columns, 1), dtype=np.float32)

    def _move_to(self, step: int) -> None:
        self._step = step
        self._normals, self._uniforms = _noise_block(self._seeds, step // BLOCK_ENV_STEPS)

    def _next_noise(self) -> tuple[np.ndarray, np.ndarray]:
        row = self._step % BLOCK_ENV_STEPS
        normal, uniform = self._normals[row], self._uniforms[row]
        self._step += 1
        if self._step % BLOCK_ENV_STEPS == 0:
            self._move_to(self._step)
        return normal, uniform


def _noise_block(seeds: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normals and uniforms, each [BLOCK_ENV_STEPS, N] float64, of block number `block` of every column."""
    normals, uniforms = np.empty((2, BLOCK_ENV_STEPS, len(seeds)))
    for column, seed in enumerate(seeds.tolist()):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(block,))))
        normals[:, column] = rng.standard_normal(BLOCK_ENV_STEPS)
        uniforms[:, column] = rng.random(BLOCK_ENV_STEPS)
    return normals, uniforms


def true_noise_scale(policy_logits: np.ndarray, value: float) -> tuple[float, float]:
    """(signal_sq, noise_trace) of both bandits for a softmax policy whose two logits are its parameters.

    With advantage A = reward - value, the gradient of one valid env step is A (e_a - pi), so that

        G            = E[A (e_a - pi)]                        = sum_a pi_a (mean_a - value) (e_a - pi)
        signal_sq    = |G|^2
        noise_trace  = E[A^2 |e_a - pi|^2] - |G|^2,    E[A^2 | a] = std_a^2 + (mean_a - value)^2

    per valid env step. Valid env steps are independent and alike in both bandits (an episode's end says nothing of
    the next reward), so one formula serves both. The mean gradient's B_simple is noise_trace / signal_sq env steps.
    """
    logits = np.asarray(policy_logits, dtype=np.float64)
    policy = np.exp(logits - logits.max())
    policy /= policy.sum()
    advantage = np.array(REWARD_MEAN) - value
    advantage_sq = np.square(REWARD_STD) + np.square(advantage)
    score = np.eye(2) - policy
    gradient = (policy * advantage) @ score
    signal_sq = float(gradient @ gradient)
    return signal_sq, float((policy * advantage_sq) @ np.square(score).sum(axis=1)) - signal_sq
