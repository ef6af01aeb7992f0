"""Noise scales in other metrics, and the parts of a segment's noise, from synthetic gradients of known covariance."""

import numpy as np
import pytest

from rl_gns.noise.metric import MetricGrams, MetricMoments, defined
from rl_gns.noise.moments import FrozenMoments
from rl_gns.noise.split import SplitMoments, jackknife_error

J, P, B = 16, 6, 32
FACTS = {"env_steps": 1, "n_rollouts": 1, "first_version": 0, "last_version": 0}
GRADIENT = np.array([1.0, -0.5, 0.3, 0.0, 0.2, 0.1])
ROOT = np.diag([3.0, 1.0, 2.0, 4.0, 1.0, 0.5]) + 0.5
"""Sigma = ROOT ROOT', per env step."""


def rollouts(n, rng):
    return GRADIENT + rng.standard_normal((n, J, P)) @ ROOT.T / np.sqrt(B)


def measured(gradients, grams):
    """The scale of `grams`(gradients [J, P]) over those rollouts [n, J, P]."""
    moments = MetricMoments()
    for each in gradients:
        moments.add(grams(each), np.full(J, B))
    return moments.scale(grams(gradients.mean(axis=0)), 0.95, **FACTS)


def test_the_plain_metric_is_the_frozen_estimate():
    gradients = rollouts(5, np.random.default_rng(0))
    frozen = FrozenMoments()
    for each in gradients:
        gram = each @ each.T
        frozen.add({"policy": each, "rest": 0 * each}, dict.fromkeys(("policy", "rest", "total"), gram), np.full(J, B))
    known, found = frozen.estimate(), measured(gradients, MetricGrams.of)
    assert (found.signal_sq, found.noise_trace) == pytest.approx((known.signal_sq, known.noise_trace))


def test_in_a_metric_of_held_out_groups_the_interval_holds_the_truth_and_their_error_widens_it():
    """200 measurements, each with M from 12 held-out groups of its own; a 95 % interval that covers 95 % misses more
    than 20 times with probability 1e-3, and the jackknife covers more."""
    rng, hits, widths = np.random.default_rng(1), 0, []
    metric = np.diag([1.0, 2.0, 0.5, 0.1, 3.0, 1.0])
    truth = np.trace(metric @ ROOT @ ROOT.T) / (GRADIENT @ metric @ GRADIENT)
    for _ in range(200):
        gradients = rollouts(20, rng)
        pieces = np.einsum("kij,kil->kjl", *[rng.standard_normal((12, 20, P)) @ np.sqrt(metric)] * 2)
        found = measured(gradients, lambda g, pieces=pieces: MetricGrams(g @ pieces @ g.T, np.full(12, 20.0)))
        sure = measured(gradients, lambda g, pieces=pieces: MetricGrams.of(g @ np.linalg.cholesky(pieces.sum(0))))
        assert found.resolved and found.b_simple == pytest.approx(sure.b_simple)
        hits += found.low < truth < found.high
        widths.append((found.high - found.low) / (sure.high - sure.low))
    assert hits >= 180 and np.median(widths) > 1.1


def test_an_indefinite_metric_is_undefined_where_it_must_be():
    """M = diag(-1, 1, ...): G'MG < 0 along the first coordinate; M = diag(1, 0, 0, -1, ...): tr(M Sigma) < 0."""
    gradients = rollouts(40, np.random.default_rng(2))
    for metric, words in (([-1, 1, 1, 1, 1, 1], "G'HG = "), ([1, 0, 0, -1, 0, 0], r"tr(M Sigma) = ")):
        scale = defined(measured(gradients, lambda g, m=metric: MetricGrams((g * m @ g.T)[None], np.ones(1))))
        assert not scale.resolved and np.isnan([scale.b_simple, scale.low, scale.high]).all()
        assert scale.reason.startswith(f"undefined: {words}-") and scale.env_steps_needed is None


@pytest.mark.parametrize("sizes", [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 1.0, 2.0)])
def test_the_parts_of_the_noise_are_found_and_add_up(sizes):
    """Start, world and action effects of known size, N random and G not zero: y = start + world + action, noise aside
    from S = y + G N. Six standard errors."""
    rng, groups = np.random.default_rng(3), [np.arange(j, 64, J) for j in range(J)]
    moments = SplitMoments(J, P)
    for _ in range(60):
        env_steps = rng.integers(5, 9, (64, 2, 2))
        start, world = rng.standard_normal((64, 1, 1, P)), rng.standard_normal((64, 2, 1, P))
        action = rng.standard_normal((64, 2, 2, P)) + 0.1
        y = sizes[0] * start + sizes[1] * world + sizes[2] * (action - 0.1)
        moments.add(y + GRADIENT * env_steps[..., None], env_steps, groups)
    expected = np.square(sizes) * P / 6.5
    error = jackknife_error(moments.replicates())
    assert (abs(moments.parts() - expected) <= 6 * error + 1e-9).all()
    assert (error < 0.1 * max(expected.sum(), 1e-9) + 1e-9).all()
    assert moments.n_starts == 60 * 64 and moments.env_steps == pytest.approx(4 * 60 * 64 * 6.5, rel=0.01)
