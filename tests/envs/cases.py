"""The worlds that the contract is held over, and walks through them."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

import envs

N_COLUMNS = 3
N_STEPS = 90
DEFAULT_OPTIONS = envs.AtariOptions()
SEEDS = (2**31 - 1, 0, 977)
OTHER_SEEDS = (12, 0, 2**31 - 1)


@dataclasses.dataclass(frozen=True)
class Case:
    """One world under one protocol."""

    name: str
    options: envs.AtariOptions = DEFAULT_OPTIONS

    def make(self, seeds=SEEDS):
        return envs.make_vec(self.name, len(seeds), self.options, seeds)


CASES = {
    "pong-84": Case("Pong", envs.AtariOptions(max_episode_frames=160)),
    "pong-42": Case("Pong", envs.AtariOptions(frame_size=42, max_episode_frames=40)),
    "pong-sticky": Case("Pong", envs.AtariOptions(42, sticky_action_probability=0.25, max_episode_frames=160)),
    "breakout-lives": Case("Breakout", envs.AtariOptions(42, life_loss_terminal=True)),
    "cartpole": Case("CartPole"),
    "bandit": Case("Bandit"),
    "episodic-bandit": Case("EpisodicBandit"),
    "echoed-bandit": Case("EchoedBandit"),
    "chain": Case("Chain"),
    "quadratic": Case("Quadratic"),
}
ATARI = [key for key, case in CASES.items() if envs.spec(case.name).kind == "pixels"]
every_case = pytest.mark.parametrize("key", CASES)


@dataclasses.dataclass(frozen=True)
class Stream:
    """A walk: the first observation and the transitions, each field [T, N, ...]."""

    first: np.ndarray
    rows: envs.Transition

    def same_as(self, other: Stream) -> bool:
        pairs = zip((self.first, *self.rows), (other.first, *other.rows), strict=True)
        return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def walk(world, first, n_steps=N_STEPS, action_seed=5, equal_actions=False):
    """Uniformly random actions, the same in every column if `equal_actions`."""
    rng = np.random.default_rng(action_seed)
    size = (n_steps, 1) if equal_actions else (n_steps, world.n_columns)
    actions = np.broadcast_to(rng.integers(0, world.n_actions, size=size), (n_steps, world.n_columns))
    rows = [world.step(action) for action in actions]
    return Stream(first, envs.Transition(*(np.stack(field) for field in zip(*rows, strict=True))))


@functools.cache
def shared(key, seeds=SEEDS):
    """One world for all tests of its kind, for loading a ROM takes 0.1 s a column; reset() starts it over."""
    return CASES[key].make(seeds)


def walk_from_reset(key, seeds=SEEDS, **kwargs):
    world = shared(key, seeds)
    return walk(world, world.reset(), **kwargs)


@functools.cache
def long_walk(key):
    """For the tests that only look; long enough for Breakout to be lost."""
    return walk_from_reset(key, n_steps=400 if key == "breakout-lives" else 150)


def balance(observation):
    """Push to the side to which the pole falls; survives any time limit."""
    return (observation @ np.array([1.0, 1.6, 18.0, 3.0]) > 0).astype(np.int64)
