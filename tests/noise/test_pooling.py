"""The running pool: windows, keys, what it leaves out, and its state on disk."""

import json
import math

import numpy as np
import pytest

from rl_gns.noise import Pool, pool, signal_and_trace
from rl_gns.records import PARTS

from .worlds import STEPS, history_of, key, moments_of


def fed(history, every=1, **kwargs):
    """A pool after `history`, one probe in `every` rollouts of 1,024 env steps."""
    running = Pool(**kwargs)
    for i, moments in enumerate(history):
        running.add(moments, (i + 1) * every * 1024)
    return running


def test_agrees_with_the_pure_function():
    history = history_of(40)
    scales = fed(history).noise_scales()
    assert set(scales) == set(PARTS)
    for part in PARTS:
        assert scales[part] == pool(history, part)


def test_empty_pool_has_no_noise_scale():
    assert Pool().noise_scales() is None


def test_window_keeps_the_newest():
    history = history_of(40)
    running = fed(history, window_env_steps=25 * 1024)
    assert running.n_rollouts == 25
    found, expected = running.noise_scales()["policy"], pool(history[15:])
    assert (found.b_simple, found.low, found.high) == (expected.b_simple, expected.low, expected.high)
    assert found.first_version == 15


def test_the_window_is_counted_in_training_not_in_probed_steps():
    """One probe in 8 rollouts: a window of 80 rollouts holds 10 probes, and what is still needed is 8 times as much."""
    assert fed(history_of(40), every=8, window_env_steps=80 * 1024).n_rollouts == 10
    history = history_of(40, b_simple=200_000)
    dense, sparse = (fed(history, every=every).noise_scales()["policy"] for every in (1, 8))
    assert dense.env_steps_needed > 0 and not dense.resolved
    assert sparse.env_steps_needed == pytest.approx(8 * dense.env_steps_needed, rel=0.03)


def test_a_window_that_forgets_too_soon_is_said():
    scale = fed(history_of(40, b_simple=200_000), window_env_steps=40 * 1024).noise_scales()["policy"]
    assert scale.env_steps_needed is None and "the window of 40,960 env steps is too short" in scale.reason


def test_a_new_key_starts_anew():
    later = history_of(12, seed=1, key=key(segment_steps=32))
    running = fed([*history_of(30), *later])
    assert running.n_rollouts == 12
    assert running.noise_scales()["policy"] == pool(later)


def test_returning_to_an_old_key_does_not_bring_its_window_back():
    history = history_of(10)
    other = moments_of(np.ones((8, 50)), STEPS, key=key(segment_steps=32), max_ratio_error=1.0)
    assert fed([*history, other, *history[:3]]).n_rollouts == 3


def test_a_change_of_the_batch_size_keeps_the_window():
    """30 rollouts of 1,024 env steps and 12 of 2,048: one estimate, weighted by env steps, that says what is new."""
    small = history_of(30, batch_size=1024)
    large = history_of(12, seed=1, steps=2 * STEPS, batch_size=2048)
    scale = fed([*small, *large]).noise_scales()["policy"]
    assert scale == pool([*small, *large]) and scale.n_rollouts == 42 and scale.env_steps == 54 * 1024
    assert (scale.batch_size, scale.batch_size_env_steps) == (2048, 24 * 1024)
    signals = [np.mean([signal_and_trace(moments)[0] for moments in stretch]) for stretch in (small, large)]
    assert scale.signal_sq == pytest.approx((30 * signals[0] + 24 * signals[1]) / 54)
    back = fed([*small, *large, *small[:3]]).noise_scales()["policy"]
    assert (back.batch_size, back.batch_size_env_steps) == (1024, 3 * 1024)


def test_coupled_off_policy_and_overflown_moments_are_counted_not_pooled():
    coupled = fed(history_of(5, key=key(normaliser="rollout")))
    assert coupled.noise_scales() is None and coupled.skipped["coupled"] == 5
    history = history_of(10)
    running = fed(history)
    running.add(moments_of(np.ones((8, 50)), STEPS, max_ratio_error=0.02), 10**6)
    running.add(moments_of(np.ones((8, 50)), STEPS, max_ratio_error=float("nan")), 10**6)
    running.add(moments_of(np.full((8, 50), np.inf), STEPS), 10**6)
    running.add(moments_of(np.ones((8, 50)), np.array([0, *STEPS[1:]])), 10**6)
    assert running.skipped == {"coupled": 0, "off_policy": 2, "not_finite": 1, "empty_groups": 1}
    assert running.noise_scales()["policy"] == pool(history)


def test_fewer_than_eight_groups_is_a_number_but_not_resolved():
    scale = fed(history_of(60, steps=np.full(5, 128))).noise_scales()["policy"]
    assert math.isfinite(scale.b_simple) and not scale.resolved
    assert scale.reason == "5 groups: at least 8 are needed"


def test_state_round_trip_through_json_changes_nothing():
    first, second = history_of(20, batch_size=1024), history_of(20, seed=1, batch_size=2048)
    running = fed(first, window_env_steps=30 * 1024, confidence=0.9)
    running.add(moments_of(np.ones((8, 50)), STEPS, max_ratio_error=1.0), 20 * 1024)
    restored = Pool.from_state(json.loads(json.dumps(running.state())))
    for i, moments in enumerate(second):
        running.add(moments, (21 + i) * 1024)
        restored.add(moments, (21 + i) * 1024)
    assert restored.noise_scales() == running.noise_scales()
    assert restored.state() == running.state() and restored.n_rollouts == 30 and restored.skipped["off_policy"] == 1
    assert Pool.from_state(json.loads(json.dumps(Pool().state()))).noise_scales() is None


def test_misuse_is_refused_in_words():
    with pytest.raises(ValueError, match="window_env_steps"):
        Pool(window_env_steps=0)
