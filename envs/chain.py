"""A tabular Markov decision process, whose policy gradient and gradient noise `envs.chain_truth` computes exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs import world
from envs.streams import NoiseStreams

N_STATES = 4
N_ACTIONS = 3
EPISODE_LIMIT_ENV_STEPS = 12
"""An episode that has not ended by itself is truncated after so many env steps."""
START_STATE = 0
SLIP_PROBABILITY = 0.3
"""The move fails and ends in a uniformly random state."""
END_PROBABILITY = (0.0, 0.05, 0.1, 0.3)
"""That an env step from each state ends the episode, whatever the action."""
REWARD_MEAN = np.array([[0.0, 0.2, -0.1], [0.4, -0.2, 0.1], [-0.3, 0.5, 0.0], [1.0, 0.2, 0.6]])
"""[state, action]."""
REWARD_STD = np.array([0.3, 0.5, 0.8, 1.0])
"""[state]: a reward is its mean plus or minus this, each with probability 1/2."""
ENDS = N_STATES
"""The column of `transition_probabilities()` that stands for the episode's end."""


def transition_probabilities() -> np.ndarray:
    """[state, action, next state, or `ENDS`]. Actions 0, 1, 2 move one state back, none, one on, unless they slip."""
    probability = np.zeros((N_STATES, N_ACTIONS, N_STATES + 1))
    for state, end in enumerate(END_PROBABILITY):
        for action in range(N_ACTIONS):
            wanted = min(max(state + action - 1, 0), N_STATES - 1)
            probability[state, action, :N_STATES] = (1 - end) * SLIP_PROBABILITY / N_STATES
            probability[state, action, wanted] += (1 - end) * (1 - SLIP_PROBABILITY)
            probability[state, action, ENDS] = end
    return probability


class ChainWorld:
    """N chains; the observation is the state one-hot, and all zeros once an episode ended by itself.

    Column n's noise at env step t is a function of (seed n, t) alone, so its states are one of that and its actions.
    """

    def __init__(self, n_columns: int, seeds: Sequence[int]) -> None:
        self._noise = NoiseStreams(world.checked_seeds(seeds, n_columns))
        self._cumulative = transition_probabilities().cumsum(axis=2)[..., :-1]
        self.n_columns = n_columns
        self.n_actions = N_ACTIONS
        self.frame_shape = (N_STATES,)
        self.frame_dtype = np.dtype(np.float32)
        self.frame_stack = 1
        self.reset()

    def reset(self) -> np.ndarray:
        """Env step 0 of every stream, all columns in the start state; see `World`."""
        self._step = 0
        self._state = np.full(self.n_columns, START_STATE)
        self._age = np.zeros(self.n_columns, dtype=np.int64)
        self._ended = np.zeros(self.n_columns, dtype=bool)
        self.episode_start = np.ones(self.n_columns, dtype=bool)
        return self._observation()

    def step(self, action: np.ndarray) -> world.Transition:
        """One move in every column; see `World`."""
        action = world.checked_actions(action, self.n_columns, self.n_actions)
        started = self._ended
        raw_reward = np.where(started, 0.0, self._move(action))
        self._begin(started)
        terminated = self._state == ENDS
        truncated = ~terminated & (self._age == EPISODE_LIMIT_ENV_STEPS)
        self._ended = terminated | truncated
        self.episode_start = started.copy()
        reward = raw_reward.astype(np.float32)
        return world.Transition(self._observation(), reward, reward.copy(), terminated, truncated, ~started, started)

    def scatter(self, rng: np.random.Generator, max_steps: int) -> tuple[np.ndarray, int]:
        """Desynchronise the columns; see `World`."""
        return world.scatter(self, self._restart, rng, max_steps)

    def state(self) -> dict[str, Any]:
        """How far the streams are, and each column's state and age; see `World`."""
        arrays = {"state": self._state, "age": self._age, "ended": self._ended, "episode_start": self.episode_start}
        return {"step": self._step} | {name: array.copy() for name, array in arrays.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state; see `World`."""
        self._step = int(state["step"])
        self._state, self._age = np.array(state["state"], dtype=np.int64), np.array(state["age"], dtype=np.int64)
        self._ended = np.array(state["ended"], dtype=bool)
        self.episode_start = np.array(state["episode_start"], dtype=bool)

    def close(self) -> None:
        """Nothing to give back."""

    def _move(self, action: np.ndarray) -> np.ndarray:
        """Every column one env step on (those that have ended move too: `_begin` puts them right); rewards [N]."""
        normal, uniform = self._noise.at(self._step)
        self._step += 1
        at = np.minimum(self._state, N_STATES - 1)
        self._state = (uniform[:, None] >= self._cumulative[at, action]).sum(axis=1)
        self._age = self._age + 1
        return REWARD_MEAN[at, action] + np.copysign(REWARD_STD[at], normal)

    def _begin(self, columns: np.ndarray) -> None:
        self._state = np.where(columns, START_STATE, self._state)
        self._age = np.where(columns, 0, self._age)

    def _restart(self, columns: np.ndarray) -> np.ndarray:
        self._begin(columns)
        self._ended = self._ended & ~columns
        self.episode_start = self.episode_start | columns
        return self._observation()

    def _observation(self) -> np.ndarray:
        return np.eye(N_STATES + 1, N_STATES, dtype=np.float32)[self._state]
