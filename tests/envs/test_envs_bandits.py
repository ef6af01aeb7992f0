"""The bandits' closed form against their own rows.

Bounds are 4 standard errors: a true formula fails one comparison with probability 6e-5 for a random seed, so 8
comparisons fail by chance 5e-4 of the time (and never, the seeds being fixed).
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

import envs
from envs.bandits import ARMS, true_noise_scale

LOGITS = np.array([0.3, -0.4])
VALUE = 0.6
POLICY = np.exp(LOGITS) / np.exp(LOGITS).sum()
N_COLUMNS, N_STEPS = 500, 2000


@functools.cache
def rows(name):
    """(arm, reward, valid), each [1e6], under the softmax policy of LOGITS."""
    world = envs.make_vec(name, N_COLUMNS, envs.AtariOptions(), range(N_COLUMNS))
    arm = (np.random.default_rng(1).random((N_STEPS, N_COLUMNS)) < POLICY[1]).astype(np.int64)
    steps = [world.step(action) for action in arm]
    return arm.ravel(), np.concatenate([s.reward for s in steps]), np.concatenate([s.valid for s in steps])


def gradient_coordinate(arm, reward, value):
    """Both components of A (e_a - pi) are +-g: one number g carries the gradient, and |gradient|^2 = 2 g^2."""
    return (reward.astype(np.float64) - value) * ((arm == 0) - POLICY[0])


def deviations(g, value):
    """How many standard errors mean and variance of g lie from the closed form."""
    signal_sq, noise_trace = true_noise_scale(LOGITS, value)
    variance = g.var()
    mean_error = (abs(g.mean()) - np.sqrt(signal_sq / 2)) / np.sqrt(variance / len(g))
    spread_of_variance = np.sqrt((np.mean((g - g.mean()) ** 4) - variance**2) / len(g))
    return abs(mean_error), abs(variance - noise_trace / 2) / spread_of_variance


@pytest.mark.parametrize("value", [0.0, VALUE])
@pytest.mark.parametrize("name", ["Bandit", "EpisodicBandit"])
def test_closed_form_agrees_with_the_valid_rows(name, value):
    arm, reward, valid = rows(name)
    assert max(deviations(gradient_coordinate(arm, reward, value)[valid], value)) < 4


def test_unmasked_autoreset_rows_would_be_caught():
    """Negative control: with the invalid rows left in, both statistics miss by far."""
    arm, reward, valid = rows("EpisodicBandit")
    assert not valid.all()
    assert min(deviations(gradient_coordinate(arm, reward, VALUE), VALUE)) > 10


def test_which_rows_are_masked_depends_on_the_policy():
    arm, _, valid = (field.reshape(N_STEPS, N_COLUMNS) for field in rows("EpisodicBandit"))
    for which, probability in enumerate(ARMS["EpisodicBandit"].end_probability):
        pulled = (arm == which)[:-1] & valid[:-1]
        ended = ~valid[1:][pulled]
        assert abs(ended.mean() - probability) < 4 * np.sqrt(probability * (1 - probability) / pulled.sum())


@pytest.mark.parametrize("value", [-1.0, 0.0, VALUE])
def test_the_signal_is_the_gradient_of_the_expected_reward_whatever_the_baseline(value):
    def expected_reward(logits):
        return np.exp(logits) @ np.array(ARMS["Bandit"].mean) / np.exp(logits).sum()

    gradient = [(expected_reward(LOGITS + h) - expected_reward(LOGITS - h)) / 2e-5 for h in np.eye(2) * 1e-5]
    signal_sq, noise_trace = true_noise_scale(LOGITS, value)
    assert signal_sq == pytest.approx(np.square(gradient).sum(), rel=1e-6)
    assert noise_trace > 0


def test_extreme_logits_stay_finite():
    assert true_noise_scale(np.array([1000.0, -1000.0]), 0.0) == (0.0, 0.0)


def test_bandit_rewards_are_never_clipped():
    assert np.abs(rows("Bandit")[1]).max() > 3
