"""The one-step line search on a quadratic bowl, where everything about it is known."""

import numpy as np
import pytest

from rl_gns.noise.line import fit, search

P, J, K, B = 10, 16, 16, 32
HESSIAN = np.diag(np.linspace(0.2, 2.0, P))
GRADIENT = np.full(P, 0.5)
SIGMA = np.diag(np.linspace(6.0, 1.0, P))
B_NOISE = np.trace(HESSIAN @ SIGMA) / (GRADIENT @ HESSIAN @ GRADIENT)
EPS_MAX = GRADIENT @ GRADIENT / (GRADIENT @ HESSIAN @ GRADIENT)
ROLLOUTS = (1, 4, 16)


def bowl(directions, slopes, hessians):
    """loss(d, eps) [K] after -eps x directions[d]: each held-out group has a slope and a curvature of its own."""

    def loss(d, eps):
        g = directions[d]
        return -eps * slopes @ g + eps**2 / 2 * np.einsum("i,kij,j->k", g, hessians, g)

    return loss


def measured(rng, noise=1.0, held_noise=0.0, start=1.0):
    """(Line, levels) from J groups over 16 rollouts of B env steps a group."""
    gradients = GRADIENT + noise * rng.standard_normal((ROLLOUTS[-1], J, P)) @ np.sqrt(SIGMA / B)
    slopes = GRADIENT + held_noise * rng.standard_normal((K, P))
    hessians = HESSIAN * (1 + held_noise * rng.standard_normal((K, 1, 1)))
    levels = []
    for n in ROLLOUTS:
        groups = gradients[:n].mean(axis=0)
        levels.append(search(bowl(groups, slopes, hessians), n * B, J, start))
    total, each = J * ROLLOUTS[-1] * B, ROLLOUTS[-1] * B
    everything = np.stack([groups.mean(axis=0), *[np.delete(groups, j, axis=0).mean(axis=0) for j in range(J)]])
    left = np.full(J, total - each)
    levels.append(search(bowl(everything, slopes, hessians), total, J + 1, start, left))
    return fit(levels, np.full(K, 100.0), J, 0.95), levels


@pytest.mark.parametrize("start", [1e-4, 0.7, 300.0])
def test_without_noise_the_best_step_is_exact_from_any_start(start):
    line, _ = measured(np.random.default_rng(0), noise=0.0, start=start)
    assert line.eps_opt == pytest.approx([EPS_MAX] * 4) and line.eps_max == pytest.approx(EPS_MAX)
    assert line.b_noise == pytest.approx(0, abs=1e-6)


def test_the_line_finds_the_curvature_weighted_noise_scale_and_its_interval_holds():
    """200 bowls, held-out groups that differ too: B_noise within 3 % in the median; a 95 % interval that covers misses
    more than 20 times with probability 1e-3. B_simple of these bowls is another number."""
    assert abs(np.trace(SIGMA) / (GRADIENT @ GRADIENT) / B_NOISE - 1) > 0.2
    lines = [measured(np.random.default_rng(seed), held_noise=0.3)[0] for seed in range(200)]
    hits = sum(line.resolved and line.low < B_NOISE < line.high for line in lines)
    assert np.median([line.b_noise for line in lines]) == pytest.approx(B_NOISE, rel=0.05)
    assert np.median([line.eps_max for line in lines]) == pytest.approx(EPS_MAX, rel=0.05)
    assert hits >= 180
    assert np.median([line.high / line.low for line in lines]) < 3


def test_the_best_steps_follow_eq_2_6():
    steps = np.mean([measured(np.random.default_rng(seed))[0].eps_opt for seed in range(100)], axis=0)
    sizes = np.array([*(n * B for n in ROLLOUTS), J * ROLLOUTS[-1] * B])
    assert steps == pytest.approx(EPS_MAX / (1 + B_NOISE / sizes), rel=0.03)


@pytest.mark.parametrize("loss", [lambda e: -e, lambda e: -np.tanh(e), lambda e: e, lambda e: 0.0 * e])
def test_a_loss_without_a_minimum_has_no_best_step(loss):
    """A slope that never ends, one that saturates, a gradient that points uphill, and nothing at all."""
    assert search(lambda _, eps: np.array([loss(eps)]), 32, 4, 1.0) is None
