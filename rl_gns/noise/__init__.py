"""Gradient noise scales with intervals, the knee of a sweep, and the one predicted from the other. numpy and scipy.

J groups of columns with N_k valid env steps and mean gradients g_k, N = sum N_k, g = sum (N_k/N) g_k:

    signal_sq   = (J |g|^2 - sum (N_k/N) |g_k|^2) / (J-1)    -> |G|^2
    noise_trace = sum N_k |g_k - g|^2 / (J-1)                -> tr(Sigma), per env step
    B_simple    = mean noise_trace / mean signal_sq          (McCandlish et al. 2018, eq. 2.9; never a mean of ratios)
    S = S_min (1 + B_crit / B),  E = S B / epochs,  B_crit = epochs E_min / S_min          (eq. 2.11)
    ds = 1 / (1 + B_simple / B) a step,  B_crit = sum B_simple ds / sum ds                 (appendix D)

For a training loop of your own: `group_moments` of each step's group gradients, `pool` over the steps. Groups must be
independent of each other: whole environment copies, or micro-batches of independent samples; never shuffled
transitions.

>>> import numpy as np
>>> gradients = np.random.default_rng(0).normal(0.2, 0.5, (40, 8, 50))  # steps, groups, parameters
>>> scale = pool([group_moments(g, env_steps=256) for g in gradients], confidence=0.95)
>>> scale.resolved, scale.low < 1600 < scale.high  # truth: 256 * 0.5^2 / 0.2^2 = 1600
(True, True)
>>> few = pool([group_moments(g[:2], env_steps=256) for g in gradients])
>>> few.resolved, few.reason
(False, '2 groups: at least 8 are needed')
"""

from rl_gns.noise.across import Across
from rl_gns.noise.decayed import DecayedMoments, WindowEstimate
from rl_gns.noise.front import Front, NoFront, fit_front, largest_useful_batch
from rl_gns.noise.held import frozen_scale
from rl_gns.noise.interval import autocorrelation_time, fieller
from rl_gns.noise.moments import (
    FrozenEstimate,
    FrozenMoments,
    gram_signal_trace,
    group_moments,
    leave_one_out,
    mean_cosine,
    norms_signal_trace,
    signal_and_trace,
)
from rl_gns.noise.plan import Plan, plan
from rl_gns.noise.pooled_prediction import Comparison, PooledPrediction, hold_against, pool_runs
from rl_gns.noise.pooling import Pool
from rl_gns.noise.run_prediction import RunLog, RunPrediction, predict_run
from rl_gns.noise.scale import pool, pool_series, single

__all__ = [
    "Across",
    "Comparison",
    "DecayedMoments",
    "Front",
    "FrozenEstimate",
    "FrozenMoments",
    "NoFront",
    "Plan",
    "Pool",
    "PooledPrediction",
    "RunLog",
    "RunPrediction",
    "WindowEstimate",
    "autocorrelation_time",
    "fieller",
    "fit_front",
    "frozen_scale",
    "gram_signal_trace",
    "group_moments",
    "hold_against",
    "largest_useful_batch",
    "leave_one_out",
    "mean_cosine",
    "norms_signal_trace",
    "plan",
    "pool",
    "pool_runs",
    "pool_series",
    "predict_run",
    "signal_and_trace",
    "single",
]
