"""The controller: pure, monotone, on the grid, and without chatter under its stated condition."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_gns.config import BatchConfig, ControlConfig, LearnerConfig, RolloutConfig, RunConfig
from rl_gns.noise.controller import LARGEST_STEP, Observation, decide, initial
from rl_gns.records import NoiseScale


def scale(b_simple, resolved=True, batch_size=256, new=1000, new_rollouts=10):
    """A noise scale of 1,000 env steps, `new` of them since the batch size was last changed."""
    return NoiseScale(
        part="policy",
        signal_sq=1.0,
        noise_trace=b_simple,
        b_simple=b_simple,
        low=b_simple / 2,
        high=b_simple * 2 if resolved else math.inf,
        confidence=0.95,
        resolved=resolved,
        reason=None if resolved else "the signal's interval touches zero",
        env_steps_needed=None,
        n_groups=16,
        env_steps=1000,
        n_rollouts=10,
        first_version=0,
        last_version=9,
        pooling="updates",
        batch_size=batch_size,
        batch_size_env_steps=new,
        batch_size_rollouts=new_rollouts,
    )


def settings(size=256, minibatches=4, segment_steps=32, per_collector=8, schedule="constant", **control):
    return RunConfig(
        total_env_steps=100_000,
        batch=BatchConfig(size=size, segment_steps=segment_steps, minibatches=minibatches),
        rollout=RolloutConfig(columns_per_collector=per_collector),
        learner=LearnerConfig(learning_rate=1e-3, schedule=schedule),
        control=ControlConfig(**{"policy": "follow", "hysteresis": 1.5, **control}),
    )


def seen(noise, env_steps=0):
    return Observation(noise, env_steps, 0)


def walk(config, wanted):
    """Batch sizes after each of those B_simple, every one seen under the size in use."""
    state, sizes = initial(config), []
    for b_simple in wanted:
        state, size, _ = decide(state, seen(scale(b_simple, batch_size=state.batch_size)))
        sizes.append(size)
    return sizes


def test_fixed_never_moves():
    assert set(walk(settings(policy="fixed"), [1, 1e6, 3000])) == {256}


def test_follow_waits_for_an_interval_and_then_goes_there_by_doubling():
    state = initial(settings())
    for noise in (None, scale(4096, resolved=False)):
        state, size, rate = decide(state, seen(noise))
        assert (size, rate, state.decision.moved) == (256, 1e-3, False)
        assert state.decision.reason.startswith("waits: ")
    assert walk(settings(), [4096] * 6) == [512, 1024, 2048, 4096, 4096, 4096]
    assert walk(settings(size=2048), [64] * 4) == [1024, 512, 256, 256], "the floor of 8 columns x 32 env steps"
    assert walk(settings(max_batch_size=1000), [1e9] * 3) == [512, 960, 960], "the cap, on the grid of 64"
    assert walk(settings(kappa=0.25), [4096] * 4) == [512, 1024, 1024, 1024]


def test_one_interval_moves_the_batch_size_once():
    """After a move the old rollouts still count: the next one waits until a quarter of them are of the new size."""
    state, size, _ = decide(initial(settings()), seen(scale(1e5)))
    assert size == 512
    state, size, _ = decide(state, seen(scale(1e5)))
    assert size == 512 and "no probe under this batch size" in state.decision.reason
    for little in ({"new": 249}, {"new_rollouts": 2}):
        state, size, _ = decide(state, seen(scale(1e5, batch_size=512, **little)))
        assert size == 512 and "too little of the interval" in state.decision.reason
    assert decide(state, seen(scale(1e5, batch_size=512, new=250, new_rollouts=3)))[1] == 1024


def test_a_pool_that_keeps_its_window_lets_a_size_stand_for_some_rollouts():
    """The rule on the weights of a growing pool: 24 rollouts of 256, then 4 of 512, and 3 of each size on."""
    state, sizes, moved_at = initial(settings(max_batch_size=1 << 20)), [256] * 24, []
    for i in range(17):
        new = sizes[sizes.index(state.batch_size) :] if state.batch_size in sizes else []
        known = dict(batch_size=sizes[-1], new=sum(new), new_rollouts=len(new))
        state, size, _ = decide(state, seen(dataclasses.replace(scale(1e9, **known), env_steps=sum(sizes))))
        moved_at += [i] if state.decision.moved else []
        sizes.append(size)
    assert moved_at == [0, 4, 7, 10, 13, 16]


def test_a_decision_says_what_it_saw_asked_got_and_why():
    state, size, _ = decide(initial(settings(kappa=2.0)), Observation(scale(4000), 7, 3, 1.5, 0.25))
    decision = state.decision
    assert (decision.saw_b_simple, decision.saw_low, decision.saw_high, decision.saw_resolved) == (
        4000,
        2000,
        8000,
        True,
    )
    assert (decision.saw_return_mean, decision.saw_update_seconds) == (1.5, 0.25)
    assert (decision.target_batch_size, decision.asked_batch_size, decision.got_batch_size) == (8000.0, 8000, 512)
    assert decision.moved and size == 512 and "2 x B_simple (policy)" in decision.reason


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("sqrt", 2**0.5), ("linear", 2.0)])
def test_learning_rate_rules(rule, factor):
    for schedule, left in (("constant", 1.0), ("linear", 0.75)):
        config = settings(learning_rate_rule=rule, schedule=schedule)
        state, _, rate = decide(initial(config), seen(None, 25_000))
        assert rate == pytest.approx(1e-3 * left)
        assert decide(state, seen(scale(4096), 25_000))[2] == pytest.approx(1e-3 * factor * left)


grids = st.builds(
    settings,
    segment_steps=st.sampled_from([1, 8, 32, 128]),
    per_collector=st.integers(1, 16),
    minibatches=st.integers(1, 8),
    hysteresis=st.floats(1, 4),
    max_batch_size=st.integers(1, 10**6),
)


def started(config, units):
    """The same settings, from a legal start between floor and cap."""
    size = min(config.batch_floor + units * config.batch_unit, config.batch_cap)
    batch = BatchConfig(size, config.batch.segment_steps, config.batch.minibatches)
    return RunConfig(batch=batch, rollout=config.rollout, learner=config.learner, control=config.control)


@given(grids, st.integers(0, 1000), st.lists(st.floats(0.5, 1e9), max_size=12))
def test_every_size_is_one_that_a_rollout_can_have(config, units, wanted):
    config = started(config, units)
    before = config.batch.size
    for size in walk(config, wanted):
        assert config.batch_floor <= size <= config.batch_cap and size % config.batch_unit == 0
        segments = config.batch.segment_steps * config.rollout.columns_per_collector
        assert config.collectors(size) * segments == size * config.batch.minibatches
        assert before / LARGEST_STEP - config.batch_unit < size <= before * LARGEST_STEP
        assert size == before or max(size / before, before / size) > 1
        before = size


@given(st.integers(0, 5000), st.integers(5, 20), st.floats(1, 4), st.lists(st.floats(-0.5, 0.5), min_size=20))
def test_no_chatter(units, log_centre, hysteresis, phases):
    """Wanted sizes within sqrt(hysteresis) of a centre, however they jump: one direction, few moves, then rest."""
    config = started(settings(segment_steps=1, per_collector=1, minibatches=1, max_batch_size=1 << 24), units)
    control = ControlConfig(policy="follow", hysteresis=hysteresis, max_batch_size=1 << 24)
    config = RunConfig(batch=config.batch, rollout=config.rollout, learner=config.learner, control=control)
    centre = 2.0**log_centre
    low, high = centre / math.sqrt(hysteresis), centre * math.sqrt(hysteresis)
    wanted = [min(max(round(centre * hysteresis**p), math.ceil(low)), math.floor(high)) for p in phases]
    sizes = [config.batch.size, *walk(config, wanted)]
    moves = [b - a for a, b in itertools.pairwise(sizes) if a != b]
    assert not (min(moves, default=0) < 0 < max(moves, default=0))
    assert len(moves) <= 2 + abs(math.log2(sizes[0] / centre))


def test_without_hysteresis_the_same_noise_chatters():
    """Negative control of the test above."""
    jumping = [1000, 1200] * 10
    sizes = walk(settings(segment_steps=1, per_collector=1, minibatches=1, size=1000, hysteresis=1.0), jumping)
    assert len(set(sizes)) == 2 and sum(a != b for a, b in itertools.pairwise(sizes)) == 19
    assert len(set(walk(settings(segment_steps=1, per_collector=1, minibatches=1, size=1000), jumping))) == 1
