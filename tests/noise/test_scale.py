"""Noise scales with intervals, and what is said when they are not resolved."""

import math

import numpy as np
import pytest

from rl_gns.noise import fieller, frozen_scale, gram_signal_trace, pool, pool_series, single
from rl_gns.noise.interval import student_quantile

from .worlds import STEPS, frozen_of, gaussian_gradients, history_of, key, moments_of


def holds(scale, truth):
    return scale.low <= truth <= scale.high


def test_pool_by_hand_divides_weighted_means():
    """Signals 1, 3 and traces 10, 40 with weights 1, 3: (1 + 9)/4 and (10 + 120)/4, ratio 13; two halves, t_1."""
    scale = pool_series([1.0, 3.0], [10.0, 40.0], [1, 3], n_groups=8)
    assert (scale.signal_sq, scale.noise_trace, scale.b_simple) == (2.5, 32.5, 13.0)
    assert (scale.n_rollouts, scale.env_steps) == (2, 4)
    assert scale.reason == "0 blocks: at least 8 are needed; signal's interval touches zero"
    deviation = np.array([[1 * -1.5, 1 * -22.5], [3 * 0.5, 3 * 7.5]]) / 4
    low, _, _ = fieller(2.5, 32.5, deviation.T @ deviation / (3 / 8), student_quantile(0.95, 1))
    assert scale.low == pytest.approx(low)


def test_pool_resolves_a_plain_case():
    scale = pool(history_of(60), "policy")
    assert scale.resolved and scale.reason is None and scale.env_steps_needed == 0
    assert holds(scale, 1000.0)
    assert (scale.first_version, scale.last_version, scale.n_groups, scale.pooling) == (0, 59, 8, "updates")
    assert scale.env_steps == 60 * 1024


def test_one_rollout_is_a_number_without_an_interval():
    scale = pool(history_of(1))
    assert not scale.resolved and math.isfinite(scale.b_simple)
    assert (scale.low, scale.high, scale.env_steps_needed) == (0.0, math.inf, None)
    assert "0 blocks" in scale.reason


def test_few_groups_few_blocks_and_coupling_are_named():
    steps = np.full(5, 128)
    few = pool(history_of(60, steps=steps))
    assert few.reason == "5 groups: at least 8 are needed" and few.env_steps_needed is None and math.isfinite(few.high)
    short = pool(history_of(10, b_simple=100.0))
    assert short.reason == "3 blocks: at least 8 are needed" and math.isfinite(short.high)
    assert short.env_steps_needed == 14 * 1024
    coupled = pool(history_of(60, key=key(normaliser="rollout")))
    assert not coupled.resolved and "coupled" in coupled.reason and coupled.env_steps_needed is None


def test_weak_signals_say_at_least_and_how_many_more():
    touching = pool(history_of(30, b_simple=30_000.0, seed=1))
    assert touching.signal_sq > 0 and touching.reason == "signal's interval touches zero"
    assert math.isfinite(touching.b_simple) and touching.low > 1000 and touching.high == math.inf
    assert touching.env_steps_needed > 0
    negative = pool_series(
        -0.1 + np.tile([1.0, -1.0, 0.5, -0.5, 0.0], 12), np.full(60, 9.0), np.full(60, 64), n_groups=8
    )
    assert negative.b_simple == math.inf and negative.low > 0
    assert negative.reason == "signal's estimate is not above zero"
    hopeless = pool_series(
        -5 + 0.1 * np.tile([1.0, -1.0, 0.5, -0.5, 0.0], 12), np.full(60, 9.0), np.full(60, 64), n_groups=8
    )
    assert hopeless.env_steps_needed is None and hopeless.low > 0


def test_env_steps_needed_follows_the_law():
    """8 blocks of 3 rollouts, block signals 1 +- 2 without a trend: v_ss = 4/6; needed = env steps (t_6^2 v_ss - 1)."""
    signal_sq = 1 + 2 * np.repeat([1, -1, -1, 1, 1, -1, -1, 1], 3) + np.tile([3.0, -1.5, -1.5], 8)
    trace = 10 + np.tile([3.0, -1.5, -1.5], 8)
    scale = pool_series(signal_sq, trace, np.full(24, 100), n_groups=8)
    assert scale.reason == "signal's interval touches zero"
    expected = 2400 * (student_quantile(0.95, 6) ** 2 * 4 / 6 - 1)
    assert scale.env_steps_needed == int(np.ceil(expected))


def test_off_policy_moments_and_windows():
    history = history_of(40)
    stale = moments_of(np.full((8, 50), 1e3), STEPS, max_ratio_error=0.5)
    assert pool([*history, stale]) == pool(history)
    assert pool(history, window_env_steps=30 * 1024) == pool(history[10:])
    assert pool(history, window_env_steps=30 * 1024 - 1) == pool(history[11:])
    assert pool(history, window_env_steps=1).n_rollouts == 1


def test_misuse_is_refused_in_words():
    history = history_of(3)
    with pytest.raises(ValueError, match="different keys"):
        pool([*history, moments_of(np.ones((8, 50)), STEPS, key=key(segment_steps=32))])
    with pytest.raises(ValueError, match="nothing to pool"):
        pool([])
    with pytest.raises(ValueError, match="finite"):
        pool_series([np.nan], [1.0], [1], n_groups=8)
    with pytest.raises(ValueError, match="one length"):
        pool_series([1.0, 2.0], [1.0, 2.0], [1], n_groups=8)
    with pytest.raises(ValueError, match="confidence"):
        pool(history, confidence=1.5)


def test_single_rollout_uses_the_jackknife():
    """One rollout of 16 groups, noise to batch 0.1; and what stands in the way when groups are few or stale."""
    steps = np.full(16, 64)
    moments = history_of(1, b_simple=100.0, steps=steps)[0]
    scale = single(moments)
    assert scale.resolved and holds(scale, 100.0) and scale.n_rollouts == 1
    assert (scale.signal_sq, scale.noise_trace) == gram_signal_trace(moments.gram["policy"], steps)
    stale = single(history_of(1, b_simple=100.0, steps=steps, max_ratio_error=0.5)[0])
    assert stale.reason == "the probe was off-policy"
    pair = single(history_of(1, steps=np.full(2, 64))[0])
    assert pair.reason.startswith("2 groups") and pair.high == math.inf and pair.low == 0


def test_frozen_scale_fills_the_record():
    rng, steps = np.random.default_rng(13), np.full((6, 8), 64)
    gradients = gaussian_gradients(rng, (6,), steps[0], 3072.0, p=50)
    frozen = frozen_of(gradients, 0 * gradients, steps)
    scale = frozen_scale(frozen, "total", policy_version=7)
    assert scale.pooling == "frozen" and scale.n_rollouts == 6 and scale.env_steps == 6 * 512
    assert (scale.first_version, scale.last_version) == (7, 7)
    assert scale.long_run_ratio == pytest.approx(1.0, abs=0.3)
    assert holds(scale, 3072.0)
    coupled = frozen_scale(frozen, "total", key=key(normaliser="rollout"))
    assert not coupled.resolved and "coupled" in coupled.reason


def test_frozen_env_steps_needed_follows_its_law():
    """The half width falls as sqrt(phi^2 + phi), phi = B_simple / env steps, until it equals the signal."""
    rng, steps = np.random.default_rng(14), np.full((3, 8), 64)
    gradients = gaussian_gradients(rng, (3,), steps[0], 40_000.0, p=50)
    frozen = frozen_of(gradients, 0 * gradients, steps)
    scale, deleted = frozen_scale(frozen), frozen.estimate().deleted[:, 0]
    half_width = student_quantile(0.95, 7) * np.sqrt(7 / 8 * ((deleted - deleted.mean()) ** 2).sum())
    assert not scale.resolved and scale.env_steps_needed > 0
    signal = scale.signal_sq if scale.signal_sq > 0 else scale.signal_sq + half_width
    now, then = (scale.noise_trace / signal / n for n in (1536, 1536 + scale.env_steps_needed))
    assert half_width * np.sqrt((then**2 + then) / (now**2 + now)) == pytest.approx(signal, rel=1e-3)


def test_an_off_policy_frozen_measurement_is_a_number_but_never_resolved():
    rng = np.random.default_rng(3)
    policy = gaussian_gradients(rng, (20,), STEPS, 100.0, p=50).astype(np.float32)
    frozen = frozen_of(policy, np.zeros_like(policy), np.tile(STEPS, (20, 1)))
    trusted, doubted = frozen_scale(frozen), frozen_scale(frozen, off_policy=True)
    assert trusted.resolved and not doubted.resolved
    assert doubted.b_simple == trusted.b_simple and "off-policy" in doubted.reason and doubted.env_steps_needed is None
