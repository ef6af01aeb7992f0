"""Generalised advantage estimation and the advantage statistics against hand-worked arrays."""

import numpy as np
import pytest

from rl_gns.learn.returns import EwmaStatistics, gae


def column(*values, dtype=np.float32):
    return np.array(values, dtype)[:, None]


def test_gae_by_hand():
    """gamma = lambda = 1/2, three steps, no end: delta = (1 + 2 - 2, 2 + 1 - 4, 3 + 4 - 2) = (1, -1, 5),
    A_2 = 5, A_1 = -1 + 5/4 = 0.25, A_0 = 1 + 0.25/4 = 1.0625."""
    never = column(False, False, False, dtype=bool)
    got = gae(column(1, 2, 3), column(2, 4, 2), np.array([8], np.float32), never, never, 0.5, 0.5)
    assert got[:, 0].tolist() == [1.0625, 0.25, 5.0]


def test_a_death_does_not_bootstrap_and_a_time_limit_does():
    """The end is at t = 0; row 1 is the autoreset row, whose value (8) is V of the episode's true last observation."""
    end, never = column(True, False, False, dtype=bool), column(False, False, False, dtype=bool)
    args = (column(1, 0, 1), column(2, 8, 4), np.array([4], np.float32))
    died = gae(*args, end, never, 0.5, 0.5)
    cut = gae(*args, never, end, 0.5, 0.5)
    assert died[0, 0] == 1 - 2
    assert cut[0, 0] == 1 + 0.5 * 8 - 2
    assert died[2, 0] == cut[2, 0] == 1 + 0.5 * 4 - 4


def test_nothing_leaks_over_an_episodes_end():
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 20, 3)).astype(np.float32)
    last = rng.normal(size=3).astype(np.float32)
    never = np.zeros((20, 3), bool)
    end = never.copy()
    end[9] = True
    before = gae(reward, value, last, end, never, 0.99, 0.95)
    reward[11:] += 100
    value[11:] -= 50
    after = gae(reward, value, last, end, never, 0.99, 0.95)
    assert (before[:10] == after[:10]).all() and (before[11:] != after[11:]).all()


def test_lambda_one_is_the_discounted_return_minus_the_value():
    rng = np.random.default_rng(1)
    reward, value = rng.normal(size=(2, 6, 2)).astype(np.float32)
    last = rng.normal(size=2).astype(np.float32)
    never = np.zeros((6, 2), bool)
    discounted, returns = last.astype(np.float64), []
    for row in reward[::-1]:
        discounted = row + 0.9 * discounted
        returns.append(discounted)
    got = gae(reward, value, last, never, never, 0.9, 1.0)
    np.testing.assert_allclose(got + value, np.array(returns[::-1]), rtol=1e-5)


def test_statistics_weigh_rollouts_by_age_in_env_steps():
    """Memory 2 env steps, rollouts (1, 3) then (5, 5): weights 2 e^-1 and 2."""
    statistics = EwmaStatistics(2)
    assert statistics.mean_std() is None
    statistics.add(np.array([1.0, 3.0]))
    assert statistics.mean_std() == pytest.approx((2, 1))
    statistics.add(np.array([5.0, 5.0]))
    old = np.exp(-1)
    mean = (4 * old + 10) / (2 * old + 2)
    variance = (10 * old + 50) / (2 * old + 2) - mean**2
    assert statistics.mean_std() == pytest.approx((mean, variance**0.5))
    copy = EwmaStatistics(2)
    copy.restore(statistics.state())
    assert copy.mean_std() == statistics.mean_std()
