"""What every world promises, held over every kind of world."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cases import (
    ATARI,
    CASES,
    N_COLUMNS,
    OTHER_SEEDS,
    balance,
    every_case,
    long_walk,
    shared,
    walk,
    walk_from_reset,
)

import envs


@every_case
def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(key):
    stream = walk_from_reset(key)
    assert stream.same_as(walk_from_reset(key)), "reset() starts again from the seeds"
    fresh = CASES[key].make()
    assert stream.same_as(walk(fresh, fresh.reset()))
    assert not stream.same_as(walk_from_reset(key, OTHER_SEEDS))


@every_case
def test_shapes_dtypes_and_spaces(key):
    world, rows = shared(key), long_walk(key).rows
    pixels = envs.spec(CASES[key].name).kind == "pixels"
    stack = (world.frame_stack,) if pixels else ()
    first = world.reset()
    assert first.shape == (N_COLUMNS, *stack, *world.frame_shape) and first.dtype == world.frame_dtype
    assert world.frame_dtype == (np.uint8 if pixels else np.float32)
    assert world.n_columns == N_COLUMNS and world.n_actions >= 1 and world.episode_start.all()
    assert rows.observation.shape[1:] == first.shape and rows.observation.dtype == first.dtype
    assert all(field.shape == rows.valid.shape for field in rows[1:])
    assert [field.dtype.name for field in rows[1:]] == ["float32"] * 2 + ["bool"] * 4


@every_case
def test_an_autoreset_row_is_marked_and_empty(key):
    rows = long_walk(key).rows
    assert np.array_equal(rows.episode_start, ~rows.valid)
    assert not (rows.terminated & rows.truncated).any()
    for field in (rows.reward, rows.raw_reward, rows.terminated, rows.truncated):
        assert not field[~rows.valid].any()
    assert (~rows.valid).any() == (key not in ("bandit", "echoed-bandit", "quadratic"))


@every_case
def test_autoreset_rows_follow_the_ends_and_nothing_else(key):
    rows = long_walk(key).rows
    ended = (rows.terminated | rows.truncated)[:-1]
    followed_by_reset = ~rows.valid[1:]
    assert not (followed_by_reset & ~ended).any() and rows.valid[0].all()
    game_goes_on = ended & ~followed_by_reset
    assert game_goes_on.any() == (key == "breakout-lives")
    assert not (game_goes_on & rows.truncated[:-1]).any()
    if key == "breakout-lives":
        assert (ended & followed_by_reset).any(), "the walk also lost whole games"


@pytest.mark.parametrize("key", ["pong-84", "pong-42", "pong-sticky"])
def test_a_time_limit_truncates_at_its_frame(key):
    rows, options = long_walk(key).rows, CASES[key].options
    limit = options.max_episode_frames // options.frameskip
    assert not rows.terminated.any()
    expected = np.arange(1, len(rows.truncated) + 1) % (limit + 1) == limit
    assert np.array_equal(rows.truncated, np.repeat(expected[:, None], N_COLUMNS, axis=1))


def test_a_balanced_pole_is_truncated_and_a_fallen_one_terminated():
    world = CASES["cartpole"].make()
    observation, ends = world.reset(), []
    for _ in range(1002):
        row = world.step(balance(observation))
        observation = row.observation
        assert not row.terminated.any()
        ends.append(row.truncated)
    assert np.array_equal(np.nonzero(np.all(ends, axis=1))[0], [499, 1000]) and np.sum(ends) == 2 * N_COLUMNS
    fallen = long_walk("cartpole").rows
    assert fallen.terminated.any() and not fallen.truncated.any()


@every_case
def test_illegal_actions_are_refused_before_they_hang_the_emulator(key):
    world = shared(key)
    world.reset()
    legal = np.zeros(N_COLUMNS, dtype=np.int64)
    wrong_numbers = legal + world.n_actions, legal - 1
    wrong_arrays = legal.astype(np.float32), legal.astype(bool), legal[1:], legal[:, None]
    for action in (*wrong_numbers, *wrong_arrays):
        with pytest.raises(ValueError, match="actions must be"):
            world.step(action)
    assert world.step(legal.astype(np.int32)).valid.all()


@pytest.mark.parametrize("seeds", [(1, 1), (-1, 2), (0, 2**31), (1, 2, 3), ()])
@pytest.mark.parametrize("name", ["Pong", "CartPole", "Bandit"])
def test_bad_seeds_are_refused(name, seeds):
    with pytest.raises(ValueError, match="seed"):
        envs.make_vec(name, 2, envs.AtariOptions(), seeds)


def plain(value):
    """What JSON makes of a state."""
    return json.loads(json.dumps(value, default=lambda array: array.tolist()))


@pytest.mark.parametrize("key", [key for key in CASES if key not in ATARI])
@pytest.mark.parametrize("after", [0, 1, 13, 1023, 1024, 1030])
def test_state_round_trip_is_bitwise(key, after):
    world = CASES[key].make()
    world.reset()
    if after:
        walk(world, None, n_steps=after)
    state, start = plain(world.state()), world.episode_start.copy()
    expected = walk(world, np.zeros(1), action_seed=8)
    for resumed in (CASES[key].make(), world):
        resumed.restore(state)
        assert np.array_equal(resumed.episode_start, start)
        assert plain(resumed.state()) == state
        assert walk(resumed, np.zeros(1), action_seed=8).same_as(expected)


@pytest.mark.parametrize("key", ATARI)
def test_atari_says_that_it_cannot_be_saved(key):
    assert shared(key).state() is None
    with pytest.raises(NotImplementedError):
        shared(key).restore({})
