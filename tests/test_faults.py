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


def training_on_ray(path):
    command = [sys.executable, "-m", "rl_gns", *TRAIN, str(path), "--actors", "1", "--total-env-steps", "5000000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
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
    _, words = process.communicate(timeout=120)
    said = [line for line in words.splitlines() if line.startswith("rl-gns: ")]
    assert process.returncode == 128 + number and len(said) == 1 and "run the same command again" in said[0]
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in ray) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not any(Path(f"/proc/{pid}").exists() for pid in ray)


@pytest.mark.cluster
def test_a_killed_actor_ends_the_run_in_one_line_and_the_next_one_goes_on(tmp_path, capsys):
    process = training_on_ray(tmp_path)
    actors = [pid for pid, command in children(process.pid).items() if "RolloutActor" in command]
    assert len(actors) == 1
    os.kill(actors[0], signal.SIGKILL)
    _, words = process.communicate(timeout=120)
    said = [line for line in words.splitlines() if line.startswith("rl-gns: ")]
    assert process.returncode == 1 and len(said) == 1 and "a rollout actor died" in said[0]
    lines = len(list(RunDir(tmp_path).records()))
    assert lines > 0
    more = str(int(list(RunDir(tmp_path).records())[-1]["env_steps"]) + 3000)
    assert main([*TRAIN, str(tmp_path), "--total-env-steps", more, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["env_steps"] >= int(more)
