"""`rl-gns train` as a user runs it: killed in three ways and run again, it ends at the bits of an unbroken run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny import PONG, config, numbers, replaced

from rl_gns.config import ConfigError
from rl_gns.rundir import RunDir
from rl_gns.study.sitting import gone_on_from
from rl_gns.study.train import train
from rl_gns.study.verify_resume import first_unequal

TRAIN = [sys.executable, "-m", "rl_gns", "train", "--config", "cartpole", "--total-env-steps", "16000"]
TRAIN += ["--checkpoint.every-env-steps", "4000", "--json", "--run-dir"]


def final_arrays(path):
    state = RunDir(path).load_checkpoint()
    return state["learner"]["network"] | {
        f"{i}/{k}": v for i, slots in state["learner"]["optimizer"].items() for k, v in slots.items()
    }


def lines(path):
    records = list(RunDir(path).records())
    assert [r["update"] for r in records] == list(range(len(records)))
    return [numbers(r) for r in records]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken")
    subprocess.run([*TRAIN, path], check=True, capture_output=True)
    return path


def start_and_wait_for_a_checkpoint(path):
    """The process, somewhere behind its first checkpoint and before its end."""
    process = subprocess.Popen([*TRAIN, path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not RunDir(path).checkpoints():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.02)
    time.sleep(0.2)
    assert process.poll() is None, "it ended before it could be killed"
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_killed_and_run_again_is_the_unbroken_run(unbroken, tmp_path, number):
    process = start_and_wait_for_a_checkpoint(tmp_path)
    os.kill(process.pid, number)
    _, words = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode == 128 + number
        assert "run the same command again" in words and "Traceback" not in words
    assert not (tmp_path / "result.json").exists()
    done = subprocess.run([*TRAIN, tmp_path], check=True, capture_output=True, text=True)
    expected, got = final_arrays(unbroken), final_arrays(tmp_path)
    assert set(expected) == set(got) and all(np.array_equal(expected[k], got[k]) for k in expected)
    assert lines(tmp_path) == lines(unbroken)
    result = json.loads(done.stdout)
    assert result["env_steps"] == json.loads((unbroken / "result.json").read_text())["env_steps"]
    assert len(json.loads((tmp_path / "provenance.json").read_text())) == 2


def test_a_finished_run_is_told_again_and_not_trained(unbroken):
    before = (unbroken / "metrics.jsonl").stat().st_mtime_ns
    again = subprocess.run([*TRAIN, unbroken], check=True, capture_output=True, text=True)
    assert json.loads(again.stdout) == json.loads((unbroken / "result.json").read_text())
    assert (unbroken / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_longer_budget_goes_on_from_the_end(unbroken, tmp_path):
    path = tmp_path / "longer"
    shutil.copytree(unbroken, path)
    longer = [*TRAIN, path]
    longer[longer.index("16000")] = "20000"
    result = json.loads(subprocess.run(longer, check=True, capture_output=True, text=True).stdout)
    assert 20_000 <= result["env_steps"] < 21_100
    assert lines(path)[: len(lines(unbroken))] == lines(unbroken)


def test_checkpoints_lie_at_multiples_of_their_interval(unbroken):
    names = [int(p.name) for p in RunDir(unbroken).checkpoints()]
    assert len(names) == 2 and names[-1] >= 16_000 and 12_000 <= names[0] < 13_100


def seeded_anew(every, total):
    exact = {"checkpoint": {"exact_resume": True, "every_env_steps": every}, "total_env_steps": total}
    return config(PONG, {**exact, "rollout": {**PONG["rollout"], "columns_per_collector": 16}})


def ends(path):
    return [int(folder.name) for folder in RunDir(path).checkpoints()]


@pytest.mark.parametrize("first", [300, 900], ids=["before any checkpoint", "behind one"])
def test_a_longer_budget_is_the_longer_run_where_columns_are_seeded_anew(first, tmp_path):
    """The checkpoint at the shorter run's end is not one that the longer run has."""
    long = seeded_anew(600, 1100)
    train(long, tmp_path / "long")
    train(replaced(long, total_env_steps=first), tmp_path / "short")
    (*_, ended_at) = ends(tmp_path / "short")
    assert first <= ended_at < 1100 and ended_at // 600 == first // 600
    train(long, tmp_path / "short")
    same_runs(tmp_path / "long", tmp_path / "short")
    assert all(record["exact_resume"] for record in RunDir(tmp_path / "long").records())


def same_runs(long, short):
    assert lines(short) == lines(long)
    there, here = (RunDir(path).load_checkpoint() for path in (long, short))
    assert first_unequal(there, here, "checkpoint") is None


def test_a_budget_that_is_made_longer_again_and_again_is_the_longer_run(tmp_path):
    """The checkpoints at the ends of the shorter ones do not drive out the one that they all go on from."""
    long = seeded_anew(1000, 1700)
    train(long, tmp_path / "long")
    for longer in (1100, 1400):
        train(replaced(long, total_env_steps=longer), tmp_path / "short")
        due, end = ends(tmp_path / "short")
        assert 1000 <= due < 1100 and longer <= end < 1700
    train(long, tmp_path / "short")
    same_runs(tmp_path / "long", tmp_path / "short")


def test_lost_lines_are_told_where_columns_are_seeded_anew(tmp_path):
    """Neither is the run begun anew, nor are its checkpoints driven out."""
    long = seeded_anew(500, 600)
    train(long, tmp_path)
    there, whole = ends(tmp_path), (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    for kept in (1, 0):
        (tmp_path / "metrics.jsonl").write_text("".join(whole[:kept]))
        with pytest.raises(ConfigError, match=r"no checkpoint can be read \(.* lines of metrics.jsonl"):
            train(replaced(long, total_env_steps=1700), tmp_path)
        assert ends(tmp_path) == there and len(lines(tmp_path)) == kept


def test_a_checkpoint_at_no_records_end_is_passed_over_where_columns_are_seeded_anew():
    """It is another stream's, unless its records are lost."""
    records = [{"env_steps": end} for end in (256, 512, 768)]
    asked = (0, 256, 512, 600, 768, 769)
    among = gone_on_from(seeded_anew(500, 1000), records)
    assert [env_steps for env_steps in asked if among(env_steps)] == [0, 512, 769]
    assert all(map(gone_on_from(config(PONG), records), asked))
