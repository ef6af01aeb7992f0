"""Blocks of rollouts: where they begin, what they take out, and the covariance they give."""

import numpy as np
import pytest

from rl_gns.noise.blocks import block_spread, block_starts

from .simulate import ar1


def spread_of(values, weights=None, batch_size=None):
    values = np.asarray(values, np.float64)
    return block_spread(values, np.ones(len(values)) if weights is None else np.asarray(weights, float), batch_size)


def test_two_rows_by_hand():
    """Shares 1/4 and 3/4, deviations from the mean 2.5 of -1.5 and 0.5; 1 - sum of squared shares is 3/8."""
    spread = spread_of([[1.0, 10.0], [3.0, 40.0]], [1, 3])
    deviation = np.array([[1 * -1.5, 1 * -22.5], [3 * 0.5, 3 * 7.5]]) / 4
    assert spread.cov == pytest.approx(deviation.T @ deviation / (3 / 8))
    assert (spread.dof, spread.n_blocks) == (1, 0)


def test_four_blocks_by_hand():
    """Means 1, -1, -1, 1 of four equal blocks have no trend: sum (1/16) / (1 - 2/4) = 1/2; 4 - 2 degrees of freedom."""
    signal = np.array([1.0, -1.0, -1.0, 1.0])
    spread = spread_of(np.stack([signal, 2 * signal + 5], axis=1))
    assert spread.cov == pytest.approx(np.array([[0.5, 1.0], [1.0, 2.0]]))
    assert spread.dof == 2


def test_white_noise_gives_the_covariance_of_the_mean():
    """Mean over 2,000 series of 40: within 5 % of the truth (standard error of each entry below 1.2 %)."""
    rng, root = np.random.default_rng(1), np.array([[1.0, 0.0], [2.0, 3.0]])
    spreads = [spread_of(rng.standard_normal((40, 2)) @ root.T) for _ in range(2000)]
    np.testing.assert_allclose(np.mean([s.cov for s in spreads], axis=0), root @ root.T / 40, rtol=0.08)
    assert np.mean([s.n_blocks >= 8 for s in spreads]) > 0.9


def test_a_linear_drift_is_no_spread_and_no_correlation():
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((200, 2))
    drift = np.linspace(-50, 50, 200)[:, None] * [1.0, -3.0]
    still, drifting = spread_of(noise), spread_of(noise + drift)
    assert drifting.cov == pytest.approx(still.cov) and drifting.block_rollouts == still.block_rollouts
    assert spread_of(drift).cov == pytest.approx(np.zeros((2, 2)), abs=1e-12), "and rounding is no noise"


def test_correlated_rows_make_longer_blocks_and_a_covariance_that_is_not_too_small():
    """AR(1) 0.9, 1,000 rows, 400 series: true variance of the mean 0.0188; within 12 % (standard error 2.5 %). Single
    rows as blocks (the negative control) give 0.001."""
    series = ar1(np.random.default_rng(3), (400, 1000), 0.9)
    pairs = np.stack([series, series], axis=-1)
    variance = np.mean([spread_of(pair).cov[0, 0] for pair in pairs])
    k = np.arange(1, 1000)
    truth = (1 + 2 * ((1 - k / 1000) * 0.9**k).sum()) / 1000
    assert variance == pytest.approx(truth, rel=0.12)
    assert np.mean(series.var(axis=1)) / 1000 < 0.07 * truth


def test_no_block_straddles_two_batch_sizes():
    """24 rows of one size and 5 of another: a block begins at row 24; as one stretch none would."""
    assert block_starts([24, 5], 3).tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24]
    assert 24 not in block_starts([29], 3)
    assert block_starts([24, 2], 3)[-1] == 24, "a stretch shorter than a block is one"
    values, sizes = np.random.default_rng(4).standard_normal((28, 2)), np.r_[np.full(22, 1), np.full(6, 2)]
    spread = spread_of(values, sizes, sizes)
    assert spread.n_blocks <= 22 // spread.block_rollouts + 6 // spread.block_rollouts
    assert not np.allclose(spread.cov, spread_of(values, sizes).cov)
