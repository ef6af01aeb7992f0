"""Fieller's set, the autocorrelation time and the two covariances."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_gns.noise import autocorrelation_time, fieller
from rl_gns.noise.interval import jackknife_covariance


def test_fieller_bounded_by_hand():
    """signal 5, trace 10, both variances 4, q = 2: (10 - 5R)^2 = 16 (1 + R^2), 9 R^2 - 100 R + 84 = 0."""
    low, high, excludes_zero = fieller(5.0, 10.0, np.diag([4.0, 4.0]), 2.0)
    root = math.sqrt(100**2 - 4 * 9 * 84)
    assert (low, high) == pytest.approx(((100 - root) / 18, (100 + root) / 18))
    assert excludes_zero


def test_fieller_with_covariance_solves_its_own_equation():
    cov = np.array([[0.5, 0.6], [0.6, 2.0]])
    for r in fieller(5.0, 10.0, cov, 2.0)[:2]:
        assert (10 - 5 * r) ** 2 == pytest.approx(4 * (2.0 - 2 * r * 0.6 + r**2 * 0.5))


def test_fieller_unbounded_by_hand():
    """signal 3 < q sd = 4: (10 - 3R)^2 = 16 (1 + R^2), 7 R^2 + 60 R - 84 = 0, positive root only: at least that."""
    low, high, excludes_zero = fieller(3.0, 10.0, np.diag([4.0, 4.0]), 2.0)
    assert low == pytest.approx((-60 + math.sqrt(60**2 + 4 * 7 * 84)) / 14)
    assert high == math.inf and not excludes_zero


@pytest.mark.parametrize("signal", [0.0, -1.0, -4.0, -1000.0])
def test_fieller_negative_signal_bounds_as_zero(signal):
    """100 = 16 (1 + R^2): R = sqrt(84 / 16), however negative the signal is."""
    low, high, excludes_zero = fieller(signal, 10.0, np.diag([4.0, 4.0]), 2.0)
    assert (low, high, excludes_zero) == (pytest.approx(math.sqrt(84 / 16)), math.inf, False)


def test_fieller_says_nothing_where_nothing_is_known():
    assert fieller(1.0, 3.0, np.diag([4.0, 4.0]), 2.0) == (0.0, math.inf, False)
    assert fieller(0.0, 3.0, np.zeros((2, 2)), 2.0) == (0.0, math.inf, False)
    assert fieller(2.0, 3.0, np.zeros((2, 2)), 2.0) == (1.5, 1.5, True)


signals = st.floats(0.01, 100)
spreads = st.floats(0.001, 50)


@given(signals, st.floats(0.01, 100), spreads, spreads, st.floats(-0.95, 0.95), st.floats(0.5, 5))
def test_fieller_holds_the_ratio_and_scales_with_it(signal, trace, sd_s, sd_t, rho, quantile):
    cov = np.array([[sd_s**2, rho * sd_s * sd_t], [rho * sd_s * sd_t, sd_t**2]])
    low, high, excludes_zero = fieller(signal, trace, cov, quantile)
    assert 0 <= low <= trace / signal * (1 + 1e-6) and trace / signal <= high * (1 + 1e-6)
    assert excludes_zero == math.isfinite(high)
    scale = np.diag([8.0, 32.0])  # powers of two: exact
    scaled = fieller(8 * signal, 32 * trace, scale @ cov @ scale, quantile)
    assert scaled == (pytest.approx(4 * low), pytest.approx(4 * high), excludes_zero)


@pytest.mark.parametrize(("rho", "tolerance"), [(0.0, 0.15), (0.5, 0.15), (0.9, 0.2)])
def test_autocorrelation_time_of_ar1(rho, tolerance):
    """tau = (1 + rho) / (1 - rho); 20,000 samples, standard error below 7 %."""
    noise = np.random.default_rng(0).standard_normal(20_000)
    series = np.zeros(20_000)
    for i in range(1, len(series)):
        series[i] = rho * series[i - 1] + noise[i]
    assert autocorrelation_time(series) == pytest.approx((1 + rho) / (1 - rho), rel=tolerance)


def test_autocorrelation_time_is_at_least_one():
    assert autocorrelation_time(np.ones(50)) == 1.0
    assert autocorrelation_time(np.array([3.0])) == 1.0
    assert autocorrelation_time(np.tile([1.0, -1.0], 50)) == 1.0


def test_jackknife_of_a_mean_is_the_covariance_of_the_mean():
    values = np.random.default_rng(2).normal(size=(12, 2))
    deleted = (values.sum(axis=0) - values) / 11
    assert jackknife_covariance(deleted) == pytest.approx(np.cov(values.T) / 12)
