"""Whose stream is whose: columns, scattered starts, and stacks rebuilt from single frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cases import (
    ATARI,
    CASES,
    N_COLUMNS,
    OTHER_SEEDS,
    SEEDS,
    Case,
    balance,
    every_case,
    shared,
    walk,
    walk_from_reset,
)

import envs


def all_pairs_differ(per_column):
    return all(not np.array_equal(a, b) for a, b in itertools.combinations(per_column, 2))


@every_case
def test_columns_share_no_stream(key):
    rows = walk_from_reset(key, equal_actions=True).rows
    seen = rows.reward if "bandit" in key else rows.observation
    assert all_pairs_differ(np.moveaxis(seen, 1, 0))


@pytest.mark.parametrize("key", [key for key in CASES if key != "cartpole"])
def test_a_column_depends_on_its_own_seed_alone(key):
    """OTHER_SEEDS holds two of SEEDS, in other columns and beside another seed."""
    here, there = (walk_from_reset(key, seeds, equal_actions=True) for seeds in (SEEDS, OTHER_SEEDS))
    for field, moved in zip(here.rows, there.rows, strict=True):
        assert np.array_equal(field[:, 1], moved[:, 1])
        assert np.array_equal(field[:, 0], moved[:, 2])


@every_case
def test_scatter_is_a_function_of_seeds_and_rng(key):
    def scattered(rng_seed):
        first, env_steps = shared(key).scatter(np.random.default_rng(rng_seed), 30)
        return env_steps, walk(shared(key), first, n_steps=40)

    (steps, stream), (same_steps, same), (_, other) = scattered(1), scattered(1), scattered(2)
    assert steps == same_steps and stream.same_as(same) and not stream.same_as(other)
    assert 0 < steps <= 30 * N_COLUMNS


@every_case
def test_scatter_by_nothing_is_a_reset(key):
    first, env_steps = shared(key).scatter(np.random.default_rng(0), 0)
    assert env_steps == 0
    assert shared(key).episode_start.all()
    assert np.array_equal(first, shared(key).reset())


@pytest.mark.parametrize(("key", "limit", "max_steps"), [("pong-42", 10, 9), ("cartpole", 500, 6)])
def test_scatter_puts_each_column_at_its_drawn_phase(key, limit, max_steps):
    """The time limit tells the phase: a column that has taken k steps is truncated after `limit` - k more."""
    n = 8
    world = CASES[key].make(tuple(range(n)))
    observation, env_steps = world.scatter(np.random.default_rng(3), max_steps)
    phase = np.random.default_rng(3).integers(0, max_steps + 1, size=n)
    assert env_steps == n * phase.max()
    assert len(set(phase)) > 4
    assert np.array_equal(world.episode_start, phase == 0)
    truncated = []
    for _ in range(limit):
        action = balance(observation) if key == "cartpole" else np.zeros(n, dtype=np.int64)
        row = world.step(action)
        observation = row.observation
        truncated.append(row.truncated)
    assert np.array_equal(np.argmax(truncated, axis=0) + 1, limit - phase)


def restack(frames, episode_start, stack):
    """[T + 1, N, stack, H, W] from [T + stack, N, H, W]: frames older than the episode's first are zero."""
    n_observations = len(episode_start)
    age = np.zeros(episode_start.shape[1], dtype=np.int64) + stack
    stacks = []
    for t in range(n_observations):
        age = np.where(episode_start[t], 0, age + 1)
        newest_first = [
            np.where((age >= back)[:, None, None], frames[t + stack - 1 - back], 0) for back in range(stack)
        ]
        stacks.append(np.stack(newest_first[::-1], axis=1))
    return np.stack(stacks)


@pytest.mark.parametrize("scatter_steps", [0, 57])
@pytest.mark.parametrize("key", ATARI)
def test_single_frames_rebuild_every_stack(key, scatter_steps):
    world = shared(key)
    first, _ = world.scatter(np.random.default_rng(4), scatter_steps)
    started = world.episode_start.copy()
    rows = walk(world, first, n_steps=400 if key == "breakout-lives" else 120).rows
    stacks = np.concatenate([first[None], rows.observation])
    frames = np.concatenate([np.moveaxis(first, 1, 0), rows.observation[:, :, -1]])
    episode_start = np.concatenate([started[None], rows.episode_start])
    assert episode_start[1:].any()
    assert np.array_equal(restack(frames, episode_start, world.frame_stack), stacks)
    no_starts = np.zeros_like(episode_start)
    assert not np.array_equal(restack(frames, no_starts, world.frame_stack), stacks), "negative control"


def test_a_stack_holds_the_newest_frame_last_and_nothing_from_before_the_reset():
    world = shared("pong-42")
    first = world.reset()
    assert first[:, -1].any()
    assert not first[:, :-1].any()
    assert np.array_equal(world.step(np.zeros(N_COLUMNS, dtype=np.int64)).observation[:, 2], first[:, 3])


@pytest.mark.parametrize("clip", [True, False])
def test_raw_and_clipped_rewards(clip):
    world = Case("SpaceInvaders", envs.AtariOptions(42, clip_rewards=clip)).make((1, 2))
    rows = walk(world, world.reset(), n_steps=150).rows
    assert rows.raw_reward.max() > 1
    assert np.array_equal(rows.reward, np.clip(rows.raw_reward, -1, 1) if clip else rows.raw_reward)


def test_clipping_keeps_a_lost_point():
    world = Case("Pong", envs.AtariOptions(42)).make((1,))
    rows = walk(world, world.reset(), n_steps=150).rows
    assert rows.raw_reward.min() == -1
    assert np.array_equal(rows.reward, rows.raw_reward)


@every_case
def test_what_was_handed_out_is_never_altered(key):
    world = shared(key)
    kept = world.reset(), *world.step(np.zeros(N_COLUMNS, dtype=np.int64))
    copies = [array.copy() for array in kept]
    walk(world, None, n_steps=20)
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))


@pytest.mark.parametrize("key", ["pong-42", "cartpole", "bandit"])
def test_a_world_can_be_closed(key):
    CASES[key].make((1,)).close()
