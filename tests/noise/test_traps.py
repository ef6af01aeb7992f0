"""Known ways to get a noise scale wrong: each fails here as it must, on the data that ours reads right.

Seeds are fixed; the false-alarm rates say how often another seed would fail.
"""

import numpy as np
import pytest

from rl_gns.noise import frozen_scale, gram_signal_trace, pool, pool_series
from rl_gns.records import NoiseScale

from .worlds import STEPS, frozen_of, gaussian_gradients, history_of, key, moments_of, signals_and_traces

ROLLOUT = int(STEPS.sum())


def ours(gradients, env_steps=STEPS) -> NoiseScale:
    """Pooled over rollouts of group gradients [n, J, P]."""
    signal_sq, trace = signals_and_traces(gradients, env_steps)
    return pool_series(signal_sq, trace, np.full(len(gradients), env_steps.sum()), n_groups=len(env_steps))


def two_sizes(big_sq, small_sq, big, small):
    """McCandlish et al. 2018, A.1: (signal_sq, noise_trace) from squared norms at two batch sizes."""
    return (big * big_sq - small * small_sq) / (big - small), (small_sq - big_sq) / (1 / small - 1 / big)


def test_one_small_norm_instead_of_all():
    """Both are unbiased (within 5 %, standard error 1 %), but one group's norm scatters the trace 5 times as much
    (in variance) as all eight; expected 7 or more; false alarm below 0.1 %."""
    gradients = gaussian_gradients(np.random.default_rng(1), (4000,), STEPS, 4096.0, p=50)
    big_sq, small_sq = (gradients.mean(axis=1) ** 2).sum(-1), (gradients[:, 0] ** 2).sum(-1)
    _, naive = two_sizes(big_sq, small_sq, ROLLOUT, 128)
    _, trace = signals_and_traces(gradients, STEPS)
    assert naive.mean() == pytest.approx(4096, rel=0.05) and trace.mean() == pytest.approx(4096, rel=0.05)
    assert naive.var() > 5 * trace.var()


def test_a_gradient_that_rotates_between_small_and_big():
    """G turns by 20 degrees a rollout. The big batch of 8 successive rollouts averages different gradients and reads
    more than twice too high; groups within rollouts hold the truth (standard error of ours 4 %)."""
    rng, n = np.random.default_rng(2), 400
    angle = np.deg2rad(20) * np.arange(n)
    gradients = gaussian_gradients(rng, (n,), STEPS, 1024.0, p=50)
    gradients[..., 0] -= 1
    gradients[..., 0] += np.cos(angle)[:, None]
    gradients[..., 1] += np.sin(angle)[:, None]
    means = gradients.mean(axis=1)
    big_sq = (means.reshape(-1, 8, 50).mean(axis=1) ** 2).sum(-1).mean()
    signal_sq, trace = two_sizes(big_sq, (means**2).sum(-1).mean(), 8 * ROLLOUT, ROLLOUT)
    scale = ours(gradients)
    assert trace / signal_sq > 2 * 1024
    assert scale.resolved and scale.low < 1024 < scale.high and scale.b_simple == pytest.approx(1024, rel=0.2)


def test_transitions_of_one_column_are_not_independent():
    """64 columns, 32 env steps each, whose gradients share a third of their variance within a column: the true noise
    per env step is 1 + 31 / 3 = 11.3 times that of a transition. Groups of shuffled transitions read 8 times too low
    or worse; groups of columns hold the truth (false alarm 5 % another seed, as for any 95 % interval)."""
    rng, n, columns, length, p, rho = np.random.default_rng(3), 40, 64, 32, 10, 1 / 3
    truth = 200 * (1 + (length - 1) * rho)
    shared = np.sqrt(rho) * rng.standard_normal((n, columns, 1, p))
    rows = shared + np.sqrt(1 - rho) * rng.standard_normal((n, columns, length, p))
    rows *= np.sqrt(200 / p)
    rows[..., 0] += 1
    steps = np.full(8, columns * length // 8)
    by_column = ours(rows.reshape(n, 8, -1, p).mean(axis=2), steps)
    flat = rows.reshape(n, -1, p)
    shuffled = flat[:, rng.permutation(flat.shape[1])].reshape(n, 8, -1, p).mean(axis=2)
    naive = ours(shuffled, steps)
    assert naive.resolved and naive.high < truth / 4 and naive.b_simple < truth / 8
    assert by_column.resolved and by_column.low < truth < by_column.high


def test_the_mean_of_ratios_is_biased():
    """At noise to batch 1: the ratio of means is right within 3 % (standard error 0.4 %, false alarm below 1e-5), the
    mean of the same 8,000 ratios is more than 10 % high."""
    gradients = gaussian_gradients(np.random.default_rng(9), (8000,), STEPS, 1024.0, p=50)
    signal_sq, noise_trace = signals_and_traces(gradients, STEPS)
    assert ours(gradients).b_simple == pytest.approx(1024, rel=0.03)
    assert (noise_trace / signal_sq).mean() > 1.1 * 1024


def test_a_clamped_signal_is_biased():
    """At noise to batch 8: the mean signal is right within 10 % (standard error 2 %, false alarm below 1e-5) though a
    third of single signals are negative; clamped at zero one by one its mean is more than 20 % high."""
    gradients = gaussian_gradients(np.random.default_rng(9), (8000,), STEPS, 8192.0, p=50)
    signal_sq, _ = signals_and_traces(gradients, STEPS)
    assert (signal_sq < 0).mean() > 0.25
    assert ours(gradients).signal_sq == pytest.approx(1, rel=0.1)
    assert np.maximum(signal_sq, 0).mean() > 1.2


def test_an_average_anchored_on_its_first_sample():
    """Exponential averages (decay 0.99) that start from the first rollout still give it 67 % of their weight after 40:
    off by a factor of 1.5 or more in over a quarter of 400 streams, ours in less than one in twenty."""
    gradients = gaussian_gradients(np.random.default_rng(4), (400, 40), STEPS, 2048.0, p=50)
    signal_sq, trace = signals_and_traces(gradients, STEPS)
    weights = 0.01 * 0.99 ** np.arange(39, -1, -1)
    weights[0] = 0.99**39
    naive = (trace @ weights) / (signal_sq @ weights)
    pooled = trace.mean(axis=1) / signal_sq.mean(axis=1)
    assert weights.sum() == pytest.approx(1)

    def off(b_simple):
        return np.mean((b_simple < 2048 / 1.5) | (b_simple > 2048 * 1.5))

    assert off(naive) > 1 / 4 and off(pooled) < 1 / 20


def test_groups_coupled_by_the_rollouts_own_statistics():
    """Rows x (a - mean a) with E x = 3 and |Cov(x, a)|^2 = 1, by the rollout's own mean and by a known one. The
    rollout's mean makes the groups' errors cancel: the noise between them stays, the mean's is gone, so |G|^2 reads too
    low by the mean's noise, here below zero. Such moments are a number that is never resolved and never pooled."""
    rng, steps = np.random.default_rng(5), np.full(8, 4)
    a = rng.standard_normal((400, 8, 4, 1))
    x = 3 + a * np.eye(1, 10) + 0.5 * rng.standard_normal((400, 8, 4, 10))
    frozen, coupled = ((x * (a - mean)).mean(axis=2) for mean in (0.0, a.mean(axis=(1, 2), keepdims=True)))
    right, wrong = ours(frozen, steps), ours(coupled, steps)
    assert right.signal_sq == pytest.approx(1, abs=0.6) and wrong.signal_sq < -1
    scale = pool([moments_of(g, steps, key=key(normaliser="rollout")) for g in frozen])
    assert not scale.resolved and "coupled" in scale.reason
    gradients = gaussian_gradients(rng, (4,), STEPS, 100.0, p=50)
    held = frozen_scale(frozen_of(gradients, 0 * gradients, np.tile(STEPS, (4, 1))), key=key(normaliser="rollout"))
    assert not held.resolved and "coupled" in held.reason
    assert gram_signal_trace(frozen[0] @ frozen[0].T, steps)[0] == pytest.approx(
        signals_and_traces(frozen, steps)[0][0]
    )
    assert pool(history_of(60)).resolved, "the same without the coupling"
