"""Does the control channel read what is true? A test whose false-alarm rate over all the looks of a run is bounded.

The law of the synthetic gradients is known (`control_channel.py`), so of every probe the mean and the variance of both
statistics are known too. With U = diag(v_k / D), p_k = N_k / N, and for each of the D coordinates the forms

    noise_trace = g^T (diag(N_k) - N p p^T) g / (J-1),    signal_sq = g^T (J p p^T - diag(p)) g / (J-1),

a form M has mean D sum_i l_i and variance 2 D sum_i l_i^2, l_i the eigenvalues of U^(1/2) M U^(1/2); the signal also
has the mean |G|^2 and the variance 4 |G|^2 p^T U p of its linear term. Probes t and s correlate at most by rho^|t - s|
(linear terms) and its square (forms). A weighted mean X of n probes then obeys Bernstein's bound for Gaussian forms
(Laurent and Massart 2000, lemma 1; Birge 2001 for the linear term),

    P(|X - E X| > sqrt(2 Var X x) + 2 l x) <= 2 exp(-x),

with l the largest |l_i| that the mean can have. Its x is set so that a look at both statistics trips on a healthy
instrument with probability at most FALSE_ALARM; n looks do with at most n times that, however they depend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rl_gns.control_channel import COORDINATES, OVER_ROLLOUTS, SIGNAL_SQ
from rl_gns.noise.moments import gram_signal_trace
from rl_gns.records import GroupMoments, NoiseScale

FALSE_ALARM = 1e-6
"""Of one look, a probe: at most 1 % for a run of 10,000 probes (a choice; a loss of T times is seen all the same)."""
EXPONENT = math.log(4 / FALSE_ALARM)
"""x, for two statistics with two sides each."""
SAYS_SOMETHING = 0.5
"""Where the trace may lie this share or more from its mean, nothing is said but a trip (a choice)."""

Flag = Literal["ok", "reads low", "reads high"]


@dataclass(frozen=True)
class ControlReading:
    """What a record says of the control channel; the names are those of UpdateRecord."""

    noise_control: NoiseScale | None = None
    noise_control_truth: dict[str, float] | None = None
    """signal_sq, noise_trace: the weighted means of their expectations; b_simple: their ratio."""
    noise_control_flag: Flag | None = None


def control_row(moments: GroupMoments) -> np.ndarray | None:
    """[2, 5] of one probe, signal_sq above noise_trace: what was found, its mean, variance of its linear term, variance
    of its form, largest |l_i|. None where the moments have no control channel."""
    if moments.control is None:
        return None
    steps = moments.env_steps.astype(np.float64)
    found = gram_signal_trace(moments.control.gram, steps)
    return np.column_stack([found, _law(moments.control.group_variance / COORDINATES, steps)])


def _law(variance: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """[2, 4] for groups whose means have `variance` [J] a coordinate."""
    n_groups, share, root = len(steps), steps / steps.sum(), np.sqrt(variance)
    squares = np.outer(share, share)
    rows = []
    for form in (n_groups * squares - np.diag(share), np.diag(steps) - steps.sum() * squares):
        eigenvalues = np.linalg.eigvalsh(root[:, None] * form * root) / (n_groups - 1)
        mean, spread = COORDINATES * eigenvalues.sum(), 2 * COORDINATES * (eigenvalues**2).sum()
        rows.append([mean, 0.0, spread, np.abs(eigenvalues).max()])
    rows[0][0] += SIGNAL_SQ
    rows[0][1] = 4 * SIGNAL_SQ * (share**2 @ variance)
    return np.array(rows)


def reading(scale: NoiseScale, rows: np.ndarray, env_steps: np.ndarray, versions: Sequence[int]) -> ControlReading:
    """Judge the pooled `scale` of n probes by their `rows` [n, 2, 5], weights `env_steps` [n] and policy versions."""
    share = env_steps / env_steps.sum()
    mean, margin = share @ rows[:, :, 1], _margin(rows, share, np.asarray(versions))
    outside = np.abs(np.array([scale.signal_sq, scale.noise_trace]) - mean) > margin
    truth = {"signal_sq": float(mean[0]), "noise_trace": float(mean[1]), "b_simple": float(mean[1] / mean[0])}
    flag: Flag | None = None
    if outside.any():
        flag = "reads low" if scale.b_simple < truth["b_simple"] else "reads high"
    elif margin[1] < SAYS_SOMETHING * mean[1]:
        flag = "ok"
    return ControlReading(scale, truth, flag)


def _margin(rows: np.ndarray, share: np.ndarray, versions: np.ndarray) -> np.ndarray:
    """[2]: how far the means of signal_sq and noise_trace may lie from their expectations."""
    linear, form = (share[:, None] * np.sqrt(rows[:, :, i]) for i in (2, 3))
    variance = _correlated(linear, versions, OVER_ROLLOUTS) + _correlated(form, versions, OVER_ROLLOUTS**2)
    gap = np.diff(versions).min() if len(versions) > 1 else np.inf
    persists = (1 + OVER_ROLLOUTS**gap) / (1 - OVER_ROLLOUTS**gap)  # bounds the norm of the probes' correlation matrix
    largest = (share[:, None] * rows[:, :, 4]).max(axis=0) * persists
    return np.sqrt(2 * variance * EXPONENT) + 2 * largest * EXPONENT


def _correlated(deviation: np.ndarray, versions: np.ndarray, correlation: float) -> np.ndarray:
    """Variance of the sum of n terms [n, 2] of those standard deviations, correlated by correlation^|version gap|."""
    variance = (deviation**2).sum(axis=0)
    for lag in range(1, len(versions)):
        decay = correlation ** (versions[lag:] - versions[:-lag])
        if decay.max() < 1e-9:
            break
        variance = variance + 2 * (decay[:, None] * deviation[lag:] * deviation[:-lag]).sum(axis=0)
    return variance
