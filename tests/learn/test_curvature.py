"""Curvature and the surrogate on held-out rows against numpy, for a tabular softmax on the Chain's own rows."""

import functools

import numpy as np
import pytest
import torch
from tiny import CARTPOLE, CHAIN, config, trainer, with_policy

from rl_gns.learn.column_gradients import column_gradient_sums
from rl_gns.learn.gradients import GroupGradients, group_gradients, rows_by_column
from rl_gns.learn.held_out import HeldOut
from rl_gns.learn.line_search import HeldOutSurrogate
from rl_gns.learn.metrics import fisher_grams, hessian_grams, layers, minibatch_scale, optimizer_scale
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import make_learner

LOGITS = np.array([[0.5, 0.0, -0.5], [-0.6, 0.2, 0.4], [0.8, -0.3, 0.1], [0.0, 0.7, -0.9]])
K = 4


@functools.cache
def case():
    """(network, held-out rows in pieces of 100, states [R], actions [R], advantages [R], groups [R])."""
    settings = config(CHAIN, {"batch": {"size": 512}, "rollout": {"columns_per_collector": 16}})
    learner = make_learner(settings)
    learner.load_policy(with_policy(settings, LOGITS, np.array([0.9, -0.4, 0.2, 1.0]))["learner"])
    source = LocalSource(settings)
    source.publish(learner.weights(), learner.version)
    n_collectors = settings.collectors(settings.batch.size)
    batches = [learner.prepare(source.collect(n_collectors, 8).blocks).scaled("none", 0.2, 1.5) for _ in range(2)]
    source.close()
    rows = [batch.rows(batch.valid_rows()) for batch in batches]
    states = np.concatenate([r.observation.argmax(dim=1).numpy() for r in rows])
    actions, advantages = (np.concatenate([getattr(r, n).numpy() for r in rows]) for n in ("action", "advantage"))
    groups = np.concatenate([batch.valid_rows() % batch.n_columns % K for batch in batches])
    return learner.network, HeldOut(batches, K, 100), states, actions, advantages.astype(np.float64), groups


def softmax(logits):
    weight = np.exp(logits)
    return weight / weight.sum(axis=-1, keepdims=True)


def gradients(n=3):
    """[n, P] of both heads; the policy's part is [A, S]."""
    network = case()[0]
    return np.random.default_rng(0).standard_normal((n, sum(p.numel() for p in network.parameters())))


def along(flat):
    """[n, S, A] what a direction does to the logits of each state."""
    return flat[:, : LOGITS.size].reshape(-1, *LOGITS.shape[::-1]).swapaxes(1, 2)


def by_group(per_row):
    """[K, n, n] sums of [R, n, n] over each group's rows."""
    return np.stack([per_row[case()[5] == k].sum(axis=0) for k in range(K)])


def test_the_fisher_matrix_is_numpys():
    network, held, states, *_ = case()
    p, u = softmax(LOGITS)[states], along(gradients())[:, states]
    mean = np.einsum("ra,nra->nr", p, u)
    per_row = np.einsum("ra,nra,mra->rnm", p, u, u) - np.einsum("nr,mr->rnm", mean, mean)
    found = fisher_grams(network, gradients(), held)
    assert found.rows.tolist() == np.bincount(case()[5]).tolist()
    assert found.sums == pytest.approx(by_group(per_row), rel=1e-4, abs=1e-4)
    assert found.whole == pytest.approx(per_row.mean(axis=0), rel=1e-4, abs=1e-5)
    assert found.deleted[1] == pytest.approx(per_row[case()[5] != 1].mean(axis=0), rel=1e-4, abs=1e-5)


def test_the_hessian_is_numpys_and_may_be_negative():
    """Of -A pi(a) / pi_old(a) at pi = pi_old: with psi the score, -A (psi psi' - diag p + p p')."""
    network, held, states, actions, advantages, _ = case()
    p, u = softmax(LOGITS)[states], along(gradients())[:, states]
    taken, mean = u[:, np.arange(len(actions)), actions], np.einsum("ra,nra->nr", p, u)
    score = taken - mean
    fisher = np.einsum("ra,nra,mra->rnm", p, u, u) - np.einsum("nr,mr->rnm", mean, mean)
    per_row = -advantages[:, None, None] * (np.einsum("nr,mr->rnm", score, score) - fisher)
    found = hessian_grams(network, gradients(), held)
    assert found.sums == pytest.approx(by_group(per_row), rel=1e-3, abs=2e-3)
    assert np.linalg.eigvalsh(by_group(per_row).sum(axis=0))[0] < 0


@pytest.mark.parametrize("clip_range", [0.0, 0.2])
def test_the_surrogate_after_a_step_is_numpys(clip_range):
    network, held, states, actions, advantages, groups = case()
    before = [p.detach().clone() for p in network.parameters()]
    judge, step = HeldOutSurrogate(network, held, clip_range), gradients(1)
    for eps in (1e-3, 0.3):
        ratio = (softmax(LOGITS - eps * along(step)[0]) / softmax(LOGITS))[states, actions]
        gain = ratio * advantages
        if clip_range:
            gain = np.minimum(gain, np.clip(ratio, 1 - clip_range, 1 + clip_range) * advantages)
        loss = np.array([(advantages - gain)[groups == k].mean() for k in range(K)])
        assert judge.after(step[0], eps) == pytest.approx(loss, rel=1e-3, abs=1e-6)
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))


def test_the_columns_gradients_are_those_of_groups_of_one_column():
    """Autoreset rows included, which no column's gradient may hold."""
    network, held, *_ = case()
    batch, settings = held.batches[0], config(CHAIN)
    assert 0 < batch.valid.sum() < batch.valid.size
    known = group_gradients(network, batch, rows_by_column(batch, batch.n_columns), settings.learner, "fp32")
    sums, env_steps = column_gradient_sums(network, batch)
    assert env_steps.tolist() == known.env_steps.tolist()
    assert sums == pytest.approx(known.policy.numpy() * env_steps[:, None], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_the_optimizers_metric_is_what_it_divides_by(optimizer):
    """Against the second moment by hand of two known gradients, after two real steps."""
    learner = trainer(config(CARTPOLE, {"learner": {"optimizer": optimizer}})).learner
    assert optimizer_scale(learner.optimizer) is None
    parameters = list(learner.network.parameters())
    for size in (1.0, 3.0):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, size)
        learner.optimizer.step()
    v = (0.999 * 1 + 9) / (0.999 + 1) if optimizer == "adam" else 0.01 * (0.99 * 1 + 9)
    expected = np.sqrt(v) + (1e-5)
    assert optimizer_scale(learner.optimizer) == pytest.approx(expected, rel=1e-5)
    assert sum(where.stop - where.start for where in layers(learner.network).values()) == len(
        optimizer_scale(learner.optimizer)
    )


def test_minibatches_make_the_second_moment_of_a_fresh_policy():
    """Two minibatches of two groups each, unequal, clipped to a norm of 1 where they are longer."""
    policy = torch.tensor([[1.0, 0.0], [4.0, 0.0], [0.0, 0.2], [0.0, 0.2]])
    each = GroupGradients(policy, torch.zeros_like(policy), np.array([2, 1, 1, 1]), 0.0, np.zeros((4, 0)))
    assert minibatch_scale([each], 2, 0.0, 1e-5) == pytest.approx(np.sqrt([2.0, 0.02]) + 1e-5)
    assert minibatch_scale([each], 2, 1.0, 1e-5) == pytest.approx(np.sqrt([0.5, 0.02]) + 1e-5)
