"""The Chain: its rows follow its tables, and its exact gradient moments agree with a second derivation.

The second derivation is enumeration: the world itself is driven through every outcome of T rows from every hidden
state, and the learner's own GAE is applied to each path.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

import envs
from envs.chain import (
    ENDS,
    EPISODE_LIMIT_ENV_STEPS,
    N_ACTIONS,
    N_STATES,
    REWARD_MEAN,
    REWARD_STD,
    ChainWorld,
    transition_probabilities,
)
from envs.chain_truth import true_noise_scale
from rl_gns.learn.returns import gae

RNG = np.random.default_rng(11)
LOGITS = RNG.normal(size=(N_STATES, N_ACTIONS))
UPDATED = LOGITS + 0.5 * RNG.normal(size=LOGITS.shape)
CRITIC = np.array([0.9, -0.4, 0.2, 1.0])
"""Far from the true values."""
GAMMA, LAMBDA = 0.9, 0.7
OUTCOMES = N_ACTIONS * (N_STATES + 1) * 2
AUTORESET = N_STATES * EPISODE_LIMIT_ENV_STEPS


def softmax(logits):
    weight = np.exp(logits)
    return weight / weight.sum(axis=1, keepdims=True)


def true_value(logits, gamma):
    """The discounted value of the process without its time limit, by iterating Bellman's equation."""
    value, policy, moves = np.zeros(N_STATES), softmax(logits), transition_probabilities()[..., :N_STATES]
    for _ in range(2000):
        value = (policy * (REWARD_MEAN + gamma * moves @ value)).sum(axis=1)
    return value


def truth(segment_steps, value=CRITIC, gamma=GAMMA, gae_lambda=LAMBDA, **kwargs):
    return true_noise_scale(LOGITS, value, gamma, gae_lambda, segment_steps, **kwargs)


@functools.cache
def rows():
    """(state, action, transition) of 400,000 rows under uniformly random actions, each field [T, N]."""
    n_steps, n_columns = 400, 1000
    world = envs.make_vec("Chain", n_columns, envs.AtariOptions(), range(n_columns))
    action = np.random.default_rng(2).integers(0, N_ACTIONS, (n_steps, n_columns))
    observation, steps, state = world.reset(), [], []
    for a in action:
        state.append(np.where(observation.any(axis=1), observation.argmax(axis=1), ENDS))
        steps.append(world.step(a))
        observation = steps[-1].observation
    return np.stack(state), action, envs.Transition(*(np.stack(f) for f in zip(*steps, strict=True)))


def test_valid_rows_move_as_the_tables_say():
    """Each of 60 frequencies within 5 standard errors: all true with probability 1 - 4e-5, and the seeds are fixed."""
    state, action, row = rows()
    following = np.where(row.observation.any(axis=-1), row.observation.argmax(axis=-1), ENDS)
    expected = transition_probabilities()
    for s, a in np.ndindex(N_STATES, N_ACTIONS):
        here = row.valid & (state == s) & (action == a)
        share = np.bincount(following[here], minlength=ENDS + 1) / here.sum()
        error = np.sqrt(expected[s, a] * (1 - expected[s, a]) / here.sum())
        assert (abs(share - expected[s, a]) <= 5 * error).all() and here.sum() > 5000


def test_rewards_are_mean_plus_or_minus_std():
    state, action, row = rows()
    s, a = state[row.valid], action[row.valid]
    deviation = (row.reward[row.valid] - REWARD_MEAN[s, a]) / REWARD_STD[s]
    assert np.abs(deviation) == pytest.approx(1, abs=1e-5)
    assert abs(deviation.mean()) < 5 / np.sqrt(len(deviation))


def test_episodes_end_in_nothing_or_are_cut_at_the_limit():
    state, _, row = rows()
    length = np.zeros(row.valid.shape[1], dtype=np.int64)
    for t in range(len(state)):
        length = np.where(row.valid[t], length + 1, 0)
        limit = length == EPISODE_LIMIT_ENV_STEPS
        assert np.array_equal(row.truncated[t], limit & ~row.terminated[t]) and length.max() <= EPISODE_LIMIT_ENV_STEPS
    assert not row.observation[row.terminated].any() and row.observation[row.truncated].sum(axis=1).all()
    assert (row.observation[~row.valid][:, 0] == 1).all(), "an autoreset row brings the start state"
    assert row.terminated.any() and row.truncated.any()


class Dictated:
    """Noise that the enumeration chooses, in place of the seeds' streams."""

    def at(self, step):
        return self.normal, self.uniform


@functools.cache
def paths(segment_steps):
    """Every path: (start, end [M] hidden states, chance [M], S [M, P], N [M])."""
    start, *outcome = np.indices((AUTORESET + 1,) + (OUTCOMES,) * segment_steps).reshape(segment_steps + 1, -1)
    world, cumulative = ChainWorld(len(start), range(len(start))), transition_probabilities().cumsum(axis=2)
    world._noise = Dictated()
    ended = start == AUTORESET
    state, age = np.divmod(np.where(ended, 0, start), EPISODE_LIMIT_ENV_STEPS)
    world.restore({"step": 0, "state": state, "age": age, "ended": ended, "episode_start": ended})
    policy, updated = softmax(LOGITS), softmax(UPDATED)
    chance, value, steps, scores = np.ones(len(start)), [], [], []
    for chosen in outcome:
        at, valid = np.minimum(world._state, N_STATES - 1), ~world._ended
        action, to, sign = np.unravel_index(chosen, (N_ACTIONS, N_STATES + 1, 2))
        share = transition_probabilities()[at, action, to]
        world._noise.normal, world._noise.uniform = sign * 2.0 - 1, cumulative[at, action, to] - share / 2
        value.append(np.where(world._state == ENDS, 0, CRITIC[at]).astype(np.float32))
        steps.append(world.step(action))
        chance *= np.where(valid, policy[at, action] * share / 2, 1 / OUTCOMES)
        score = {"plain": np.zeros((len(start), N_STATES, N_ACTIONS))}
        score["plain"][np.arange(len(start)), at] = valid[:, None] * (np.eye(N_ACTIONS)[action] - policy[at])
        score["updated"] = np.zeros_like(score["plain"])
        ratio = valid * (updated / policy)[at, action]
        score["updated"][np.arange(len(start)), at] = ratio[:, None] * (np.eye(N_ACTIONS)[action] - updated[at])
        scores.append(score)
    last = np.where(world._state == ENDS, 0, CRITIC[np.minimum(world._state, N_STATES - 1)]).astype(np.float32)
    fields = [np.stack([getattr(s, name) for s in steps]) for name in ("reward", "terminated", "truncated", "valid")]
    advantage = gae(fields[0], np.stack(value), last, fields[1], fields[2], GAMMA, LAMBDA)
    end = np.where(world._ended, AUTORESET, world._state * EPISODE_LIMIT_ENV_STEPS + world._age)
    return start, end, chance, advantage, scores, fields[3].sum(axis=0)


@pytest.mark.parametrize("segment_steps", [1, 2])
@pytest.mark.parametrize("normaliser", [(0.0, 1.0), (0.3, 2.5)])
@pytest.mark.parametrize("which", ["plain", "updated"])
def test_enumeration_agrees(segment_steps, normaliser, which):
    """Mean, covariance and the sum over 300 lags; the tolerance is float32's, in which the learner's GAE computes."""
    start, end, chance, advantage, scores, env_steps = paths(segment_steps)
    scaled = (advantage - normaliser[0]) / normaliser[1]
    total = sum(a[:, None, None] * s[which] for a, s in zip(scaled, scores, strict=True)).reshape(len(start), -1)
    kernel = np.zeros((AUTORESET + 1, AUTORESET + 1))
    np.add.at(kernel, (start, end), chance)
    assert kernel.sum(axis=1) == pytest.approx(1)
    one_row = np.zeros_like(kernel)
    np.add.at(one_row, paths(1)[:2], paths(1)[2])
    law = np.linalg.matrix_power(one_row, 4096)[AUTORESET]
    weight = law[start] * chance
    gradient = weight @ total / (weight @ env_steps)
    centred = total - gradient * env_steps[:, None]
    trace = weight @ np.square(centred).sum(axis=1) / (weight @ env_steps)
    mean, reached = np.zeros((len(kernel), total.shape[1])), np.zeros((len(kernel), total.shape[1]))
    np.add.at(mean, start, chance[:, None] * centred)
    np.add.at(reached, end, weight[:, None] * centred)
    lags = 0.0
    for _ in range(300):
        lags += float(np.sum(reached * mean)) / (weight @ env_steps)
        mean = kernel @ mean
    known = truth(segment_steps, normaliser=normaliser, updated_logits=UPDATED if which == "updated" else None)
    assert known.mean_gradient.ravel() == pytest.approx(gradient, abs=1e-6)
    assert known.signal_sq == pytest.approx(gradient @ gradient, rel=1e-5)
    assert known.noise_trace == pytest.approx(trace, rel=1e-5)
    assert known.long_run_trace == pytest.approx(trace + 2 * lags, rel=1e-5)
    assert known.valid_share == pytest.approx(weight @ env_steps / segment_steps)
    assert abs(lags) > 0.01 * trace, "there was something to agree on"


@pytest.mark.parametrize(("gae_lambda", "segment_steps"), [(0.0, 1), (0.7, 5), (1.0, 30)])
def test_with_the_true_value_gae_is_unbiased(gae_lambda, segment_steps):
    """Also across the time limit, which bootstraps."""
    known = truth(segment_steps, value=true_value(LOGITS, GAMMA), gae_lambda=gae_lambda)
    assert known.mean_gradient == pytest.approx(known.policy_gradient, abs=1e-12)


def test_an_imperfect_critic_biases_and_lambda_and_length_mend_it():
    def bias(gae_lambda, segment_steps):
        known = truth(segment_steps, gae_lambda=gae_lambda)
        return np.linalg.norm(known.mean_gradient - known.policy_gradient) / np.linalg.norm(known.policy_gradient)

    assert bias(0.0, 30) > bias(0.7, 30) > bias(1.0, 30) > 0
    assert bias(0.7, 2) > bias(0.7, 8) > bias(0.7, 30)
    assert bias(0.7, 5) > 0.1


def test_the_policy_gradient_is_that_of_the_discounted_value():
    """Central differences of w . V* with w fixed; V* by iteration."""
    known, moves = truth(5), transition_probabilities()[..., :N_STATES]
    step = np.einsum("sa,sat->st", softmax(LOGITS), moves)
    score_sq = known.policy_gradient / (softmax(LOGITS) * (_q(LOGITS) - true_value(LOGITS, GAMMA)[:, None]))
    law = score_sq[:, 0]
    assert law.sum() == pytest.approx(1) and score_sq == pytest.approx(np.repeat(law[:, None], N_ACTIONS, axis=1))
    weight = law - GAMMA * step.T @ law
    for index in np.ndindex(LOGITS.shape):
        nudge = np.zeros_like(LOGITS)
        nudge[index] = 1e-5
        change = weight @ (true_value(LOGITS + nudge, GAMMA) - true_value(LOGITS - nudge, GAMMA)) / 2e-5
        assert known.policy_gradient[index] == pytest.approx(change, abs=1e-8)


def _q(logits):
    return REWARD_MEAN + GAMMA * transition_probabilities()[..., :N_STATES] @ true_value(logits, GAMMA)


def test_without_lambda_the_long_run_does_not_know_where_segments_begin():
    """At lambda = 0 a row's gradient is its own, so only noise_trace depends on T; both meet as T grows."""
    known = {t: truth(t, gae_lambda=0.0) for t in (1, 7, 100)}
    long_run = [k.long_run_trace for k in known.values()]
    assert long_run == pytest.approx([long_run[0]] * 3)
    gap = {t: abs(k.noise_trace / k.long_run_trace - 1) for t, k in known.items()}
    assert gap[1] > 0.05 and gap[1] > gap[7] > gap[100] and gap[100] < 0.02


def test_scaled_advantages_and_an_entropy_bonus_do_what_they_must():
    plain, scaled, shifted = truth(5), truth(5, normaliser=(0.0, 2.0)), truth(5, normaliser=(0.4, 1.0))
    assert scaled.signal_sq == pytest.approx(plain.signal_sq / 4) and scaled.b_simple == pytest.approx(plain.b_simple)
    assert shifted.mean_gradient == pytest.approx(plain.mean_gradient, abs=1e-12)
    assert shifted.noise_trace != pytest.approx(plain.noise_trace, rel=0.01)
    bonus = truth(5, entropy_coef=0.1)
    policy = softmax(LOGITS)
    entropy = -(policy * np.log(policy)).sum(axis=1, keepdims=True)
    law = plain.policy_gradient[:, :1] / (policy * (_q(LOGITS) - true_value(LOGITS, GAMMA)[:, None]))[:, :1]
    expected = plain.mean_gradient - 0.1 * law * policy * (np.log(policy) + entropy)
    assert bonus.mean_gradient == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((LOGITS[:3], CRITIC, 0.9, 0.9, 5), r"logits must be \[4, 3\] and value \[4\]"),
        ((LOGITS, CRITIC[:2], 0.9, 0.9, 5), r"value \[4\], got shapes"),
        ((LOGITS, CRITIC, 0.9, 0.9, 0), "segment_steps must be at least 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        true_noise_scale(*arguments)
