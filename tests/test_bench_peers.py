"""scripts/bench_peers: what it makes of its processes' words. The peers themselves run only where a person asks."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl_gns.study.bench import spread

PEERS = Path(__file__).resolve().parent.parent / "scripts" / "peers"


@pytest.fixture(scope="module")
def alternate():
    found = importlib.util.spec_from_file_location("alternate", PEERS / "alternate.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def turn(ours, theirs):
    def rate(value):
        return {"env_steps": 10 * value, "seconds": 10.0, "versions": {}}

    return {"rl-gns": rate(ours), "stable-baselines3": rate(theirs)}


def test_ratios_are_taken_within_each_turn(alternate):
    turns = [turn(900, 500), turn(1000, 400), turn(400, 250)]
    result = alternate._result(turns, {}, {"RLlib": "it said nothing"}, busy=0.02)
    assert result["rates"]["rl-gns"]["median"] == 900
    ratio = result["ours_over_peer"]["stable-baselines3"]
    assert [ratio[name] for name in ("low", "median", "high")] == pytest.approx([1.6, 1.8, 2.5])
    assert result["verdict"] == "pass"
    assert "RLlib: not run: it said nothing" in alternate.words(result)


def test_verdicts(alternate):
    assert alternate.verdict(spread([1.5, 1.59, 1.7], "times"), busy=0.0) == "fail"
    assert alternate.verdict(spread([3.0], "times"), busy=0.2).startswith("not judged: the machine is busy (20%")
    assert alternate.verdict(None, busy=0.0) == "not judged: stable-baselines3 was not run"


def test_a_process_that_fails_is_named_by_its_last_words(alternate):
    fails = [sys.executable, "-c", "import sys; print('{}'); sys.exit('no such game')"]
    with pytest.raises(alternate.NotRun, match="no such game"):
        alternate.run(fails, 10, 5)


def test_a_process_that_hangs_is_ended_with_its_children(alternate, tmp_path, monkeypatch):
    monkeypatch.setattr(alternate, "LONGEST_SECONDS", 5)
    child = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(99)"
    hangs = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, {str(tmp_path / 'pid')!r}])"
    with pytest.raises(alternate.NotRun, match="no result within 5 s"):
        alternate.run([sys.executable, "-c", hangs], 10, 5)
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    until = time.monotonic() + 20  # a killed process on a busy machine takes its time to end
    while not _gone(state) and time.monotonic() < until:
        time.sleep(0.1)
    assert _gone(state)


def _gone(state):
    try:
        return state.read_text().rpartition(") ")[2][0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
def test_our_own_side_runs(alternate):
    done = alternate.run([sys.executable, PEERS / "ours.py"], 1, 1)
    assert 1000 <= done["env_steps"] <= 1024 and done["seconds"] > 0


def test_help_says_what_is_compared():
    done = subprocess.run([sys.executable, PEERS / "alternate.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--keep" in done.stdout
