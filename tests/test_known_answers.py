"""Collector, learner, probe and moments against worlds whose gradient noise is known exactly.

Means over rollouts are held to the truth within 4 of their own standard errors, taken from the spread between the
rollouts (bounded too, so that no test passes by being vague): a right estimator fails one such comparison with
probability 6e-5 for a random seed (3e-4 with 40 rollouts, by t), and there are about 20. All seeds are fixed.
"""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from tiny import BANDIT, CHAIN, bandit_with_policy, config, with_policy

from envs.bandits import ARMS
from envs.bandits import true_noise_scale as bandit_truth
from envs.chain_truth import true_noise_scale as chain_truth
from rl_gns.learn.gradients import column_groups
from rl_gns.learn.ppo import loss_sums
from rl_gns.noise.moments import FrozenMoments, gram_signal_trace
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import make_learner
from rl_gns.study.measure import measure

LOGITS = np.array([[0.5, 0.0, -0.5], [-0.6, 0.2, 0.4], [0.8, -0.3, 0.1], [0.0, 0.7, -0.9]])
UPDATED = LOGITS + np.array([[0.9, -0.6, 0.0], [0.0, 0.8, -0.7], [-0.9, 0.5, 0.0], [0.6, 0.0, -0.8]])
"""Where a first epoch may have left the policy."""
CRITIC = np.array([0.9, -0.4, 0.2, 1.0])
N_ROLLOUTS = 40
ECHOED = {
    **BANDIT,
    "env": "EchoedBandit",
    "batch": {**BANDIT["batch"], "size": 2048},
    "rollout": {**BANDIT["rollout"], "columns_per_collector": 64},
}


def chain(changes=None):
    """The Chain's settings, some replaced by part."""
    merged = {part: {**CHAIN[part], **values} for part, values in (changes or {}).items()}
    return config(CHAIN, merged)


def learner_with(settings, state):
    learner = make_learner(settings)
    learner.load_policy(state["learner"])
    return learner


def collect(settings, state, n_rollouts):
    """The blocks of `n_rollouts` rollouts of the frozen policy, after the burn-in."""
    learner, source = learner_with(settings, state), LocalSource(settings)
    source.publish(learner.weights(), learner.version)
    n_collectors = settings.collectors(settings.batch.size)
    rollouts = [source.collect(n_collectors, settings.batch.segment_steps).blocks for _ in range(n_rollouts)]
    source.close()
    return rollouts


@functools.cache
def chain_rollouts(segment_steps=8):
    settings = chain({"batch": {"size": 512 * segment_steps, "segment_steps": segment_steps}})
    return collect(settings, with_policy(settings, LOGITS, CRITIC), N_ROLLOUTS)


@functools.cache
def chain_probes(settings, part="policy", statistics=None):
    """[n, 2] (signal_sq, noise_trace) of one part, and the Gram matrices [n, J, J], over the same rollouts."""
    learner = learner_with(settings, with_policy(settings, LOGITS, CRITIC))
    if statistics is not None:
        mean, std = statistics
        learner.statistics.add(np.array([mean - std, mean + std]))
    batches = [learner.prepare(blocks) for blocks in chain_rollouts(settings.batch.segment_steps)]
    probes = [learner.probe(batch) for batch in batches]
    assert not any(moments.off_policy for moments in probes)
    grams = np.stack([moments.gram[part] for moments in probes])
    return np.array([gram_signal_trace(m.gram[part], m.env_steps) for m in probes]), grams


def truth(segment_steps=8, **kwargs):
    settings = chain().learner
    return chain_truth(LOGITS, CRITIC, settings.gamma, settings.gae_lambda, segment_steps, **kwargs)


def assert_agrees(found, signal_sq, noise_trace, vague=(0.15, 0.04)):
    """Means of `found` [n, 2] within 4 standard errors, which are at most the shares `vague` of the truth."""
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    expected = np.array([signal_sq, noise_trace])
    assert (abs(found.mean(axis=0) - expected) < 4 * error).all(), (found.mean(axis=0), expected, error)
    assert (error < np.array(vague) * expected).all(), (error, expected)


@pytest.mark.parametrize("segment_steps", [5, 16])
def test_the_chain_through_the_pipeline(segment_steps):
    """lambda 0.8, an imperfect critic, masked rows; segments shorter and longer than an episode (at most 12)."""
    settings = chain({"batch": {"size": 512 * segment_steps, "segment_steps": segment_steps}})
    known, (found, _) = truth(segment_steps), chain_probes(settings)
    assert 0.8 < known.valid_share < 0.95
    assert_agrees(found, known.signal_sq, known.noise_trace)


def test_the_chains_mean_gradient_and_long_run_trace():
    """The gradient by coordinate: its squared error is (long-run trace) / E in the mean, and is over 11 times that with
    a probability of 1e-3 at most (one direction, normal). Long-run trace: 128 groups, effective rank 3 or more."""
    settings = chain({"noise": {"groups": 128}})
    learner, frozen = learner_with(settings, with_policy(settings, LOGITS, CRITIC)), FrozenMoments()
    weighted, env_steps = 0.0, 0
    for blocks in chain_rollouts():
        batch = learner.prepare(blocks)
        gradients = learner.group_gradients(batch)
        parts = {"policy": gradients.policy.numpy(), "rest": gradients.rest.numpy()}
        frozen.add(parts, learner.moments(batch, gradients).gram, gradients.env_steps)
        weighted = weighted + gradients.env_steps @ parts["policy"]
        env_steps += batch.env_steps
    known = truth()
    mean = (weighted / env_steps)[: LOGITS.size].reshape(LOGITS.shape[::-1]).T
    assert np.square(mean + known.mean_gradient).sum() < 11 * known.long_run_trace / env_steps < known.signal_sq / 3
    found = frozen.estimate()
    assert found.long_run_trace == pytest.approx(known.long_run_trace, rel=4 * np.sqrt(2 / (127 * 3)))


def test_measure_finds_the_chains_noise_scale():
    """The verb itself, with its own columns and burn-in; 99.9 % interval, fixed seed."""
    settings = chain({"noise": {"groups": 32, "confidence": 0.999}})
    measured = measure(settings, 150_000, precision=0.0, state=with_policy(settings, LOGITS, CRITIC))
    found, known = measured.noise["policy"], truth()
    assert found.resolved and found.low < known.b_simple < found.high < 3 * found.low
    assert found.noise_trace == pytest.approx(known.noise_trace, rel=0.05)


def shuffled(batch, rng):
    """The rows of a batch in random order: what an estimator does that groups transitions and forgets columns."""
    order = rng.permutation(len(batch.valid))
    columns = {name: column[torch.from_numpy(order)] for name, column in batch.columns.items()}
    return dataclasses.replace(batch, columns=columns, valid=batch.valid[order])


@pytest.mark.slow
@pytest.mark.patient
@pytest.mark.parametrize(("logits", "value"), [((0.0, 0.0), 0.0), ((0.5, -0.5), 0.3)])
def test_an_echoed_bandit_fools_shuffled_transitions_and_not_columns(logits, value):
    """The negative control: T = 16 env steps share one draw. With the fresh policy the whole row is echoed, and the
    transition-wise trace is 16 (R - 1) / (R - 16) times too low; with the other one it is still 10 times too low."""
    arms = ARMS["EchoedBandit"]
    settings = config(ECHOED)
    state, rng = bandit_with_policy(settings, logits, value), np.random.default_rng(3)
    learner = learner_with(settings, state)
    batches = [learner.prepare(blocks) for blocks in collect(settings, state, 200)]
    signal_sq, noise_trace = bandit_truth(np.array(logits), value, arms)
    _, row_trace = bandit_truth(np.array(logits), value, dataclasses.replace(arms, echo=1))
    if value == 0:
        assert noise_trace == pytest.approx(arms.echo * row_trace, rel=1e-12)
    by_columns, by_rows = (
        np.array([gram_signal_trace(m.gram["policy"], m.env_steps) for m in map(learner.probe, order)])
        for order in (batches, [shuffled(batch, rng) for batch in batches])
    )
    assert_agrees(by_columns, signal_sq, noise_trace)
    rows = settings.batch.size
    echoed = (noise_trace - row_trace) / (arms.echo - 1)
    expected = row_trace - echoed * (arms.echo - 1) / (rows - 1)
    error = by_rows[:, 1].std(ddof=1) / np.sqrt(len(by_rows))
    assert abs(by_rows[:, 1].mean() - expected) < 4 * error < 0.15 * expected
    assert by_columns[:, 1].mean() > 8 * by_rows[:, 1].mean()


@pytest.mark.slow
@pytest.mark.patient
def test_the_long_run_trace_sees_an_echo_that_outlasts_its_segments():
    """T = 4 of an echo of 16: a segment's trace is 4 times a row's, the long-run trace 16 times, so the ratio is 4.
    128 groups of one direction: the long-run trace's standard error is sqrt(2 / 127) = 13 %."""
    settings = config(ECHOED, {"batch": {"size": 512, "segment_steps": 4}, "noise": {"groups": 128}})
    measured = measure(settings, 30_000, precision=0.0).noise["policy"]
    _, noise_trace = bandit_truth(np.zeros(2), 0.0, ARMS["EchoedBandit"])
    assert measured.noise_trace == pytest.approx(noise_trace / 4, rel=0.07)
    assert measured.long_run_ratio == pytest.approx(4, rel=0.45)


def test_a_bandit_without_echo_is_shuffled_unharmed():
    """The control of the control: independent transitions may be grouped in any order."""
    settings = config(ECHOED, {"env": "Bandit"})
    state, rng = bandit_with_policy(settings, (0.0, 0.0), 0.0), np.random.default_rng(3)
    learner = learner_with(settings, state)
    batches = [shuffled(learner.prepare(blocks), rng) for blocks in collect(settings, state, 120)]
    found = [gram_signal_trace(m.gram["policy"], m.env_steps) for m in map(learner.probe, batches)]
    assert_agrees(np.array(found), *bandit_truth(np.zeros(2), 0.0))


def test_a_normaliser_divides_signal_and_trace_and_its_mean_adds_noise_alone():
    """(0, 2): both a quarter to rounding, B_simple unchanged. (0.5, 2): the signal a quarter still; the trace moves by
    what the exact covariance says."""
    plain, _ = chain_probes(chain())
    ewma = chain({"learner": {"normaliser": "ewma"}})
    halved, _ = chain_probes(ewma, statistics=(0.0, 2.0))
    assert halved == pytest.approx(plain / 4, rel=1e-3, abs=1e-6)
    shifted, _ = chain_probes(ewma, statistics=(0.5, 2.0))
    known = truth(normaliser=(0.5, 2.0))
    assert known.signal_sq == pytest.approx(truth().signal_sq / 4)
    assert abs(known.noise_trace / (truth().noise_trace / 4) - 1) > 0.02
    assert_agrees(shifted, known.signal_sq, known.noise_trace)


def test_entropy_moves_the_total_and_leaves_the_policy_part():
    _, plain = chain_probes(chain())
    bonus = chain({"learner": {"entropy_coef": 0.3, "value_coef": 0.0}})
    assert np.array_equal(chain_probes(bonus)[1], plain)
    total, _ = chain_probes(bonus, part="total")
    known = truth(entropy_coef=0.3)
    assert abs(known.signal_sq / truth().signal_sq - 1) > 0.1
    assert_agrees(total, known.signal_sq, known.noise_trace)


def test_clipping_and_a_second_epoch_leave_the_probe_alone():
    """At the weights that collected, every ratio is 1: nothing is clipped; and the probe comes before any epoch."""
    _, plain = chain_probes(chain())
    assert chain_probes(chain({"learner": {"clip_range": 0.1}}))[1] == pytest.approx(plain, rel=1e-5, abs=1e-9)
    assert np.array_equal(chain_probes(chain({"batch": {"epochs": 2}}))[1], plain)


def second_epoch(clip_range):
    """[n, 2] (signal_sq, noise_trace) and [n, P] mean gradients of the surrogate at UPDATED, on the same rollouts."""
    settings = chain({"learner": {"clip_range": clip_range}})
    learner = learner_with(settings, with_policy(settings, UPDATED, CRITIC))
    head = learner.network.policy_head.weight
    found, means = [], []
    for batch in map(learner.prepare, chain_rollouts()):
        groups = [batch.rows_of_columns(g) for g in column_groups(batch.n_columns, settings.noise.groups)]
        rows = [batch.rows(index) for index in groups]
        sums = [loss_sums(*learner.network(r.observation), r, settings.learner).policy for r in rows]
        gradients = torch.stack([torch.autograd.grad(s, head)[0].flatten() for s in sums]).double().numpy()
        env_steps = np.array([len(index) for index in groups])
        mean = gradients / env_steps[:, None]
        found.append(gram_signal_trace(mean @ mean.T, env_steps))
        means.append(gradients.sum(axis=0) / env_steps.sum())
    return np.array(found), np.array(means)


def test_a_second_epoch_sees_another_gradient_and_clipping_shrinks_it_along_the_step():
    """Weights that moved for another reason than these rows: the ratios reweigh them, as the exact moments say. A
    clipped row had moved the way its advantage wanted, so without it the loss falls less steeply along the step."""
    known, before = truth(updated_logits=UPDATED), truth()
    assert known.signal_sq < 0.75 * before.signal_sq and known.noise_trace < 0.9 * before.noise_trace
    plain, mean = second_epoch(0.0)
    assert_agrees(plain, known.signal_sq, known.noise_trace)
    _, clipped = second_epoch(0.1)
    step = (UPDATED - LOGITS).T.ravel()
    assert (-clipped @ step < -mean @ step).all()
