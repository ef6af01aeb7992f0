"""A killed run that goes on is the unbroken one to the bit, on every kind of world; what differs is named."""

import dataclasses
import json
import os
import time
import types

import numpy as np
import pytest
from tiny import BANDIT, CARTPOLE, CHAIN, PONG, config

from rl_gns.cli import main
from rl_gns.config import ConfigError, config_id
from rl_gns.learn.learner import Learner
from rl_gns.rollout.collector import Collector
from rl_gns.rundir import RunDir
from rl_gns.study import verify_resume as verify_resume_
from rl_gns.study.build import checked
from rl_gns.study.notice import Terminated
from rl_gns.study.train import train
from rl_gns.study.verify_resume import first_unequal, verify_resume

QUADRATIC = {
    "env": "Quadratic",
    "batch": {"size": 128},
    "learner": {"optimizer": "sgd", "learning_rate": 0.05, "max_grad_norm": 0.0},
}
LEFT_SECONDS = 3
EXACT = {"checkpoint": {"exact_resume": True}}
WORLDS = {
    "CartPole": (CARTPOLE, {}, 1500),
    "Bandit": (BANDIT, {}, 20_000),
    "EpisodicBandit": (BANDIT, {"env": "EpisodicBandit"}, 20_000),
    "EchoedBandit": (BANDIT, {"env": "EchoedBandit"}, 20_000),
    "Chain": (CHAIN, {}, 100_000),
    "Quadratic": (BANDIT, QUADRATIC, 1024),
    "Pong": (PONG, EXACT, 700),
}


@pytest.mark.parametrize("world", WORLDS)
def test_killed_and_gone_on_is_bit_identical(tmp_path, world):
    base, changes, env_steps = WORLDS[world]
    verdict = verify_resume(config(base, changes), env_steps, 3 * env_steps, tmp_path)
    assert verdict.identical and verdict.first_difference is None
    assert verdict.killed_at_env_steps > verdict.checkpoint_env_steps, "what was recorded behind it was played again"
    assert verdict.world_saved == (world != "Pong")


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_and_gone_on_with_actors_is_bit_identical(tmp_path):
    """Columns are seeded anew at each checkpoint inside two actors, which are lost with their driver."""
    settings = dataclasses.replace(config(PONG, EXACT), actors=2)
    verdict = verify_resume(settings, 700, 2100, tmp_path)
    assert verdict.identical and verdict.first_difference is None and not verdict.world_saved
    assert verdict.killed_at_env_steps > verdict.checkpoint_env_steps
    records = list(RunDir(tmp_path / "broken").records())
    assert records[-1]["reseeded_columns"] > 0 and all(r["faults"] == [] for r in records)


def failing(monkeypatch, tmp_path, line):
    """What runs in the process that is to be killed begins with that line."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(line)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'python'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


CRASHES = """
import os, sys
saved = []
def hook(event, arguments):
    if saved:
        os.write(2, b"too hot")
        os._exit(3)
    if event == "os.rename" and "/broken/checkpoints/0" in str(arguments[1]):
        saved.append(True)
sys.addaudithook(hook)
"""


def test_a_run_that_crashes_behind_its_checkpoint_was_not_killed(tmp_path, monkeypatch):
    failing(monkeypatch, tmp_path, CRASHES)
    with pytest.raises(RuntimeError, match=r"failed by itself \(3\): .*too hot"):
        verify_resume(config(CARTPOLE), 1500, 3000, tmp_path / "both")
    assert RunDir(tmp_path / "both" / "broken").checkpoints()


def test_a_run_that_others_kill_before_its_first_checkpoint_is_told(tmp_path, monkeypatch):
    """As a machine without memory does."""
    failing(monkeypatch, tmp_path, "import os; os.write(2, b'too large'); os.kill(os.getpid(), 9)")
    with pytest.raises(RuntimeError, match=r"failed by itself \(-9\): too large"):
        verify_resume(config(CARTPOLE), 1500, 3000, tmp_path / "both")


def test_an_interrupted_look_leaves_no_run_behind(tmp_path, monkeypatch):
    """SIGTERM while the run that is to be killed has not come far enough: nobody waits for its end."""
    failing(monkeypatch, tmp_path, f"import time; time.sleep({10 * LEFT_SECONDS})")

    def terminated(seconds):
        raise Terminated

    monkeypatch.setattr(verify_resume_, "time", types.SimpleNamespace(sleep=terminated))
    start = time.monotonic()
    with pytest.raises(Terminated):
        verify_resume_._train_and_kill(config(CARTPOLE), tmp_path / "broken")
    assert time.monotonic() - start < LEFT_SECONDS


def test_a_run_that_says_much_is_killed_all_the_same(tmp_path, monkeypatch):
    failing(monkeypatch, tmp_path, "import os; os.write(2, b'warned again\\n' * 100_000)")
    assert verify_resume(config(CARTPOLE), 1500, 4500, tmp_path / "both").identical


def without_random_state(monkeypatch):
    kept = Learner.restore

    def forgetful(self, state):
        kept(self, {**state, "rng": np.random.default_rng(1).bit_generator.state})

    monkeypatch.setattr(Learner, "restore", forgetful)


def test_a_dropped_random_state_is_found_and_named(tmp_path, monkeypatch):
    """The negative control: only the learner's shuffling starts anew when the killed run goes on."""
    without_random_state(monkeypatch)
    verdict = verify_resume(config(CARTPOLE), 1500, 4500, tmp_path)
    assert not verdict.identical and verdict.first_difference.startswith("records.")


def test_a_collectors_dropped_stream_is_found_and_named(tmp_path, monkeypatch):
    """Another negative control: only what the first collector draws its actions from starts anew."""
    kept = Collector.restore

    def forgetful(self, state):
        kept(self, {**state, "rng": np.random.default_rng(1).bit_generator.state} if self.collector_id == 0 else state)

    monkeypatch.setattr(Collector, "restore", forgetful)
    verdict = verify_resume(config(CARTPOLE), 1500, 4500, tmp_path)
    assert not verdict.identical and verdict.first_difference.startswith("records.")


def test_a_world_that_cannot_be_saved_is_found_without_exact_resume(tmp_path, capsys):
    verdict = verify_resume(config(PONG), 700, 2100, tmp_path)
    assert not verdict.identical and not verdict.exact_resume and not verdict.world_saved
    assert "reseeded_columns" in verdict.first_difference or "env_steps" in verdict.first_difference


def test_cut_episodes_are_counted_and_no_return_holds_them(tmp_path):
    """Columns are seeded anew after every rollout of 16 env steps, which no episode (40) outlives."""
    often = {"total_env_steps": 1500, "checkpoint": {"exact_resume": True, "every_env_steps": 256}}
    train(config(PONG, often), tmp_path / "cut")
    records = list(RunDir(tmp_path / "cut").records())
    assert [r["reseeded_columns"] for r in records] == [16 * k for k in range(len(records))]
    assert [r["generation"] for r in records] == list(range(len(records)))
    assert records[-1]["episodes"] == 0, "none of 16 env steps was a whole one"


def test_exact_resume_is_another_experiment_and_its_interval_part_of_it():
    plain, exact = config(PONG), config(PONG, EXACT)
    other = config(PONG, {"checkpoint": {"exact_resume": True, "every_env_steps": 300}})
    assert len({config_id(each) for each in (plain, exact, other)}) == 3
    assert config_id(plain) == config_id(config(PONG, {"checkpoint": {"every_env_steps": 300}}))


def test_too_many_checkpoints_for_the_seeds_are_refused():
    settings = config(PONG, {"checkpoint": {"exact_resume": True, "every_env_steps": 1000}})
    with pytest.raises(ConfigError, match="254 times at most; the least is 3922"):
        checked(dataclasses.replace(settings, total_env_steps=1_000_000))
    assert checked(often(3922)) and checked(often(1000, 254_000))


def often(every, total=1_000_000, keep=()):
    table = {"exact_resume": True, "every_env_steps": every, "keep": list(keep)}
    return dataclasses.replace(config(PONG, {"checkpoint": table}), total_env_steps=total)


def test_checkpoints_that_are_kept_count_too():
    """Those that are no multiples: each has the columns seeded anew as well."""
    full = often(1000, 254_000, [1000, 5000, 254_500])
    assert checked(full), "multiples, and one behind the end"
    with pytest.raises(ConfigError, match=r"254 checkpoints beside 4 that are kept, .* the least is 1012"):
        checked(often(1000, 254_000, [1, 1500, 1501, 77_777, 77_777]))
    assert checked(often(1012, 254_000, [1, 1500, 1501, 77_777]))
    with pytest.raises(ConfigError, match=r"--checkpoint.keep: 300 checkpoints, and exact-resume has seeds for 254"):
        checked(often(300_000, 254_000, range(1, 301)))


def test_the_verb_tells_and_keeps(tmp_path, capsys):
    flags = ["verify-resume", "--first", "1000", "--then", "3000", "--run-dir", str(tmp_path / "kept"), "--json"]
    assert main(flags) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["identical"] and told["env_steps"] >= 4000 and (tmp_path / "kept" / "broken" / "result.json").exists()
    assert main(flags) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["verify-resume", "--then", "0"]) == 2
    assert "the least is 1" in capsys.readouterr().err
    assert main(["verify-resume", "--actors", "1", "--rollout.inference-actors", "1"]) == 2
    assert "no two runs are the same to the bit" in capsys.readouterr().err


A = {"x": [1, {"y": np.array([1.0, 2.0])}], "z": None}


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"x": [1, {"y": np.array([1.0, 2.5])}], "z": None}, "k.x.1.y[1]: "),
        ({"x": [1, {"y": np.array([1.0, 2.0], np.float32)}], "z": None}, "k.x.1.y: float64"),
        ({"x": [1.0, {"y": np.array([1.0, 2.0])}], "z": None}, "k.x.0: 1 unbroken, 1.0 broken"),
        ({"x": [1], "z": None}, "k.x.1: only in the unbroken run"),
        ({"x": [1, {"y": np.array([1.0, 2.0])}], "z": None, "w": 0}, "k.w: only in the broken run"),
        ({"x": [1, {"y": np.array([1.0, 2.0])}], "z": 0}, "k.z: None unbroken, 0 broken"),
    ],
)
def test_the_first_difference_is_named(other, key):
    assert first_unequal(A, other, "k").startswith(key)
    assert first_unequal(other, other, "k") is None


def test_signs_of_zero_and_payloads_count():
    assert first_unequal(np.array([0.0]), np.array([-0.0]), "k").startswith("k")
    assert first_unequal(np.array([np.nan]), np.array([np.nan]), "k") is None
