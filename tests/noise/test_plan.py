"""Planned env steps against simulation: at the planned size the interval is as narrow as was asked."""

import dataclasses
import math

import numpy as np
import pytest

from rl_gns.noise import plan, pool_series
from rl_gns.noise.plan import POOLED_LAW, SUMS_LAW, more_env_steps, signal_precision

from .coverage import frozen_scales, generator
from .simulate import World, independent

PRECISION = 0.25


def pooled_scales(world, n, repeats, seed):
    series = zip(*independent(generator((seed, n)), world, repeats, n), strict=True)
    return [pool_series(s, 1000 * t, np.full(n, 1000), n_groups=world.n_groups) for s, t in series]


def half_width(scales):
    """Median of half the interval's width over b_simple; inf where most are unbounded."""
    return np.median([(s.high - s.low) / 2 / s.b_simple if s.resolved else math.inf for s in scales])


def wanted_env_steps(width, size, exponent):
    """Env steps at which the median half width would be PRECISION, from `width` at `size`."""
    return size * (width / PRECISION) ** (1 / exponent)


def test_pooled_plans_are_right_within_30_percent():
    """From 40 rollouts at ratio 4 to +-25 %: median of 200 plans against 200 pools of that size."""
    world = World(4.0, 8, 50)
    plans = [plan(scale, PRECISION) for scale in pooled_scales(world, 40, 200, "now")]
    assert {p.law for p in plans} == {POOLED_LAW}
    total = 40_000 + np.median([p.env_steps for p in plans])
    width = half_width(pooled_scales(world, round(total / 1000), 200, "then"))
    print(f"planned {total:,.0f}, half width there {width:.3f}")
    assert total > 50_000
    assert total == pytest.approx(wanted_env_steps(width, total, 0.5), rel=0.3)


@pytest.mark.parametrize(("ratio", "rank", "rollouts"), [(16.0, 50, 4), (2.0, 5, 4)])
def test_frozen_plans_are_right_within_30_percent(ratio, rank, rollouts):
    """From a frozen set whose env steps are B_simple / 4 (noise dominates) or 2 B_simple, J = 16."""
    world = World(ratio, 16, rank)
    plans = [plan(scale, PRECISION) for scale in frozen_scales(world, 150, generator("now"), rollouts)]
    assert {p.law for p in plans} == {SUMS_LAW}
    total = round(rollouts + np.median([p.env_steps for p in plans]) / 16)
    width = half_width(frozen_scales(world, 60, generator("then"), total))
    print(f"planned {total} rollouts after {rollouts}, half width there {width:.3f}")
    assert total > 2 * rollouts
    assert total == pytest.approx(wanted_env_steps(width, total, 0.5 if ratio / total < 1 else 1), rel=0.3)


def test_the_laws_by_hand():
    """Half width twice the signal: pooled 4 times the env steps; frozen at phi = 100 about 2 times, at 0.01 about 4."""
    assert more_env_steps(1.0, 50.0, 2.0, 1000, sums_held=False) == pytest.approx(3000)
    assert more_env_steps(1.0, 1e5, 2.0, 1000, sums_held=True) == pytest.approx(1000, rel=0.02)
    assert more_env_steps(1.0, 10.0, 2.0, 1000, sums_held=True) == pytest.approx(3000, rel=0.03)
    assert more_env_steps(1.0, 50.0, 0.5, 1000, sums_held=True) == 0
    assert more_env_steps(-1.0, 50.0, 3.0, 1000, sums_held=False) == pytest.approx(1000 * (1.5**2 - 1))
    assert more_env_steps(-3.0, 50.0, 2.0, 1000, sums_held=False) is None


@pytest.mark.parametrize("precision", [0.05, 0.25, 1.0])
def test_the_precision_of_the_signal_is_that_of_the_ratio(precision):
    delta = signal_precision(precision)
    assert (1 / (1 - delta) - 1 / (1 + delta)) / 2 == pytest.approx(precision)
    assert signal_precision(math.inf) == 1


def test_a_plan_agrees_with_the_record_and_grows_with_precision():
    """For precision inf the plan is `env_steps_needed`, but for what the trace adds."""
    scales = [s for s in pooled_scales(World(16.0, 8, 50), 60, 20, "record") if not s.resolved and s.signal_sq > 0]
    for scale in scales:
        assert plan(scale).env_steps == pytest.approx(scale.env_steps_needed, rel=0.4, abs=1000)
        assert plan(scale, 0.1).env_steps > plan(scale, 0.3).env_steps > plan(scale).env_steps
    assert len(scales) > 3


def test_what_cannot_be_planned_is_said():
    scale = pooled_scales(World(4.0, 8, 50), 1, 1, "one")[0]
    assert plan(scale).env_steps is None
    narrow = dataclasses.replace(scale, low=scale.noise_trace / max(scale.signal_sq, 1) * 0.999, signal_sq=1.0)
    assert plan(narrow, 5.0).env_steps is not None
    with pytest.raises(ValueError, match="precision"):
        plan(scale, 0)
