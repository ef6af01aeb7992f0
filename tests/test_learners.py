"""Runs on several learner actors: the numbers of one, exact resume, a killed learner, and what is refused."""

import dataclasses
import json
import os
import re
import signal
import sys
import threading
import time

import numpy as np
import pytest
from tiny import CARTPOLE, config, fingerprint, finished, numbers

from rl_gns.cli import main
from rl_gns.config import ConfigError, RunConfig, config_id
from rl_gns.config_file import from_table
from rl_gns.distributed import session
from rl_gns.rundir import RunDir
from rl_gns.study.build import checked, learners, make_learner, object_store_bytes, source
from rl_gns.study.sitting import BadCheckpoint, sitting
from rl_gns.trainer import Trainer

SHARED = {**CARTPOLE, "learners": 2, "noise": {"every": 1, "groups": 8, "across_env_steps": 0}}
on_cluster = pytest.mark.cluster


def shared(changes=None):
    return checked(from_table(changes or {}, from_table(SHARED, RunConfig())), several_learners=True)


@pytest.fixture(scope="module")
def ray_session():
    with session.start(3, object_store_bytes(config(CARTPOLE))) as started:
        yield started


def on_learners(settings, state=None, updates=None):
    """(trainer after so many updates or the whole run, its records, its state)."""
    with learners(settings, make_learner(settings)) as group, source(settings) as segments:
        run = Trainer(settings, group, segments)
        if state is not None:
            run.restore(state)
        records = []
        for record in run.run():
            records.append(record)
            if len(records) == updates:
                break
        return records, run.state(), fingerprint(group)


def same_noise_scale(here, there):
    """The trace within 1 %; the signal, a difference, within 1 % of what it is made of: |g|^2 of a rollout's mean,
    |G|^2 + tr(Sigma) / N. So 1 / B_simple within 1 % and 1 % of 1 / N more."""
    each = abs(there.signal_sq) + there.noise_trace / (there.env_steps / there.n_rollouts)
    assert here.noise_trace == pytest.approx(there.noise_trace, rel=1e-2)
    assert here.signal_sq == pytest.approx(there.signal_sq, abs=1e-2 * each)
    assert (here.b_simple is None) == (there.b_simple is None)
    if here.b_simple:
        assert 1 / here.b_simple == pytest.approx(1 / there.b_simple, abs=2.1e-2 * each / there.noise_trace)


@on_cluster
def test_two_learners_train_as_one_and_resume_to_the_bit(ray_session):
    """Over six rollouts of four optimizer steps the two differ by rounding alone; a rollout actor feeds them."""
    settings = shared()
    one, expected = finished(config(CARTPOLE, {"noise": SHARED["noise"]}))
    records, state, whole = on_learners(dataclasses.replace(settings, actors=1))
    for name, weights in one.learner.weights().items():
        np.testing.assert_allclose(state["learner"]["network"][name], weights, rtol=0, atol=1e-5)
    assert len(records) == len(expected) and state["learner"]["version"] == one.learner.version
    for here, there in zip(records, expected, strict=True):
        assert here.env_steps == there.env_steps and here.optimizer_steps == there.optimizer_steps
        assert here.probe_noise_trace == pytest.approx(there.probe_noise_trace, rel=1e-2)
        for part in here.noise or {}:
            same_noise_scale(here.noise[part], there.noise[part])
            assert here.noise[part].key_id == there.noise[part].key_id
        assert (here.noise_control is None) == (there.noise_control is None)
        if here.noise_control:
            assert here.noise_control.signal_sq == pytest.approx(there.noise_control.signal_sq, rel=1e-9)
    assert here.noise_control is not None
    first, saved, _ = on_learners(settings, updates=2)
    rest, again, fresh = on_learners(settings, state=saved)
    assert fresh == whole and [numbers(r) for r in first + rest] == [numbers(r) for r in records]
    assert again["learner"]["rng"] == state["learner"]["rng"]


@on_cluster
@pytest.mark.slow
def test_a_killed_learner_ends_the_run_in_one_line_and_the_command_goes_on(tmp_path, capsys, ray_session):
    """kill -9 of one rank while the other waits for it in a sum of gradients."""
    from rl_gns.distributed import learner_actors

    path = tmp_path / "run"
    command = ["train", "--config", "cartpole", "--learners", "2", "--noise.across-env-steps", "0", "--learner.threads"]
    command += ["1", "--checkpoint.every-env-steps", "2000", "--json", "--run-dir", str(path), "--total-env-steps"]
    seen, started = [], learner_actors.LearnerGroup._start

    def start(self, *given):
        started(self, *given)
        seen.extend(self._where)

    def kill():
        while not RunDir(path).checkpoints():
            time.sleep(0.01)
        os.kill(int(re.search(r"pid (\d+)", seen[1])[1]), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner_actors.LearnerGroup, "_start", start)
        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        before = time.monotonic()
        assert main([*command, "10000000"]) == 1
        killer.join()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rl-gns: ")]
    assert len(said) == 1 and "learner 1 of 2 (pid" in said[0] and "died" in said[0]
    assert "the same command goes on" in said[0] and time.monotonic() - before < 120
    reached = list(RunDir(path).records())[-1]["env_steps"]
    assert main([*command, str(reached + 3000)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["env_steps"] >= reached + 3000
    assert [r["update"] for r in RunDir(path).records()] == list(range(result["updates"]))


@on_cluster
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stopped", "said"),
    [
        (0, r"learner 0 of 2 \(pid \d+ on .*\) gave no answer in 2\d s; the same command goes on"),
        (1, r"learner 0 of 2 .*failed: .*[Tt]imed out.*; learner 1 of 2 \(pid \d+ on .*\) gave no answer; the same"),
    ],
)
def test_a_learner_that_stands_still_ends_the_run_in_one_line(ray_session, monkeypatch, stopped, said):
    """SIGSTOP of rank 0 before it alone is asked for its weights, of rank 1 before both compute."""
    from rl_gns.distributed.learner_actors import LearnersFail
    from rl_gns.learn import ranks

    monkeypatch.setattr(ranks, "STALL_SECONDS", 20.0)
    settings = shared({"batch": {**SHARED["batch"], "size": 128}})
    with learners(settings, make_learner(settings)) as group, source(settings) as segments:
        segments.publish(group.weights(), group.version)
        blocks = segments.collect(settings.collectors(128), settings.batch.segment_steps).blocks
        pid = int(re.search(r"pid (\d+)", group._where[stopped])[1])
        os.kill(pid, signal.SIGSTOP)
        before = time.monotonic()
        try:
            with pytest.raises(LearnersFail, match=said):
                group.prepare(blocks) if stopped else group.weights()
        finally:
            os.kill(pid, signal.SIGKILL)
        assert 15 < time.monotonic() - before < 120


class Slow:
    """A learner whose process takes its time to start."""

    def __init__(self, *given):
        time.sleep(600)

    def where(self):
        return "", 0


@on_cluster
def test_learners_that_do_not_start_are_given_up(ray_session, monkeypatch):
    import ray

    from rl_gns.distributed import learner_actors

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
    monkeypatch.setattr(learner_actors, "PLACE_SECONDS", 5.0)
    monkeypatch.setattr(learner_actors, "RankActor", ray.remote(Slow))
    with pytest.raises(learner_actors.LearnersFail, match="learner 0 of 2 and learner 1 of 2 gave no answer in 5 s"):
        on_learners(shared())


@on_cluster
def test_a_learner_that_is_silent_once_another_has_answered_is_given_up(ray_session, monkeypatch):
    """As one that stands still after the ranks have met for the last time in an update."""
    from rl_gns.distributed.learner_actors import LearnersFail

    settings = shared()
    with learners(settings, make_learner(settings)) as group:
        monkeypatch.setattr(group, "_stall_seconds", 5.0)
        group._actors[1].__ray_call__.remote(lambda host: time.sleep(60))
        with pytest.raises(LearnersFail, match=r"learner 1 of 2 \(pid \d+ on .*\) gave no answer in 5 s; the same"):
            group._all("bad_rows")


@on_cluster
def test_weights_that_diverge_end_the_run_as_with_one_learner(ray_session):
    from rl_gns.learn.learner import NonFiniteGradient

    diverging = shared({"learner": {**SHARED["learner"], "learning_rate": 1e25, "max_skipped_steps": 2}})
    with pytest.raises(NonFiniteGradient, match="learning-rate"):
        on_learners(diverging)


@on_cluster
def test_a_checkpoint_that_the_learners_do_not_understand_is_refused_as_by_one(ray_session):
    settings = shared()
    _, state, _ = on_learners(settings, updates=1)
    del state["learner"]["rng"]
    with pytest.raises(BadCheckpoint, match="KeyError: 'rng'"):
        list(sitting(settings, make_learner(settings), state, []))


@on_cluster
def test_learners_without_room_are_told_so(ray_session, monkeypatch):
    from rl_gns.distributed import learner_actors

    monkeypatch.setattr(learner_actors, "PLACE_SECONDS", 1.0)
    with pytest.raises(learner_actors.LearnersFail, match="no room for 8 learners in 1 s: 3 CPUs"):
        on_learners(shared({"learners": 8}))
    with pytest.raises(ConfigError, match=r"--learners: 2 need a GPU each, and the cluster has 0; .*device cpu"):
        on_learners(shared({"learner": {**SHARED["learner"], "device": "cuda"}}))


@pytest.mark.gpu
@on_cluster
@pytest.mark.slow
def test_two_learner_actors_take_a_gpu_each():
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than 2 GPUs")
    one, _ = finished(config(CARTPOLE, {"noise": SHARED["noise"], "learner": {"device": "cpu"}}))
    with learners(shared(), make_learner(shared())) as group:
        assert group.device == "cuda"
    _, state, _ = on_learners(shared())
    for name, weights in one.learner.weights().items():
        np.testing.assert_allclose(state["learner"]["network"][name], weights, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise": {"across_env_steps": 250_000}}, "--noise.across-env-steps: 250000 .*; the nearest is 0"),
        ({"learners": 3}, "--noise.groups: 8 do not split over 3 learners; 9 do"),
        ({"learners": 0}, "--learners: 0 is too small; the least is 1"),
        (
            {"noise": {"groups": 64}, "batch": {"size": 24}, "rollout": {"columns_per_collector": 3}},
            "--batch.size: 24 makes 3 columns, .* do not split over 2 learners; the nearest that fits is 48",
        ),
        ({"env": "Quadratic"}, "--learners: 2 do not fit the Quadratic"),
    ],
)
def test_what_cannot_be_shared_is_one_line(changes, words):
    with pytest.raises(ConfigError, match=words):
        shared(changes)


def test_the_nearest_batch_size_that_is_named_can_be_shared():
    shared({"noise": {"groups": 64}, "batch": {"size": 48}, "rollout": {"columns_per_collector": 3}})


@pytest.mark.parametrize("verb", ["measure", "bench"])
def test_other_verbs_have_one_learner(verb, capsys):
    flags = ["--config", "cartpole", "--noise.across-env-steps", "0", "--learners", "2"]
    assert main([verb, *flags]) == 2
    assert "--learners: 2 can only train; the nearest for this verb is 1" in capsys.readouterr().err


def test_one_learner_is_the_run_that_it_was():
    """Earlier runs keep their identity; another number of learners is another run."""
    base = config(CARTPOLE)
    assert config_id(base) == config_id(dataclasses.replace(base, learners=1)) == "d7b4af4e"
    assert config_id(base) != config_id(dataclasses.replace(base, learners=2))
