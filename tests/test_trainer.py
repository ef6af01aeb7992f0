"""The loop: same bits twice, probe on or off, wherever the collectors live; and a known noise scale end to end."""

import dataclasses

import numpy as np
import pytest
from tiny import BANDIT, CARTPOLE, PONG, bandit_with_policy, config, fingerprint, finished, numbers, replaced, trainer

import envs
from rl_gns.noise.controller import Observation, decide, initial
from rl_gns.study.build import make_learner
from rl_gns.study.measure import measure

WORLDS = pytest.mark.parametrize("base", [CARTPOLE, PONG], ids=["cartpole", "pong"])


@WORLDS
def test_the_same_seed_twice_gives_the_same_bits(base):
    (first, records), (second, again) = finished(config(base)), finished(config(base))
    assert fingerprint(first.learner) == fingerprint(second.learner)
    assert [numbers(r) for r in records] == [numbers(r) for r in again]
    other, _ = finished(config(base, {"seed": 1}))
    assert fingerprint(other.learner) != fingerprint(first.learner)


@WORLDS
@pytest.mark.parametrize("by", ["transitions", "columns"])
def test_the_probe_is_bitwise_inert(base, by):
    on = config(base, {"batch": {"minibatch_by": by}})
    off = replaced(on, noise=dataclasses.replace(on.noise, every=0))
    (with_probe, records), (without, bare) = finished(on), finished(off)
    assert fingerprint(with_probe.learner) == fingerprint(without.learner)
    assert all(r.probe_groups == 8 for r in records) and all(r.probe_groups is None for r in bare)


@WORLDS
def test_interrupted_between_rollouts_and_restored_goes_on_alike_where_the_world_can_be_saved(base):
    settings = config(base)
    whole, records = finished(settings)
    first = trainer(settings)
    loop = first.run()
    start = [next(loop) for _ in range(2)]
    second = trainer(settings)
    second.restore(first.state())
    rest = list(second.run())
    if base is CARTPOLE:
        assert [numbers(r) for r in start + rest] == [numbers(r) for r in records]
        assert fingerprint(second.learner) == fingerprint(whole.learner)
    else:
        assert {r.generation for r in start} == {0} and {r.generation for r in rest} == {1}
        assert rest[0].burn_in_env_steps > 0 and rest[0].update == 2


def test_a_resumed_pong_starts_after_every_generation_that_was_used():
    """One collector had moved on alone, as after a fault."""
    settings = config(PONG)
    first = trainer(settings)
    first._source._generations.advance(2)
    record = next(first.run())
    assert record.generation == 1 and [c.generation for c in first._source._collectors] == [0, 0, 1, 0]
    second = trainer(settings)
    second.restore(first.state())
    assert {r.generation for r in second.run()} == {2}
    assert {c.generation for c in second._source._collectors} == {2}


def test_dropping_the_random_state_is_felt():
    """Negative control of the exact resume."""
    settings = config(CARTPOLE)
    whole, _ = finished(settings)
    first = trainer(settings)
    next(first.run())
    state = first.state()
    state["learner"]["rng"] = np.random.default_rng(99).bit_generator.state
    second = trainer(settings)
    second.restore(state)
    list(second.run())
    assert fingerprint(second.learner) != fingerprint(whole.learner)


def test_the_books_balance():
    run, records = finished(config(CARTPOLE))
    for i, r in enumerate(records):
        assert r.update == i and r.requested_env_steps == r.collected_env_steps == 256
        assert r.used_env_steps + r.masked_env_steps == r.collected_env_steps
        assert r.optimizer_steps == 4 * (i + 1)
        assert r.batch_env_steps == pytest.approx(r.used_env_steps / 2)
    assert records[-1].env_steps == sum(r.used_env_steps for r in records) == run.env_steps
    assert records[0].burn_in_env_steps > 0 and all(r.burn_in_env_steps == 0 for r in records[1:])
    assert any(r.masked_env_steps for r in records)


def test_a2c_is_the_same_code():
    """epochs = minibatches = 1, no clipping, RMSProp: one step a rollout, and the total's moments are those of the
    step's own gradient, |g|^2 = sum of the Gram matrix with the groups' shares."""
    settings = config(
        CARTPOLE,
        {
            "batch": {"size": 256, "minibatches": 1, "epochs": 1},
            "learner": {"optimizer": "rmsprop", "clip_range": 0.0, "max_grad_norm": 0.0},
        },
    )
    _, records = finished(settings)
    assert records[-1].optimizer_steps == len(records) and all(r.clip_fraction == 0 for r in records)
    again = trainer(settings)
    source = again._source
    source.publish(again.learner.weights(), 0)
    batch = again.learner.prepare(source.collect(4, 16).blocks)
    moments = again.learner.probe(batch)
    share = moments.env_steps / moments.env_steps.sum()
    norm = again.learner.update(batch, 1e-3).grad_norm
    assert norm**2 == pytest.approx(share @ moments.gram["total"] @ share, rel=1e-3)


def test_a_linear_schedule_falls_to_zero_and_a_constant_one_does_not():
    constant = config(CARTPOLE)
    linear = config(CARTPOLE, {"learner": {"schedule": "linear"}})
    half = Observation(None, 750, 0)
    assert decide(initial(constant), half)[2] == 1e-3
    assert decide(initial(linear), half)[2] == pytest.approx(5e-4)
    assert decide(initial(linear), Observation(None, 5000, 0))[2] == 0


@pytest.mark.parametrize("world", ["Bandit", "EpisodicBandit"])
@pytest.mark.parametrize(("logits", "value"), [((0.0, 0.0), 0.0), ((0.5, -0.5), 0.5)])
def test_a_bandits_noise_scale_through_the_whole_pipeline(world, logits, value):
    """Collector, learner, probe, moments and scale against the closed form. EpisodicBandit masks rows whose place
    depends on the actions. A 99.9 % interval: false-alarm rate at most 0.4 % over the four cases, fixed seed. The
    gradient is one-dimensional (effective rank 1), so the trace's standard error is sqrt(2 / (15 x 290)) = 2 %."""
    settings = config(BANDIT, {"env": world, "noise": {"confidence": 0.999}})
    found = measure(settings, 150_000, precision=0.0, state=bandit_with_policy(settings, logits, value)).noise["policy"]
    signal_sq, noise_trace = envs.bandits.true_noise_scale(np.array(logits), value)
    assert found.noise_trace == pytest.approx(noise_trace, rel=0.08)
    assert found.signal_sq == pytest.approx(signal_sq, rel=0.2)
    assert found.resolved and found.low < noise_trace / signal_sq < found.high
    assert found.high / found.low < 6, "not met vacuously"


def test_a_bandits_noise_scale_pooled_over_training():
    """At a learning rate of 1e-12 the policy stands still, so the pool must find the closed form too; fixed seed,
    99.9 % interval."""
    settings = config(BANDIT, {"learner": {"learning_rate": 1e-12}, "noise": {"confidence": 0.999}})
    _, records = finished(settings)
    signal_sq, noise_trace = envs.bandits.true_noise_scale(np.zeros(2), 0.0)
    found = records[-1].noise["policy"]
    assert found.n_rollouts == len(records) and found.resolved
    assert found.low < noise_trace / signal_sq < found.high
    assert found.noise_trace == pytest.approx(noise_trace, rel=0.05)
    across = records[-1].noise_across["policy"]
    assert across.resolved and across.low < noise_trace / signal_sq < across.high
    assert across.pooling == "across" and across.first_version == 0 and across.last_version == len(records) - 1
    assert across.coherence_low < 1 < across.coherence_high, "the gradient stands still"


def test_gradients_are_averaged_across_rollouts_only_where_asked():
    _, records = finished(config(CARTPOLE, {"noise": {"every": 2}}))
    assert records[0].noise_across is None, "the first rollout scales its own advantages: coupled"
    assert all(set(r.noise_across) == {"policy", "rest", "total"} for r in records[2:])
    assert records[2].noise_across == records[3].noise_across != records[4].noise_across
    (off, bare), (on, _) = (finished(config(CARTPOLE, {"noise": {"across_env_steps": n}})) for n in (0, 10**6))
    assert all(r.noise_across is None for r in bare) and off.state()["across"] is None
    assert fingerprint(on.learner) == fingerprint(off.learner)


def test_a_coupled_normaliser_is_never_pooled():
    _, records = finished(config(CARTPOLE, {"learner": {"normaliser": "rollout"}}))
    assert all(r.noise is None for r in records) and all(r.probe_signal_sq for r in records)
    _, ewma = finished(config(CARTPOLE))
    assert ewma[0].noise is None and ewma[1].noise["policy"].n_rollouts == 1, "the first rollout scales itself"


def test_fewer_than_eight_groups_give_a_number_and_the_reason():
    _, records = finished(config(CARTPOLE, {"noise": {"groups": 4}}))
    scale = records[-1].noise["policy"]
    assert scale.n_groups == 4 and not scale.resolved and "at least 8" in scale.reason


def test_make_learner_initialises_by_seed():
    a, b, other = (make_learner(config(CARTPOLE, {"seed": s})) for s in (0, 0, 1))
    assert fingerprint(a) == fingerprint(b) != fingerprint(other)


def test_ewma_statistics_never_hold_the_rollout_that_they_scale():
    run = trainer(config(CARTPOLE))
    source, learner = run._source, run.learner
    source.publish(learner.weights(), 0)
    first, second = (learner.prepare(source.collect(4, 16).blocks) for _ in range(2))
    assert first.normaliser == second.normaliser == "rollout", "nothing is known before the first update"
    learner.update(second, 1e-3)
    third = learner.prepare(source.collect(4, 16).blocks) if source.publish(learner.weights(), 1) is None else None
    advantages = second.advantages().astype(np.float64)
    assert third.normaliser == "ewma"
    assert (third.mean, third.std) == pytest.approx((advantages.mean(), advantages.std()))


def test_burn_in_is_played_under_the_policy_and_never_counts():
    settings = config(CARTPOLE, {"rollout": {"burn_in_env_steps": 30}})
    _, records = finished(settings)
    _, without = finished(config(CARTPOLE))
    assert records[0].burn_in_env_steps == without[0].burn_in_env_steps + 30 * 16
    assert records[0].used_env_steps <= 256 and records[0].env_steps == records[0].used_env_steps
    assert all(r.burn_in_env_steps == 0 for r in records[1:])


def test_a_measurement_burns_in_and_uses_columns_of_its_own():
    measured = measure(config(CARTPOLE), 1000)
    assert measured.generation == 256 and measured.burn_in_env_steps > 1024 * 16
