"""Intervals for a ratio of two noisy means, and the covariances that feed them."""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import stats


def fieller(signal_mean: float, trace_mean: float, cov: np.ndarray, quantile: float) -> tuple[float, float, bool]:
    """(low, high, excludes_zero): Fieller's set for R = trace / signal, restricted to R > 0 (Fieller 1954).

    The set is {R: (trace - R signal)^2 <= q^2 (v_tt - 2 R v_st + R^2 v_ss)} for `cov = [[v_ss, v_st], [v_st, v_tt]]`,
    the covariance of the two means. `excludes_zero` says that signal > q sqrt(v_ss); only then is the set an
    interval. Otherwise high = inf and low is the finite positive root, the confident "at least low". A signal at or
    below zero enters this bound (and nothing else) as zero, since |G|^2 >= 0: that can only lower it. low is 0 where
    the trace itself does not differ from zero, or where there is no spread to judge by.
    """
    v_ss, v_st, v_tt = float(cov[0][0]), float(cov[0][1]), float(cov[1][1])
    signal, trace, q_sq = max(float(signal_mean), 0.0), float(trace_mean), quantile**2
    a, b, c = signal**2 - q_sq * v_ss, trace * signal - q_sq * v_st, trace**2 - q_sq * v_tt
    top = b + math.sqrt(max(b**2 - a * c, 0.0))
    excludes_zero = signal > quantile * math.sqrt(v_ss)
    low = c / top if c > 0 and top > 0 else 0.0
    return low, max(low, top / a) if excludes_zero and a > 0 else math.inf, excludes_zero


def autocorrelation_time(series: np.ndarray) -> float:
    """Integrated autocorrelation time tau = 1 + 2 sum_t rho(t), in samples, at least 1 (white noise).

    The sum stops at the first window M >= 5 tau(M) (Sokal 1989; the choice of emcee). A series shorter than about
    50 tau gives too small a tau, because its own mean was subtracted.
    """
    x = np.asarray(series, np.float64)
    x = x - x.mean()
    if len(x) < 3 or not x.any():
        return 1.0
    x = x / np.abs(x).max()  # squares of what is left neither overflow nor vanish
    spectrum = np.fft.rfft(x, 2 ** math.ceil(math.log2(2 * len(x))))
    covariance = np.fft.irfft(spectrum * spectrum.conj())[: len(x)]
    tau = 2 * np.cumsum(covariance / covariance[0]) - 1
    wide_enough = np.arange(len(x)) >= 5 * tau
    window = int(np.argmax(wide_enough)) if wide_enough.any() else len(x) - 1
    return max(1.0, float(tau[window]))


def jackknife_covariance(deleted: np.ndarray) -> np.ndarray:
    """[2, 2] delete-one-group covariance, (J-1)/J sum_j (x_(-j) - mean)(x_(-j) - mean)^T, of `deleted [J, 2]`."""
    n_groups = len(deleted)
    deviation = deleted - deleted.mean(axis=0)
    return (n_groups - 1) / n_groups * deviation.T @ deviation


@functools.lru_cache(maxsize=256)
def student_quantile(confidence: float, dof: int) -> float:
    """Two-sided Student t quantile: P(|t| <= quantile) = confidence."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return float(stats.t.ppf((1 + confidence) / 2, dof))
