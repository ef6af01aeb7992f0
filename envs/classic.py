"""CartPole: Gymnasium's own vectorised one, with a state that can be saved."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from envs import world

EPISODE_LIMIT_ENV_STEPS = 500


class CartPoleWorld:
    """N poles, reward 1 an env step, cut at 500 env steps. All columns draw their starts from one random stream."""

    def __init__(self, n_columns: int, seeds: Sequence[int]) -> None:
        self._seeds = world.checked_seeds(seeds, n_columns)
        self._env = CartPoleVectorEnv(n_columns, max_episode_steps=EPISODE_LIMIT_ENV_STEPS, sutton_barto_reward=False)
        self.n_columns = n_columns
        self.n_actions = 2
        self.frame_shape = (4,)
        self.frame_dtype = np.dtype(np.float32)
        self.frame_stack = 1
        self.episode_start = np.zeros(n_columns, dtype=bool)

    def reset(self) -> np.ndarray:
        """Seed one stream from all the seeds (and their number), and start every column; see `World`."""
        entropy = [self.n_columns, *self._seeds.tolist()]
        self._env.np_random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        observation, _ = self._env.reset()
        self.episode_start = np.ones(self.n_columns, dtype=bool)
        return observation

    def step(self, action: np.ndarray) -> world.Transition:
        """One push of 0.02 s in every column; see `World`."""
        action = world.checked_actions(action, self.n_columns, self.n_actions)
        started = self._env.prev_done.copy()
        observation, reward, terminated, truncated, _ = self._env.step(action)
        self.episode_start = started.copy()
        truncated = truncated & ~terminated
        return world.Transition(observation, reward, reward.copy(), terminated, truncated, ~started, started)

    def scatter(self, rng: np.random.Generator, max_steps: int) -> tuple[np.ndarray, int]:
        """Desynchronise the columns; see `World`."""
        return world.scatter(self, self._restart, rng, max_steps)

    def state(self) -> dict[str, Any]:
        """The poles, their clocks and the random stream; see `World`."""
        return {
            "state": self._env.state.copy(),
            "steps": self._env.steps.copy(),
            "prev_done": self._env.prev_done.copy(),
            "episode_start": self.episode_start.copy(),
            "bit_generator": self._env.np_random.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state; see `World`."""
        self.reset()
        self._env.state = np.array(state["state"], dtype=np.float64)
        self._env.steps = np.array(state["steps"], dtype=np.int32)
        self._env.prev_done = np.array(state["prev_done"], dtype=bool)
        self.episode_start = np.array(state["episode_start"], dtype=bool)
        self._env.np_random.bit_generator.state = copy.deepcopy(state["bit_generator"])

    def close(self) -> None:
        """Nothing to give back."""

    def _restart(self, columns: np.ndarray) -> np.ndarray:
        env = self._env
        env.state[:, columns] = env.np_random.uniform(env.low, env.high, size=(4, int(columns.sum())))
        env.steps[columns] = 0
        env.prev_done[columns] = False
        self.episode_start = self.episode_start | columns
        return env.state.T.astype(np.float32)
