"""Inference actors: the same draws and logits but for rounding, one version a block, and none lost with a process."""

import itertools
import os
import re
import signal
import threading

import numpy as np
import pytest
import torch
from tiny import CARTPOLE, PONG, config, finished, replaced

from rl_gns.config import ConfigError, RunConfig, config_id
from rl_gns.config_rules import validate
from rl_gns.distributed import session
from rl_gns.rollout.collector import Collector, sample
from rl_gns.rollout.policy import ActingPolicy, policy_without_world
from rl_gns.study.build import make_learner
from rl_gns.trainer import Trainer

ROUNDING = 1e-5
"""Of logits and values in fp32."""
SERVED = {"actors": 1, "rollout": {"inference_actors": 1}, "learner": {"precision": "fp32"}}
SETTINGS = config(CARTPOLE, SERVED)
PIXELS = config(PONG, SERVED)
GENERATION = itertools.count(1)


@pytest.fixture(scope="module")
def ray_session():
    with session.start(4, 200_000_000) as started:
        yield started


@pytest.fixture(scope="module")
def shared(ray_session):
    from rl_gns.distributed.rollout_actors import RaySource

    made = RaySource(SETTINGS, 1)
    yield made
    made.close()


@pytest.fixture
def source(shared):
    """One rollout actor, served by one inference actor; fresh collectors."""
    shared.restore(None, next(GENERATION))
    return shared


def weights(settings, scale=1.0):
    """A policy with preferences, unlike a fresh one."""
    made = make_learner(settings).weights()
    rng = np.random.default_rng(3)
    made["policy_head.bias"] = (scale * rng.normal(size=made["policy_head.bias"].shape)).astype(np.float32)
    return made


def loaded(settings, device, scale=1.0):
    policy = policy_without_world(settings, device)
    policy.load(weights(settings, scale))
    return policy


class Recording(ActingPolicy):
    """Notes each step's logits and the state of the stream that the next draws come from."""

    def infer(self, observation):
        logits, value = super().infer(observation)
        self.steps.append((logits, value, self.collector._rng.bit_generator.state))
        return logits, value


def replay(block, settings, published, earlier=()):
    """(collector's own block, its steps), made in this process."""
    host = Collector(settings, block.collector_id, block.generation)
    host._policy = Recording(settings, host.world)
    host._policy.collector, host._policy.steps = host, []
    for version, (each, steps) in enumerate([*earlier, (published, len(block.action))]):
        host.load(each, version)
        host._policy.steps.clear()
        mine = host.collect(steps)
    return mine, host._policy.steps


def margin(logits, state, row):
    """How far the uniform draw of a row lies from the nearest boundary between two actions, as a probability."""
    stream = np.random.default_rng()
    stream.bit_generator.state = state
    draw = stream.random(len(logits), dtype=np.float32)[row]
    weight = np.exp(logits[row].astype(np.float64) - logits[row].max())
    return float(np.abs(draw - (weight.cumsum() / weight.sum())[:-1]).min())


def held_against_local(block, settings, published, tolerance=ROUNDING, earlier=()):
    """Rows of the block whose action differs from the local one's, each the first of its column and a near-tie.

    A change of logits by at most d moves a boundary by at most d / 2: p (1 - p) is at most a quarter, and what lies
    below and above it can differ by 2 d. A column that differs once is another one from there on.
    """
    mine, steps = replay(block, settings, published, earlier)
    differing = 0
    for n in range(block.action.shape[1]):
        apart = np.flatnonzero(block.action[:, n] != mine.action[:, n])
        end = int(apart[0]) if len(apart) else len(block.action)
        for name, slack in (("logp", 2 * tolerance), ("value", tolerance)):
            assert np.abs(getattr(block, name)[:end, n] - getattr(mine, name)[:end, n]).max(initial=0) <= slack
        same = end + block.frames.shape[0] - len(block.action)
        assert np.array_equal(block.frames[:same, n], mine.frames[:same, n])
        if len(apart):
            logits, _, state = steps[end]
            assert margin(logits, state, n) <= tolerance / 2, "no near-tie"
            differing += 1
    return differing


def inference_pid(made):
    return int(re.search(r"pid (\d+)", made._inference._where[0])[1])


@pytest.mark.cluster
def test_blocks_of_a_vector_world_are_those_of_a_local_policy_under_each_version(source):
    held_under_two_versions(source, SETTINGS)


@pytest.mark.cluster
def test_blocks_of_pong_are_those_of_a_local_policy_under_each_version(ray_session):
    from rl_gns.distributed.rollout_actors import RaySource

    made = RaySource(PIXELS, 1)
    held_under_two_versions(made, PIXELS)
    made.close()


def held_under_two_versions(source, settings):
    first, second = weights(settings), weights(settings, -1.0)
    source.publish(first, 0)
    blocks = source.collect(4, 16).blocks
    assert sum(held_against_local(block, settings, first) for block in blocks) <= 1
    source.publish(second, 1)
    blocks = source.collect(4, 16).blocks
    assert [block.policy_version for block in blocks] == [1] * 4
    assert sum(held_against_local(block, settings, second, earlier=[(first, 16)]) for block in blocks) <= 1
    with pytest.raises(AssertionError):  # the control: under the other version's weights it is another block
        held_against_local(blocks[0], settings, first, earlier=[(first, 16)])


@pytest.mark.cluster
def test_the_answers_to_a_batch_are_within_rounding_of_each_alone(ray_session):
    """Real frames, asked at once: more than one a forward pass, by the count of passes."""
    import ray

    from rl_gns.distributed.inference_actors import InferenceHost

    class Counting(InferenceHost):
        def _answer(self, batch):
            self.passes = [*getattr(self, "passes", []), len(batch)]
            super()._answer(batch)

        async def counted(self):
            return self.passes

    actor, stamp = ray.remote(Counting).options(num_cpus=1).remote(PIXELS, "cpu"), (0, "a")
    ray.get(actor.load.remote(weights(PIXELS), stamp))
    local = loaded(PIXELS, "cpu")
    observations = [Collector(PIXELS, c)._observation for c in range(6)]
    answers = ray.get([actor.infer.remote(each, stamp) for each in observations])
    for observation, answer in zip(observations, answers, strict=True):
        logits, value = local.infer(observation)
        assert answer.stamp == stamp and answer.logits.dtype == answer.value.dtype == np.float32
        assert np.abs(answer.logits - logits).max() <= ROUNDING and np.abs(answer.value - value).max() <= ROUNDING
    passes = ray.get(actor.counted.remote())
    ray.kill(actor)
    assert sum(passes) == 6 and max(passes) > 1


@pytest.mark.cluster
def test_a_stamp_that_is_not_held_is_never_answered(ray_session):
    """Requests of two versions that wait together, and a load between them."""
    import ray

    from rl_gns.distributed.inference_actors import InferenceActor

    actor = InferenceActor.remote(SETTINGS, "cpu")
    observation = Collector(SETTINGS, 0)._observation
    old, new = (0, "a"), (1, "b")
    assert ray.get(actor.infer.remote(observation, old)) is None
    policies = {old: loaded(SETTINGS, "cpu"), new: loaded(SETTINGS, "cpu", -1.0)}
    calls = []
    for stamp, scale in ((old, 1.0), (new, -1.0), (old, 1.0)):
        calls += [(each, actor.infer.remote(observation, each)) for each in (old, new) * 10]
        calls.append((None, actor.load.remote(weights(SETTINGS, scale), stamp)))
        calls += [(each, actor.infer.remote(observation, each)) for each in (old, new) * 10]
    answers = [(stamp, ray.get(call)) for stamp, call in calls if stamp is not None]
    ray.kill(actor)
    given = [(stamp, answer) for stamp, answer in answers if answer is not None]
    assert {stamp for stamp, _ in given} == {old, new} and len(given) < len(answers)
    for stamp, answer in given:
        assert answer.stamp == stamp
        assert np.abs(answer.logits - policies[stamp].infer(observation)[0]).max() <= ROUNDING


@pytest.mark.cluster
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGSTOP, id="stopped", marks=pytest.mark.slow),
    ],
)
def test_an_inference_actor_that_is_gone_comes_back_with_its_weights(source, number, monkeypatch):
    from rl_gns.distributed import inference_actors

    monkeypatch.setattr(inference_actors, "SILENT_SECONDS", 8.0)
    published = weights(SETTINGS)
    source.publish(published, 0)
    (one,) = source.collect(1, 1).blocks
    before = inference_pid(source)
    struck = threading.Timer(0.3, os.kill, (before, number))
    struck.start()
    found = source.collect(4, 600)
    struck.join()
    (fault,) = found.faults
    assert fault.what == "died" and f"pid {before}" in fault.reason and inference_pid(source) != before
    assert fault.collectors == [] and [block.generation for block in found.blocks] == [one.generation] * 4
    for block in found.blocks:
        held_against_local(block, SETTINGS, published, earlier=[(published, 1)] if block.collector_id == 0 else ())
    assert source.collect(1, 1).faults == ()


@pytest.mark.cluster
def test_weights_that_diverged_end_the_run_in_the_usual_line(ray_session):
    from rl_gns.distributed.rollout_actors import RaySource

    source = RaySource(SETTINGS, 1)
    source.publish(weights(SETTINGS, float("nan")), 0)
    with pytest.raises(Exception) as caught:
        source.collect(4, 16)
    source.close()
    assert session.reason(caught.value).startswith("FloatingPointError: the policy's logits or values are not finite")


@pytest.mark.cluster
def test_a_run_trains(source):
    source.restore(None, 0)
    run = Trainer(SETTINGS, make_learner(SETTINGS), source)
    records = list(run.run())
    _, local = finished(config(CARTPOLE, {"learner": {"precision": "fp32"}}))
    assert [r.env_steps for r in records][:2] == [r.env_steps for r in local][:2]
    assert all(r.replaced_actors == 0 for r in records) and records[-1].update == local[-1].update
    assert records[0].value_loss == pytest.approx(local[0].value_loss, rel=1e-3)


def test_the_same_draws_give_other_actions_at_near_ties_alone():
    """Logits that differ by up to 1e-3, two million draws: every action that differs is a near-tie, and some do.

    About draws x (A - 1) x E|shift of a boundary| of them are expected: 2e6 x 3 x 5e-5 or so.
    """
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2_000_000, 4)).astype(np.float32)
    apart = logits + rng.uniform(-1e-3, 1e-3, logits.shape).astype(np.float32)
    one, other = (sample(each, np.random.default_rng(1))[0] for each in (logits, apart))
    state, rows = np.random.default_rng(1).bit_generator.state, np.flatnonzero(one != other)
    assert 50 < len(rows) < 2000
    draws = np.random.default_rng(1).random(len(logits), dtype=np.float32)
    weight = np.exp(logits[rows].astype(np.float64))
    boundaries = (weight.cumsum(axis=1) / weight.sum(axis=1, keepdims=True))[:, :-1]
    margins = np.abs(draws[rows, None] - boundaries).min(axis=1)
    assert margins.max() <= 1e-3 / 2 and margins[0] == pytest.approx(margin(logits, state, rows[0]))
    assert (np.abs(draws[: len(rows), None] - boundaries).min(axis=1) > 1e-3 / 2).mean() > 0.9, "chance is no tie"


def test_inference_actors_need_rollout_actors_and_are_another_experiment():
    with pytest.raises(ConfigError, match="1 have no rollout actors to serve; 0, or --actors 1 or more"):
        validate(replaced(SETTINGS, actors=0))
    assert config_id(SETTINGS) != config_id(config(CARTPOLE, {"learner": {"precision": "fp32"}}))
    assert SETTINGS.actor_cpus == 2 and RunConfig().actor_cpus == 0


@pytest.mark.gpu
def test_a_policy_on_a_gpu_is_within_rounding():
    torch.backends.cudnn.allow_tf32 = False
    observation = np.random.default_rng(0).integers(0, 256, (64, 4, 42, 42), dtype=np.uint8)
    (logits, value), (there, value_there) = (loaded(PIXELS, each).infer(observation) for each in ("cpu", "cuda"))
    assert np.abs(logits - there).max() <= ROUNDING and np.abs(value - value_there).max() <= ROUNDING
