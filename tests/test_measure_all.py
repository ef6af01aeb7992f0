"""`measure_all` on worlds whose gradient, covariance and curvature are known exactly.

Intervals at 99.9 %, fixed seeds: each comparison of a right estimator fails with probability 1e-3 at most for a random
seed, or by 4 standard errors (6e-5), and there are about 20.
"""

import dataclasses
import functools
import json

import numpy as np
import pytest
from tiny import BANDIT, CARTPOLE, CHAIN, PONG, bandit_with_policy, config, finished, replaced, with_policy

from envs.bandits import ARMS
from envs.bandits import true_noise_scale as bandit_truth
from envs.chain import N_STATES, REWARD_MEAN, transition_probabilities
from envs.chain_truth import true_noise_scale as chain_truth
from rl_gns.learn.metrics import optimizer_scale
from rl_gns.records import to_json
from rl_gns.study.build import make_learner
from rl_gns.study.measure_all import measure_all
from rl_gns.study.replay import noise_split

LOGITS = np.array([[0.5, 0.0, -0.5], [-0.6, 0.2, 0.4], [0.8, -0.3, 0.1], [0.0, 0.7, -0.9]])
CRITIC = np.array([0.9, -0.4, 0.2, 1.0])
SETTINGS = {"noise": {"groups": 32, "confidence": 0.999}}


def softmax(logits):
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def true_value():
    moves = transition_probabilities()[..., :N_STATES]
    policy, gamma = softmax(LOGITS), config(CHAIN).learner.gamma
    step, reward = np.einsum("sa,sat->st", policy, moves), (policy * REWARD_MEAN).sum(axis=1)
    return np.linalg.solve(np.eye(N_STATES) - gamma * step, reward)


def truth(critic=CRITIC):
    learner, steps = config(CHAIN).learner, config(CHAIN).batch.segment_steps
    return chain_truth(LOGITS, critic, learner.gamma, learner.gae_lambda, steps)


def block_diagonal(blocks):
    """[S A, S A] from [S, A, A]."""
    n, a, _ = blocks.shape
    whole = np.zeros((n, a, n, a))
    whole[np.arange(n), :, np.arange(n)] = blocks
    return whole.reshape(n * a, n * a)


@functools.cache
def chain_measured():
    settings = config(CHAIN, SETTINGS)
    return measure_all(settings, 150_000, with_policy(settings, LOGITS, CRITIC), hessian=True)


def assert_holds(scale, metric, trace_share=0.05):
    """The scale's interval holds tr(M Sigma) / G'MG of the Chain, and its trace is within `trace_share`."""
    known, gradient = truth(), truth().mean_gradient.ravel()
    trace, signal = np.trace(metric @ known.covariance), gradient @ metric @ gradient
    assert scale.resolved and scale.low < trace / signal < scale.high < 3.5 * scale.low
    assert scale.noise_trace == pytest.approx(trace, rel=trace_share)


@pytest.mark.slow
def test_the_plain_metric_and_the_only_layer():
    measured = chain_measured()
    assert_holds(measured.plain, np.eye(LOGITS.size))
    assert measured.layers == {"policy_head.weight": measured.plain}
    assert measured.no_gradient == ["value_head.weight"]


@pytest.mark.slow
def test_the_fisher_matrix():
    """F = diag over states of law(s) (diag pi - pi pi'), and it weighs the noise differently from the plain metric."""
    known, policy = truth(), softmax(LOGITS)
    fisher = np.einsum("sa,ab->sab", policy, np.eye(3)) - np.einsum("sa,sb->sab", policy, policy)
    metric = block_diagonal(known.state_share[:, None, None] * fisher)
    assert_holds(chain_measured().fisher, metric, trace_share=0.12)


@pytest.mark.slow
def test_the_hessian_or_that_it_is_undefined():
    """H = -diag over states of (diag G_s - G_s pi' - pi G_s'), G_s the exact gradient: its G'HG is known."""
    gradient, policy = truth().mean_gradient, softmax(LOGITS)
    cross = np.einsum("sa,sb->sab", gradient, policy)
    hessian = -block_diagonal(np.einsum("sa,ab->sab", gradient, np.eye(3)) - cross - cross.swapaxes(1, 2))
    signal = gradient.ravel() @ hessian @ gradient.ravel()
    found = chain_measured().hessian
    assert np.trace(hessian @ truth().covariance) * signal != 0
    assert found.signal_sq == pytest.approx(signal, rel=0.5), "the right sign and size"
    if signal <= 0:
        assert found.reason.startswith("undefined: ") and np.isnan(found.b_simple) and not found.resolved
        assert to_json(found)["b_simple"] is None


def test_the_split_of_the_chains_noise():
    """Columns and critic have exact values, and the sum is the exact trace; over half of that the actions make."""
    settings = config(CHAIN, SETTINGS)
    split, known, mended = replayed(settings, with_policy(settings, LOGITS, CRITIC)), truth(), truth(true_value())
    exact = {"columns": mended.start_trace, "critic": known.noise_trace - mended.noise_trace}
    assert exact["critic"] > 0.2 * known.noise_trace
    for name, value in exact.items():
        share = split.shares[name]
        assert abs(share.trace - value) < 4 * share.standard_error < 0.05 * known.noise_trace, name
    assert abs(split.noise_trace - known.noise_trace) < 4 * split.standard_error < 0.1 * known.noise_trace
    assert sum(s.trace for s in split.shares.values()) == pytest.approx(split.noise_trace)
    assert sum(s.share for s in split.shares.values()) == pytest.approx(1)
    assert split.shares["actions"].share > 0.5


@pytest.mark.slow
def test_a_saturating_surrogate_has_no_line():
    """Without a clip the Chain's surrogate falls for ever along its full gradient."""
    line = chain_measured().line_search
    assert line.eps_opt[-1] is None and line.b_noise is None
    assert line.reason == "undefined: along a gradient the surrogate has no minimum" and not line.resolved


def replayed(settings, state):
    learner = make_learner(settings)
    learner.load_policy(state["learner"])
    return noise_split(settings, learner)


@pytest.mark.parametrize(
    ("env", "logits", "value"),
    [("Bandit", (0.5, -0.5), 0.2), ("EchoedBandit", (0.0, 0.0), 0.0), ("EchoedBandit", (0.5, -0.5), 0.4)],
)
def test_the_split_of_a_bandits_noise(env, logits, value):
    """No state, so no column share; the world's part is echo |K|^2, K = sum_a pi_a gain_a psi_a, and a fresh policy on
    the EchoedBandit has no other; the critic's is the trace at V less the trace at E r."""
    arms, policy = ARMS[env], softmax(np.array(logits))
    score = np.eye(2) - policy
    mended = float(policy @ arms.mean)
    echoed = np.square((policy * arms.gain) @ score).sum()
    trace, best = (bandit_truth(np.array(logits), v, arms)[1] for v in (value, mended))
    exact = {"columns": 0.0, "time": arms.echo * echoed, "actions": best - arms.echo * echoed, "critic": trace - best}
    settings = config(
        BANDIT, {"env": env, "batch": {"size": 8192}, "rollout": {"columns_per_collector": 512}, **SETTINGS}
    )
    split = replayed(settings, bandit_with_policy(settings, logits, value))
    for name, known in exact.items():
        share = split.shares[name]
        assert abs(share.trace - known) < 4 * share.standard_error + 0.005 * trace, (name, share, known)
        assert share.standard_error < 0.1 * trace
    assert split.noise_trace == pytest.approx(trace, rel=0.15)


@pytest.mark.slow
def test_a_game_has_no_split_and_the_rest_of_it_still_comes():
    """A fresh policy on Pong: a real CNN's curvature, layers and line; JSON without infinities."""
    settings = config(PONG, {"batch": {"minibatches": 1}, "rollout": {"columns_per_collector": 8}})
    measured = measure_all(replaced(settings), 256, held_out_env_steps=128)
    assert measured.split.reason == "this world cannot save its state" and measured.split.noise_trace is None
    assert measured.hessian is None and measured.fisher.noise_trace > 0
    assert "policy_head.weight" in measured.layers and "value_head.weight" in measured.no_gradient
    parts = measured.layers.values()
    assert sum(s.noise_trace for s in parts) == pytest.approx(measured.plain.noise_trace)
    assert sum(s.signal_sq for s in parts) == pytest.approx(measured.plain.signal_sq)
    json.dumps(to_json(measured), allow_nan=False)


@pytest.mark.slow
def test_a_trained_policys_metric_is_its_checkpoints():
    """And CartPole, whose state can be saved, has a split; its columns, which start anywhere, hold a part of it."""
    settings = config(CARTPOLE, {"batch": {"size": 256}, "total_env_steps": 2000})
    run, _ = finished(settings)
    measured = measure_all(settings, 2000, run.state(), held_out_env_steps=512)
    assert measured.adam_from == "the checkpoint's adam state"
    scale = optimizer_scale(run.learner.optimizer)
    assert measured.adam.signal_sq > 0 or measured.adam.noise_trace > 0
    assert measured.adam.noise_trace < measured.plain.noise_trace / scale.min() ** 2
    assert dataclasses.asdict(measured.split)["reason"] is None
    assert sum(s.share for s in measured.split.shares.values()) == pytest.approx(1)
