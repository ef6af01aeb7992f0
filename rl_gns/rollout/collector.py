"""A collector: a vector world of a few columns with its own seed, random stream and one inference thread.

It is the unit that is placed, seeded, moved and replaced. Its numbers depend on the run's seed, its own id and its
generation, never on the process that hosts it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import envs
from rl_gns.config import RunConfig
from rl_gns.control_channel import ControlStream
from rl_gns.rollout.policy import ActingPolicy, Policy
from rl_gns.segments import SegmentBlock

COLUMNS_PER_GENERATION = 1 << 22
"""Seeds of one generation lie this far from the next one's: 512 generations of 4 M columns in 31 bits."""


class Collector:
    """Collects segments of `columns_per_collector` columns under the last policy it was given."""

    def __init__(self, config: RunConfig, collector_id: int, generation: int = 0, policy: Policy | None = None):
        """`policy`: who infers; None: this process."""
        self._config, self.collector_id, self.generation = config, collector_id, generation
        n_columns = config.rollout.columns_per_collector
        self.world = envs.make_vec(config.env, n_columns, config.atari, self._column_seeds(n_columns))
        self._policy: Policy = policy or ActingPolicy(config, self.world)
        self._version = -1
        stream = np.random.SeedSequence(config.seed, spawn_key=(2, collector_id, generation))
        self._rng = np.random.default_rng(stream)
        self._control = ControlStream(config, collector_id, generation)
        self._observation, self._burn_in = self.world.scatter(self._rng, config.rollout.scatter_env_steps)
        self._return = np.zeros(n_columns, np.float64)
        self._length = np.zeros(n_columns, np.int64)
        self._counting = self.world.episode_start.copy()
        self._burn_in_left = config.rollout.burn_in_env_steps

    def _column_seeds(self, n_columns: int) -> list[int]:
        """Consecutive over all columns of a run, from a start that the run's seed draws: no two are equal."""
        start = int(np.random.SeedSequence(self._config.seed, spawn_key=(0,)).generate_state(1)[0])
        first = start + self.generation * COLUMNS_PER_GENERATION + self.collector_id * n_columns
        return [(first + k) % (1 << 31) for k in range(n_columns)]

    def load(self, weights: Any, version: int) -> None:
        """Act on these weights from now on; after idle versions, burn in with them before anything counts."""
        if version > self._version + 1 and self._version >= 0:
            self._burn_in_left = self._config.rollout.burn_in_env_steps
        self._policy.load(weights)
        self._version = version

    def collect(self, segment_steps: int, wave: int = 0) -> SegmentBlock:
        """The next T env steps of every column; before the first, the burn-in, which is counted apart. `wave` > 0: they
        go into the same rollout as the last ones."""
        while self._burn_in_left > 0:
            self._burn_in += self.world.n_columns
            self._burn_in_left -= 1
            step = self.world.step(sample(self._policy.infer(self._observation)[0], self._rng)[0])
            self._count(step)
            self._observation = step.observation
        store = _Store(self.world, segment_steps, self._observation)
        finished: list[tuple[float, int]] = []
        for t in range(segment_steps):
            logits, store.value[t] = self._policy.infer(self._observation)
            action, store.logp[t] = sample(logits, self._rng)
            step = self.world.step(action)
            store.put(t, action, step)
            finished += self._count(step)
            self._observation = step.observation
        block = self._block(store, self._policy.infer(self._observation)[1], finished, wave)
        self._burn_in = 0
        return block

    def _count(self, step: envs.Transition) -> list[tuple[float, int]]:
        """Raw return and length of the episodes that finished before this row; one that the random start-up
        steps cut into does not count."""
        ended = step.episode_start
        done = [(float(self._return[n]), int(self._length[n])) for n in np.flatnonzero(ended & self._counting)]
        self._counting |= ended
        self._return = np.where(ended, 0.0, self._return + step.raw_reward)
        self._length = np.where(ended, 0, self._length + step.valid)
        return done

    def _block(
        self, store: _Store, last_value: np.ndarray, finished: list[tuple[float, int]], wave: int
    ) -> SegmentBlock:
        return SegmentBlock(
            **vars(store),
            last_value=last_value.copy(),
            control=self._control.draw(len(store.action), wave),
            episode_returns=np.array([r for r, _ in finished], np.float32),
            episode_lengths=np.array([n for _, n in finished], np.int64),
            policy_version=self._version,
            collector_id=self.collector_id,
            generation=self.generation,
            wave=wave,
            burn_in_env_steps=self._burn_in,
        )

    def state(self) -> dict[str, Any] | None:
        """Everything that the next block depends on, or None where the world cannot be saved."""
        if (world := self.world.state()) is None:
            return None
        names = ("_observation", "_return", "_length", "_counting")
        arrays = {name: getattr(self, name).copy() for name in names}
        rng = self._rng.bit_generator.state
        burn_in = [self._burn_in, self._burn_in_left]
        last = {"generation": self.generation, "version": self._version, "burn_in": burn_in}
        return {"world": world, "rng": rng, "control": self._control.state(), **last, **arrays}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.world.restore(state["world"])
        self._rng.bit_generator.state = state["rng"]
        self._control.restore(state["control"])
        self.generation, self._version = state["generation"], state["version"]
        self._burn_in, self._burn_in_left = state["burn_in"]
        for name in ("_observation", "_return", "_length", "_counting"):
            setattr(self, name, np.array(state[name]))


def sample(logits: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(action [N] int64, log-probability [N] float32) from `logits` [N, A], one uniform draw a row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    weight = np.exp(shifted)
    cumulative = weight.cumsum(axis=1)
    draw = rng.random(len(logits), dtype=np.float32)[:, None] * cumulative[:, -1:]
    action = np.minimum((draw >= cumulative).sum(axis=1), logits.shape[1] - 1)
    rows = np.arange(len(logits))
    return action, shifted[rows, action] - np.log(cumulative[:, -1])


class _Store:
    """Preallocated arrays of one block; frames are written once."""

    def __init__(self, world: envs.World, steps: int, observation: np.ndarray):
        n, stack = world.n_columns, world.frame_stack
        self.frames = np.empty((steps + stack, n, *world.frame_shape), world.frame_dtype)
        self.frames[:stack] = observation.swapaxes(0, 1) if stack > 1 else observation[None]
        self.episode_start = np.zeros((steps + 1, n), bool)
        self.episode_start[0] = world.episode_start
        self.action = np.empty((steps, n), np.int64)
        self.logp, self.value, self.reward, self.raw_reward = (np.empty((steps, n), np.float32) for _ in range(4))
        self.terminated, self.truncated, self.valid = (np.empty((steps, n), bool) for _ in range(3))

    def put(self, t: int, action: np.ndarray, step: envs.Transition) -> None:
        stack = len(self.frames) - len(self.action)
        self.frames[t + stack] = step.observation[:, -1] if stack > 1 else step.observation
        self.action[t] = action
        self.episode_start[t + 1] = step.episode_start
        for name in ("reward", "raw_reward", "terminated", "truncated", "valid"):
            getattr(self, name)[t] = getattr(step, name)
