"""A training loop of one's own: group gradients in, a noise scale out, whatever the numbers; bad input is one line."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rl_gns.noise import gram_signal_trace, group_moments, norms_signal_trace, pool
from rl_gns.records import MomentsKey, NoiseScale, to_json

from .worlds import gaussian_gradients, key, moments_of

SIZES = st.tuples(st.integers(1, 30), st.integers(2, 12), st.integers(1, 6))
NUMBERS = st.floats(-1e100, 1e100, allow_subnormal=True)


@st.composite
def loops(draw) -> tuple[np.ndarray, np.ndarray]:
    """Gradients [n, J, P] of any size from 1e-320 to 1e100, and env steps [J]."""
    shape = draw(SIZES)
    steps = draw(arrays(np.int64, shape[1], elements=st.integers(1, 10**9)))
    if draw(st.booleans()):
        return draw(arrays(np.float64, shape, elements=NUMBERS)), steps
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = 10.0 ** draw(st.integers(-170, 100))
    return size * (rng.standard_normal(shape) + draw(st.sampled_from([0, 0.1, 10]))), steps


def of_loop(gradients: np.ndarray, steps: np.ndarray | int, **options) -> NoiseScale:
    return pool([group_moments(g, steps) for g in gradients], **options)


@settings(deadline=None, max_examples=300)
@given(loops())
def test_from_two_groups_on_there_is_always_an_honest_answer(loop):
    gradients, steps = loop
    scale = of_loop(gradients, steps)
    assert math.isfinite(scale.signal_sq) and math.isfinite(scale.noise_trace) and scale.noise_trace >= 0
    assert 0 <= scale.low <= scale.high and scale.b_simple >= 0
    assert scale.resolved == (scale.reason is None) == (scale.env_steps_needed == 0)
    assert (scale.n_groups, scale.n_rollouts, scale.key_id) == (gradients.shape[1], len(gradients), None)
    if scale.n_groups < 8:
        assert not scale.resolved and scale.reason.startswith(f"{scale.n_groups} groups: at least 8")
    if scale.resolved:
        assert scale.low <= scale.b_simple <= scale.high < math.inf


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(-120, 120), st.integers(2, 12))
def test_the_unit_of_the_gradient_is_nothing_to_the_noise_scale(seed, power, n_groups):
    gradients = 0.3 + np.random.default_rng(seed).standard_normal((30, n_groups, 5))
    plain, scaled = (of_loop(unit * gradients, 64) for unit in (1.0, 2.0**power))
    names = ("b_simple", "low", "high", "resolved", "reason", "env_steps_needed")
    assert [getattr(plain, name) for name in names] == [getattr(scaled, name) for name in names]
    assert scaled.signal_sq == plain.signal_sq * 4.0**power


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_the_order_of_the_groups_is_nothing_to_it(seed, n_groups):
    rng = np.random.default_rng(seed)
    gradients, steps = rng.standard_normal((n_groups, 5)), rng.integers(1, 99, n_groups)
    order = rng.permutation(n_groups)
    one, other = of_loop([gradients], steps), of_loop([gradients[order]], steps[order])
    assert one.signal_sq == pytest.approx(other.signal_sq, rel=1e-9, abs=1e-12)
    assert one.noise_trace == pytest.approx(other.noise_trace, rel=1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(1, 1000))
def test_norms_alone_say_the_same_where_groups_are_equal(seed, n_groups, env_steps):
    gradients = np.random.default_rng(seed).standard_normal((n_groups, 5))
    steps = np.full(n_groups, env_steps)
    expected = gram_signal_trace(group_moments(gradients, env_steps).gram["total"], steps)
    for weights in (np.ones(n_groups), steps):
        parts = gradients * weights[:, None]
        found = norms_signal_trace((parts**2).sum(axis=1), (parts.sum(axis=0) ** 2).sum(), steps, weights)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("weighted", [False, True], ids=["means", "sums"])
def test_norms_alone_are_unbiased_for_unequal_groups(weighted):
    """|G|^2 = 1, tr(Sigma) = 100 per env step; bounds are 4.5 standard errors, fixed seed."""
    steps = np.array([10, 20, 40, 80])
    weights = steps if weighted else np.ones(4)
    gradients = gaussian_gradients(np.random.default_rng(2), (20_000,), steps, b_simple=100, p=10)
    parts = gradients * weights[:, None]
    found = np.array([norms_signal_trace((g**2).sum(1), (g.sum(0) ** 2).sum(), steps, weights) for g in parts])
    errors = found.std(axis=0) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - [1, 100]) < 4.5 * errors).all() and (errors < [0.05, 0.6]).all()


def test_it_is_the_estimator_that_the_trainer_uses():
    gradients = np.random.default_rng(1).standard_normal((30, 8, 50)) + 0.1
    steps = np.arange(8) + 100
    assert of_loop(gradients, steps) == pool([_keyless(moments_of(g, steps)) for g in gradients], "total")


def _keyless(moments):
    return type(moments)(gram=moments.gram, env_steps=moments.env_steps)


def test_unbounded_is_infinite_in_memory_and_null_on_disk():
    scale = of_loop(np.random.default_rng(0).standard_normal((3, 2, 4)), 5)
    assert scale.high == math.inf and to_json(scale)["high"] is None
    nothing = of_loop(np.zeros((3, 2, 4)), 5)
    assert nothing.b_simple == math.inf and to_json(nothing)["b_simple"] is None


def test_a_million_parameters_in_half_precision():
    gradients = np.random.default_rng(0).standard_normal((8, 600_000)).astype(np.float16)
    gram = group_moments(gradients, 4).gram["total"]
    assert gram == pytest.approx(gradients.astype(np.float64) @ gradients.astype(np.float64).T)


NAN = np.ones((3, 4))
NAN[1, 2] = np.nan


@pytest.mark.parametrize(
    ("gradients", "env_steps", "words"),
    [
        (np.ones((1, 4)), 5, "J >= 2 groups and P >= 1, got float64 [1, 4]"),
        (np.ones(4), 5, "got float64 [4]"),
        (np.ones((4, 0)), 5, "P >= 1, got float64 [4, 0]"),
        (np.ones((4, 2), complex), 5, "real numbers [J, P]"),
        (NAN, 5, "the gradient of group 1 holds a NaN or is too large: |g|^2 = nan"),
        (np.full((3, 4), np.inf), 5, "the gradient of group 0 holds a NaN or is too large: |g|^2 = inf"),
        (np.full((3, 4), 1e200), 5, "|g|^2 = inf"),
        (np.ones((3, 4)), [5, 5], "env_steps must be one number or [3], got shape [2]"),
        (np.ones((3, 4)), 0, "whole numbers from 1 on, got [0]"),
        (np.ones((3, 4)), [1, 2.5, 3], "whole numbers from 1 on, got [1.0, 2.5, 3.0]"),
        (np.ones((3, 4)), math.nan, "whole numbers from 1 on, got [nan]"),
        (np.ones((3, 4)), "many", "whole numbers from 1 on, got ['many']"),
    ],
)
def test_bad_input_is_one_clear_line(gradients, env_steps, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        group_moments(gradients, env_steps)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_pooled_is_one_clear_line():
    mine, theirs = group_moments(np.ones((8, 4)), 5), moments_of(np.ones((8, 4)), np.full(8, 5), key=key())
    assert isinstance(theirs.key, MomentsKey)
    for history, words in [([], "nothing to pool"), ([mine, theirs], "different keys")]:
        with pytest.raises(ValueError, match=words):
            pool(history)
    with pytest.raises(ValueError, match="no part 'policy' in all moments; there is total"):
        pool([mine], "policy")
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        pool([mine], confidence=95)
