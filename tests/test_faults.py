"""What a user sees when something breaks: one line that names it, and nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl_gns.cli import main
from rl_gns.rundir import RunDir

TRAIN = ["train", "--config", "cartpole", "--checkpoint.every-env-steps", "2000", "--run-dir"]


@pytest.fixture
def finished(tmp_path, capsys):
    """A short finished run's directory, two checkpoints in it."""
    assert main([*TRAIN, str(tmp_path), "--total-env-steps", "5000", "--json"]) == 0
    capsys.readouterr()
    return tmp_path


def again(capsys, path, *more):
    code = main([*TRAIN, str(path), "--total-env-steps", "7000", "--json", *more])
    captured = capsys.readouterr()
    return code, captured.out, [line for line in captured.err.splitlines() if line.startswith("rl-gns: ")]


def test_lines_lost_behind_the_newest_checkpoint_send_it_to_the_one_before(finished, capsys):
    lines = (finished / "metrics.jsonl").read_text().splitlines(keepends=True)
    (finished / "metrics.jsonl").write_text("".join(lines[:-1]))
    code, out, said = again(capsys, finished)
    assert code == 0 and said == [] and json.loads(out)["env_steps"] >= 7000
    assert [r["update"] for r in RunDir(finished).records()] == list(range(json.loads(out)["updates"]))


@pytest.mark.parametrize(
    ("name", "content"),
    [("provenance.json", "{"), ("provenance.json", "{}"), ("metrics.jsonl", "no json\n"), ("config.toml", "env = [")],
)
def test_a_damaged_file_is_named(finished, capsys, name, content):
    (finished / name).write_text(content)
    code, out, said = again(capsys, finished)
    assert code == 2 and out == "" and len(said) == 1 and name in said[0]


@pytest.mark.parametrize("content", ["[]", "{", '{"value": 1}'])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(finished, capsys, content):
    (RunDir(finished).checkpoints()[-1] / "state.json").write_text(content)
    code, out, said = again(capsys, finished)
    assert code == 0 and said == [] and json.loads(out)["env_steps"] >= 7000


def test_a_run_whose_checkpoints_are_gone_is_not_silently_begun_anew(finished, capsys):
    import shutil

    shutil.rmtree(finished / "checkpoints")
    code, _, said = again(capsys, finished)
    assert code == 2 and "but no checkpoint" in said[0]


def test_a_directory_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, said = again(capsys, tmp_path)
    assert code == 2 and "holds something else (thesis.tex)" in said[0]
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_flags_that_a_measurement_would_not_read_are_refused(finished, capsys):
    assert main(["measure", "--run-dir", str(finished), "--learner.gamma", "0.5"]) == 2
    assert "--learner.gamma: not read beside --run-dir" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_a_cluster_that_does_not_answer_is_said_at_once(tmp_path, address):
    command = [sys.executable, "-m", "rl_gns", *TRAIN, str(tmp_path / "run"), "--actors", "1"]
    done = subprocess.run(
        command, env=os.environ | {"RAY_ADDRESS": address}, capture_output=True, text=True, timeout=120
    )
    said = done.stderr.splitlines()
    assert done.returncode == 2 and len(said) == 1 and "RAY_ADDRESS" in said[0] and address in said[0]


def children(pid):
    """Command line -> pid of every descendant."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
        except (OSError, IndexError):
            continue
    found, frontier = [], [pid]
    while frontier:
        frontier = [p for p, parent in parents.items() if parent in frontier]
        found += frontier
    named = {}
    for p in found:
        try:
            named[p] = Path(f"/proc/{p}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return named


def training_on_ray(path, *more, stdout=subprocess.DEVNULL):
    command = [sys.executable, "-m", "rl_gns", *TRAIN, str(path), "--actors", "1", "--total-env-steps", "5000000"]
    process = subprocess.Popen([*command, *more], stdout=stdout, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not RunDir(path).checkpoints():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.1)
    return process


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_ends_a_ray_run_in_one_line_and_leaves_no_process(tmp_path, number):
    process = training_on_ray(tmp_path)
    ray = [pid for pid, command in children(process.pid).items() if "raylet" in command or "gcs_server" in command]
    assert ray, "a real Ray was running"
    process.send_signal(number)
    sent = time.monotonic()
    _, words = process.communicate(timeout=120)
    said = [line for line in words.splitlines() if line.startswith("rl-gns: ")]
    assert process.returncode == 128 + number and len(said) == 1 and "run the same command again" in said[0]
    if number == signal.SIGTERM:  # a notice of 10 s
        *_, last = RunDir(tmp_path).records()
        assert time.monotonic() - sent < 10 and last["env_steps"] == int(RunDir(tmp_path).checkpoints()[-1].name)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in ray) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not any(Path(f"/proc/{pid}").exists() for pid in ray)


@pytest.mark.cluster
def test_a_killed_actor_does_not_end_the_run_and_the_end_names_it(tmp_path, capsys):
    process = training_on_ray(tmp_path, "--total-env-steps", "60000", "--json", stdout=subprocess.PIPE)
    actors = [pid for pid, command in children(process.pid).items() if "CollectorHost" in command]
    assert len(actors) == 1
    os.kill(actors[0], signal.SIGKILL)
    out, words = process.communicate(timeout=180)
    assert process.returncode == 0 and not Path(f"/proc/{actors[0]}").exists(), words
    result = json.loads(out)  # and nothing else on standard output: Ray would write there
    assert result["replaced_actors"] == 1 and result["env_steps"] >= 60_000
    (fault,) = result["faults"]
    assert f"pid {actors[0]} " in fault["reason"] and fault["what"] == "died" and f"pid {actors[0]} " in words
    records = list(RunDir(tmp_path).records())
    assert [r["update"] for r in records] == list(range(len(records)))
    assert all(r["collected_env_steps"] == r["requested_env_steps"] for r in records)
    assert [r["update"] for r in records if r["faults"]] == [fault["update"]]
    assert records[fault["update"]]["generation"] == 1 and records[fault["update"]]["burn_in_env_steps"] > 0
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "failed and were replaced: 1" in said and f"update {fault['update']}: the actor of pid {actors[0]}" in said
    assert "collector 0 (generation 1)" in said
