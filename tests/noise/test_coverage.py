"""Intervals hold the truth as often as they say, and are not bought with emptiness (`coverage.py` holds the cells).

Seeds are fixed, so nothing here fails by chance; the false-alarm rates say how often another seed would.
"""

import numpy as np
import pytest

from rl_gns.noise import autocorrelation_time, fieller, gram_signal_trace
from rl_gns.noise.interval import student_quantile

from .coverage import RATIOS, STREAMS, Stream, frozen, generator, pooled, streamed, worlds
from .simulate import World, correlated, independent

LONG = [s for s in STREAMS if s.n >= 10 * (1 + s.rho) / (1 - s.rho)]
"""Streams of ten autocorrelation times and more; a shorter one cannot tell how correlated it is."""


def check_pooled(row):
    """92 to 98 %; above 98 % only where at most one case in ten resolves, so that the intervals are lower limits."""
    print(row)
    assert row.coverage >= 0.92
    assert row.coverage <= 0.98 or row.resolved < 0.1
    if row.resolved > 0.9:
        assert row.width <= 1.5
        assert row.coverage_resolved >= 0.92 and abs(row.bias_resolved - 1) < 0.05


def check_frozen(row):
    """At least 93 %; the jackknife over-covers where noise dominates, up to 100 %."""
    print(row)
    assert row.coverage >= 0.93
    if row.resolved > 0.9:
        assert row.width <= 1.5
        assert row.coverage_resolved >= 0.93 and abs(row.bias_resolved - 1) < 0.1


@pytest.mark.parametrize("world", [World(0.5, 8, 5), World(4.0, 8, 50), World(16.0, 8, 50), World(4.0, 8, 5, "t4")])
def test_coverage_of_pooled_updates(world):
    """40 updates, 400 repeats. At a true coverage of 95 % a case is below 92 % or above 98 % with probability 0.6 %."""
    check_pooled(pooled(world, 400))


@pytest.mark.slow
@pytest.mark.patient
@pytest.mark.parametrize("world", worlds("normal") + worlds("t4"), ids=repr)
def test_coverage_of_pooled_updates_everywhere(world):
    """1,000 repeats. At a true coverage of 94 % a case is below 92 % with probability 0.5 %."""
    check_pooled(pooled(world, 1000))


@pytest.mark.parametrize("world", [World(0.5, 8, 5), World(0.5, 32, 50), World(16.0, 8, 50), World(0.5, 8, 50, "t4")])
def test_coverage_of_one_frozen_set(world):
    """300 repeats. At a true coverage of 96 % a case is below 93 % with probability 0.5 %."""
    check_frozen(frozen(world, 300))


@pytest.mark.slow
@pytest.mark.patient
@pytest.mark.parametrize("world", worlds("normal") + worlds("t4"), ids=repr)
def test_coverage_of_one_frozen_set_everywhere(world):
    """1,000 repeats. At a true coverage of 95 % a case is below 93 % with probability 0.2 %."""
    check_frozen(frozen(world, 1000))


def test_most_of_what_can_be_resolved_is():
    """Not vacuous: at 40 updates and a ratio of 0.5, and at 4 with rank 50, more than 9 of 10 resolve."""
    assert all(pooled(w, 200).resolved > 0.9 for w in (World(0.5, 8, 5), World(0.5, 8, 50), World(4.0, 8, 50)))
    assert frozen(World(0.5, 8, 50), 200).resolved > 0.85


@pytest.mark.parametrize("stream", [Stream(0.5, 200), Stream(0.9, 600, drift=0.5, doubles=True)], ids=repr)
def test_coverage_over_training(stream):
    """300 repeats. At a true coverage of 94 % a case is below 91 % with probability 1.5 %."""
    check_streamed(streamed(stream, 300), at_least=0.91)


@pytest.mark.slow
@pytest.mark.patient
@pytest.mark.parametrize("stream", LONG, ids=repr)
def test_coverage_over_training_everywhere(stream):
    """1,000 repeats. At a true coverage of 93.5 % a case is below 91.5 % with probability 0.5 %."""
    check_streamed(streamed(stream, 1000), at_least=0.915)


def check_streamed(row, at_least):
    print(row)
    assert at_least <= row.coverage <= 0.98
    if row.resolved > 0.9:
        assert row.width <= 1.5
        assert abs(row.bias_resolved - 1) < 0.06


def test_single_rollouts_as_blocks_fail_where_rollouts_are_correlated():
    """Negative control, AR(1) 0.9: with the spread between single rollouts less than 75 % of 300 intervals hold."""
    stream = Stream(0.9, 600)
    signal_sq, trace, _, truth = stream.draw(generator(stream), 300)
    held = []
    for values in np.stack([signal_sq, trace], axis=1):
        low, high, _ = fieller(*values.mean(axis=1), np.cov(values) / 600, student_quantile(0.95, 599))
        held.append(low <= truth <= high)
    print(f"unblocked {np.mean(held):.3f}")
    assert np.mean(held) < 0.75


def test_the_spread_around_the_mean_cannot_resolve_what_drifts():
    """Negative control of the trend: |G|^2 from 0.5 to 1.5 over 600 uncorrelated rollouts. With the trend left in, the
    autocorrelation time is the window's length; taken out, nearly all of 100 streams resolve."""
    stream = Stream(0.0, 600, drift=0.5)
    _, trace, _, _ = stream.draw(generator(stream), 20)
    assert min(autocorrelation_time(series) for series in trace) > 600 / 24
    assert streamed(stream, 100).resolved > 0.95


@pytest.mark.parametrize("ratio", RATIOS)
def test_signal_and_trace_are_unbiased(ratio):
    """Means of 2 million rollouts within 2 % (standard error of the signal at ratio 16: 0.5 %)."""
    signal_sq, trace = correlated(generator(ratio), World(ratio, 8, 5), 1000, np.ones(2000))
    assert signal_sq.mean() == pytest.approx(1, rel=0.02)
    assert trace.mean() == pytest.approx(ratio, rel=0.02)


def test_the_ratio_is_unbiased_where_the_signal_is_known_well():
    """Mean of b_simple over 4,000 pools within 2 % where the signal's relative variance is below 1 %."""
    for world, n in ((World(0.5, 8, 50), 40), (World(0.5, 32, 5), 80), (World(4.0, 8, 50), 160)):
        signal_sq, trace = (x.mean(axis=1) for x in independent(generator(world), world, 4000, n))
        assert signal_sq.var() < 0.01
        assert (trace / signal_sq).mean() == pytest.approx(world.ratio, rel=0.02)


def test_the_simulator_draws_what_the_estimator_returns():
    """Shortcuts against `gram_signal_trace` of the vectors themselves: means and covariance of 4,000 rollouts."""
    world = World(4.0, 8, 5)
    short = np.stack([x.ravel() for x in independent(generator("short"), world, 4000, 10)])
    vectors = world.group_gradients(generator("long"), (4000,))
    long = np.array([gram_signal_trace(g @ g.T, np.full(8, 1 / 8)) for g in vectors]).T
    np.testing.assert_allclose(short.mean(axis=1), long.mean(axis=1), atol=0.25)
    np.testing.assert_allclose(np.cov(short), np.cov(long), rtol=0.15, atol=0.15)
    drawn = np.stack([x.ravel() for x in independent(generator("t"), World(4.0, 8, 5, "t4"), 4000, 10)])
    np.testing.assert_allclose(drawn.mean(axis=1), [1, 4], rtol=0.1)
