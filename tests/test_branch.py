"""Branches of a checkpoint: what is copied, what is new, what runs again, what is said; on real Chain runs."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console
from test_sweep import Heard
from tiny import CHAIN, config, fingerprint, numbers, replaced, trainer

from rl_gns.config import ConfigError
from rl_gns.lock import take_lock
from rl_gns.rundir import RunDir
from rl_gns.study.branch import EVALUATED_AT, branch
from rl_gns.study.branch_plan import Plan, branch_configs, settled
from rl_gns.study.branch_table import show
from rl_gns.study.forks import find_checkpoint, read_fork
from rl_gns.study.train import Keeper, train

SMALL = {
    **CHAIN,
    "total_env_steps": 3000,
    "evaluation_episodes": 50,
    "batch": {"size": 64, "segment_steps": 8, "minibatches": 2, "epochs": 1},
    "rollout": {"columns_per_collector": 4, "scatter_env_steps": 20, "burn_in_env_steps": 0},
    "learner": {**CHAIN["learner"], "learning_rate": 3e-3, "normaliser": "ewma"},
    "checkpoint": {"every_env_steps": 500, "keep": [1000]},
}
PLAN = Plan(batch_sizes=(32, 256), env_steps=1024, seeds=3, burn_in_env_steps=20)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("branch") / "run"
    train(config(SMALL), path)
    return path


@pytest.fixture(scope="module")
def fork(run):
    return read_fork(run, find_checkpoint(run, 1000))


@pytest.fixture(scope="module")
def branched(run):
    """Branches of the run, what was heard, and what they gave."""
    heard = Heard()
    return branch(run, 1000, PLAN, None, lambda n: heard, cells_at_once=1), heard


def test_a_run_keeps_the_checkpoints_that_it_is_told(run):
    steps = [int(p.name) for p in RunDir(run).checkpoints()]
    assert len(steps) == 3 and 1000 <= steps[0] < 1000 + 128 and steps[1] > 2000


def test_the_nearest_checkpoint_at_or_before_is_found(run):
    steps = [int(p.name) for p in RunDir(run).checkpoints()]
    found = [int(find_checkpoint(run, at).name) for at in (1000, steps[1] - 200, steps[1], 10**9, 0)]
    assert found == [steps[0], steps[0], steps[1], steps[2], steps[2]]
    with pytest.raises(ConfigError, match=rf"--at: 500: .* there are {steps[0]:,}, {steps[1]:,}"):
        find_checkpoint(run, 500)


def same(a, b):
    """Equal, bit for bit, at any depth."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return a == b


def test_every_branch_starts_with_the_learner_of_the_checkpoint(fork, tmp_path):
    """Weights, Adam's moments, advantage statistics, random stream: on disk, and in a learner that was restored."""
    branches = branch_configs(fork, settled(PLAN, fork))
    assert {b.config.batch.size for b in branches} == {32, 64, 256} and len(branches) == 3 * 5
    learner = fork.state["learner"]
    assert learner["optimizer"]["0"]["exp_avg_sq"].any() and learner["statistics"]["weight"] > 0
    for each in branches:
        keeper = Keeper(each.config, tmp_path / each.name, origin=fork.origin(each.config))
        keeper.open()
        state, looks = keeper.resume()
        keeper.close()
        assert looks == [] and same(state["learner"], learner)
        begun = trainer(each.config)
        begun.restore(state)
        assert same(begun.learner.state(), learner) and begun.env_steps == begun.optimizer_steps == 0


def test_a_branch_with_the_runs_own_columns_is_the_runs_continuation(fork):
    """Only columns and seed are new: with them put back the branch takes the bits of the run that went on."""
    own = next(b for b in branch_configs(fork, settled(PLAN, fork)) if b.config.batch.size == 64).config
    going_on, alike = trainer(replaced(fork.config)), trainer(replaced(own, seed=fork.config.seed))
    going_on.restore(fork.state)
    alike.restore(fork.origin(own).state | {"source": fork.state["source"]})
    for _, _, _ in zip(going_on.run(), alike.run(), range(4), strict=False):
        assert fingerprint(going_on.learner) == fingerprint(alike.learner)
    assert same(going_on.learner.state(), alike.learner.state()) and alike.update >= 4


def test_columns_are_new_and_treated_alike(branched, run):
    """No two seeds, and not the run, share a stream; every column had its scattering and its burn-in."""
    result, heard = branched
    records = {
        name: next(RunDir(run / "branches" / str(result.fork["env_steps"]) / name).records()) for name in heard.trained
    }
    for record in records.values():
        each = record["burn_in_env_steps"] / record["columns"]
        assert PLAN.burn_in_env_steps <= each <= PLAN.burn_in_env_steps + 20
    seeds = {RunDir(run / "branches" / str(result.fork["env_steps"]) / name).config().seed for name in heard.trained}
    assert len(seeds) == PLAN.seeds and 0 not in seeds
    assert "new in every branch" in result.columns


def test_branches_take_the_same_env_steps_and_are_scored_at_their_end(branched, run):
    result, heard = branched
    assert result.failed == {} and len(heard.trained) == 15 and len(result.rows) == 4
    for row in [result.reference, *result.rows]:
        rollout = 2 * row.batch_size
        assert abs(row.env_steps - PLAN.env_steps) <= rollout / 2 and len(row.scores) == PLAN.seeds
        assert row.optimizer_steps == pytest.approx(row.env_steps / row.batch_size, rel=0.2)
    assert [(r.rule, r.learning_rate) for r in result.rows if r.batch_size == 256] == [("none", 3e-3), ("sqrt", 6e-3)]
    assert {row.judgement.reason for row in result.rows} == {"3 seeds: at least 5 are needed"}
    assert set(result.verdicts.values()) == {"unresolved"} and not result.bracket.resolved
    assert len(set(result.fork_scores.values())) > 1, "each seed has evaluation columns of its own"


def test_the_directory_says_where_a_branch_comes_from(branched, run):
    result, heard = branched
    path = run / "branches" / str(result.fork["env_steps"])
    saved = json.loads((path / "branch.json").read_text())
    assert saved["fork"]["checkpoint_sha256"] == result.fork["checkpoint_sha256"] and saved["plan"]["tolerance"] == 0.25
    for name in heard.trained:
        (sitting,) = json.loads((path / name / "provenance.json").read_text())
        assert sitting["forked_from"]["checkpoint_sha256"] == result.fork["checkpoint_sha256"]
        *_, last = RunDir(path / name).records()
        assert last["evaluation_return"] is not None
    noise = [r for r in RunDir(run).records() if r["env_steps"] <= result.fork["env_steps"]][-1]["noise"]["policy"]
    assert saved["b_simple"]["low"] == noise["low"]


def test_the_score_is_that_of_the_weights_at_the_end(branched, run):
    from rl_gns.rollout.evaluation import evaluate

    result, _ = branched
    path = run / "branches" / str(result.fork["env_steps"])
    fork = read_fork(run, find_checkpoint(run, 1000))
    for each in branch_configs(fork, result.plan)[:4]:
        *_, last = RunDir(path / each.name).records()
        state = RunDir(path / each.name).load_checkpoint()
        score, _ = evaluate(each.config, state["learner"]["network"], EVALUATED_AT)
        assert score == last["evaluation_return"]


def test_the_same_command_runs_nothing_and_a_wider_one_what_is_new(branched, run):
    again, wider = Heard(), Heard()
    assert branch(run, 1000, PLAN, None, lambda n: again, cells_at_once=1) == branched[0]
    assert again.trained == set()
    more = replaced(PLAN, batch_sizes=(32, 128, 256))
    result = branch(run, 1000, more, None, lambda n: wider, cells_at_once=1)
    assert {name.split("-")[0] for name in wider.trained} == {"B128"} and len(result.rows) == 6
    branch(run, 1000, PLAN, None, lambda n: Heard(), cells_at_once=1)


def test_the_fork_outlives_its_runs_checkpoints(branched, run, tmp_path):
    """A run that goes on deletes what branches still need: they have a copy."""
    kept = RunDir(run).checkpoints()[0]
    moved = kept.rename(tmp_path / kept.name)
    try:
        again = Heard()
        assert branch(run, 1000, PLAN, None, lambda n: again, cells_at_once=1).fork == branched[0].fork
        assert again.trained == set()
    finally:
        moved.rename(kept)


class Interrupt(Heard):
    """Ctrl-C in the first branch that is past a checkpoint of its own."""

    def show(self, name, record):
        super().show(name, record)
        if "B64-" in name and record.env_steps > 600:
            raise KeyboardInterrupt


def test_an_interrupted_branch_goes_on_to_the_same_bits(branched, run, tmp_path):
    few = replaced(PLAN, batch_sizes=(256,), learning_rate_rules=("none",), seeds=2)
    with pytest.raises(KeyboardInterrupt):
        branch(run, 1000, few, tmp_path, lambda n: Interrupt(), cells_at_once=1)
    heard = Heard()
    result = branch(run, 1000, few, tmp_path, lambda n: heard, cells_at_once=1)
    sittings = {name: json.loads((tmp_path / name / "provenance.json").read_text()) for name in heard.trained}
    assert sorted((name.split("-")[0], len(each)) for name, each in sittings.items()) == [
        ("B256", 1),
        ("B64", 1),
        ("B64", 2),
    ]
    for name in heard.trained:
        there = run / "branches" / str(result.fork["env_steps"]) / name
        assert [numbers(r) for r in RunDir(tmp_path / name).records()] == [numbers(r) for r in RunDir(there).records()]


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bits(branched, run, tmp_path):
    arguments = ["--at", "1000", "--batch-sizes", "32", "256", "--env-steps", "1024", "--seeds", "3", "--cells-at-once"]
    command = [sys.executable, "-m", "rl_gns", "branch", str(run), *arguments, "1", "--burn-in-env-steps", "20"]
    command += ["--run-dir", str(tmp_path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 250
    while not any(tmp_path.glob("B*/result.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = branched[0]
    assert json.loads(done.stdout)["reference"]["scores"] == {str(k): s for k, s in result.reference.scores.items()}


@pytest.mark.slow
@pytest.mark.cluster
def test_branches_on_ray_give_the_scores_of_branches_in_turn(branched, run, tmp_path):
    few = replaced(PLAN, batch_sizes=(256,), learning_rate_rules=("none",), seeds=2)
    heard = Heard()
    result = branch(run, 1000, few, tmp_path, lambda n: heard, cells_at_once=2)
    assert result.failed == {} and len(heard.trained) == 4
    serial = next(row for row in branched[0].rows if (row.batch_size, row.rule) == (256, "none"))
    assert result.rows[0].scores == {k: serial.scores[k] for k in range(2)}


def test_a_policy_that_stands_still_gains_nothing_and_nothing_passes(tmp_path):
    """The negative control: with a rate of 1e-12 every branch is as good as the reference, and none passes."""
    still = config(SMALL, {"learner": {"learning_rate": 1e-12}, "total_env_steps": 600, "evaluation_episodes": 10})
    train(still, tmp_path)
    plan = Plan(batch_sizes=(128,), env_steps=256, learning_rate_rules=("sqrt",), burn_in_env_steps=0)
    result = branch(tmp_path, 0, plan, None, lambda n: Heard(), cells_at_once=1)
    assert abs(result.reference_gain.value) < 0.05 and set(result.verdicts.values()) == {"unresolved"}
    assert {row.judgement.reason for row in result.rows} == {"the reference's own gain does not exclude 0"}


def test_a_failed_branch_is_named_and_sinks_nothing(run, tmp_path, fork, capsys):
    few = replaced(PLAN, batch_sizes=(128, 256), learning_rate_rules=("none",), seeds=2)
    victim = next(b for b in branch_configs(fork, settled(few, fork)) if b.config.batch.size == 256)
    (tmp_path / victim.name).mkdir()
    with take_lock(tmp_path / victim.name / ".lock", tmp_path):
        heard = Heard()
        result = branch(run, 1000, few, tmp_path, lambda n: heard, cells_at_once=1)
    assert list(result.failed) == [victim.name] and "in use" in result.failed[victim.name]
    assert "Traceback" in heard.said[victim.name] and len(heard.trained) == 5
    reasons = {row.batch_size: row.judgement.reason for row in result.rows}
    assert reasons[256] == "1 of 2 seeds failed, here or at the reference" and "at least 5" in reasons[128]
    show(result, Console())
    assert f"FAILED: {victim.name}" in capsys.readouterr().out


def test_rates_stand_still_at_what_the_run_had_come_to(run, fork):
    annealed = replaced(fork.config, learner=replaced(fork.config.learner, schedule="linear"))
    moving = replaced(fork, config=annealed)
    each = branch_configs(moving, settled(PLAN, moving))[0].config
    assert each.learner.schedule == "constant" and each.goals == () and each.noise.every == 0
    left = 1 - fork.env_steps / 3000
    own = next(b.config for b in branch_configs(moving, settled(PLAN, moving)) if b.config.batch.size == 64)
    assert own.learner.learning_rate == pytest.approx(3e-3 * left)
    plain = replaced(fork.config, learner=replaced(fork.config.learner, optimizer="rmsprop"))
    assert settled(PLAN, replaced(fork, config=plain)).learning_rate_rules == ("none", "linear")
    assert settled(PLAN, fork).learning_rate_rules == ("none", "sqrt")
