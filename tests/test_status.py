"""`rl-gns status`: every state of a real run's directory, seen without touching it."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest
from test_lazy_imports import HEAVY, loaded
from tiny import CARTPOLE, config, finished

from rl_gns.cli import main
from rl_gns.config_file import to_toml
from rl_gns.records import to_json
from rl_gns.rundir import RunDir
from rl_gns.study.status import TAIL_BYTES, facts, look, newest_records, survey
from rl_gns.study.train import train

PROGRAM = [sys.executable, "-m", "rl_gns"]
TRAIN = [*PROGRAM, "train", "--config", "cartpole", "--learner.threads", "1", "--run-dir"]


@pytest.fixture(scope="module")
def record():
    return to_json(finished(config(CARTPOLE))[1][-1])


def written(path, records, tail=""):
    """A directory as a run that was killed leaves it."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.toml").write_text(to_toml(config(CARTPOLE)))
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + tail)
    return path


def training(path, env_steps):
    """A real run in a process of its own, once it has written a few records."""
    process = subprocess.Popen(
        [*TRAIN, str(path), "--total-env-steps", str(env_steps)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(newest_records(path / "metrics.jsonl")) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_run_is_running_until_its_process_is_killed_and_finished_at_the_end(tmp_path, capsys):
    path = tmp_path / "run"
    process = training(path, 5_000_000)
    try:
        seen = look(path, "run")
        assert (seen.state, seen.reason) == ("running", "")
        assert 0 < seen.progress.env_steps < 5_000_000 and seen.progress.seconds_left() > 0
        assert seen.seconds_since_write < 30
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    stopped = look(path, "run")
    assert stopped.state == "stopped" and "run the same command again" in stopped.reason
    assert facts(stopped)["seconds_left"] is None
    more = str(stopped.progress.env_steps + 1000)
    assert main([*TRAIN[3:], str(path), "--total-env-steps", more, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    seen = look(path, "run")
    assert (seen.state, seen.reason) == ("finished", "budget") and seen.progress.env_steps == done["env_steps"]


def test_a_goal_ends_a_run_and_a_larger_budget_takes_it_up(tmp_path):
    settings = config(CARTPOLE, {"goals": [1.0], "stop_at_goal": True, "evaluation_episodes": 2})
    train(settings, tmp_path)
    assert look(tmp_path, "run").reason == "goal"
    train(config(CARTPOLE, {"total_env_steps": 500}), tmp_path / "other")
    longer = config(CARTPOLE, {"total_env_steps": 5000})
    (tmp_path / "other" / "config.toml").write_text(to_toml(longer))
    assert look(tmp_path / "other", "run").state == "stopped"


def test_looking_never_turns_a_run_away(tmp_path):
    """A lock that the reader took, however shortly, would refuse one of these."""
    run, over = RunDir(tmp_path), threading.Event()
    run.open(config(CARTPOLE))
    assert run.in_use()
    run.close()
    readers = [threading.Thread(target=lambda: [run.in_use() for _ in iter(over.is_set, True)]) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(200):
            other = RunDir(tmp_path)
            other.open(config(CARTPOLE))
            other.close()
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert not run.in_use()


def test_a_directory_is_read_and_left_as_it_was(tmp_path, record):
    written(tmp_path / "run", [record])
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    assert main(["status", str(tmp_path)]) == 0
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


def test_a_line_that_is_being_written_is_left_out(tmp_path, record):
    whole = json.dumps(record)
    for cut in (1, len(whole) // 2, len(whole)):
        seen = look(written(tmp_path / "run", [record], tail=whole[:cut]), "run")
        assert seen.state == "stopped" and len(newest_records(seen.path / "metrics.jsonl")) == 1


def test_of_a_huge_file_only_the_tail_is_read(tmp_path, record):
    lines = 3 * TAIL_BYTES // len(json.dumps(record))
    slow, quick = {**record, "seconds": 100.0}, {**record, "seconds": 0.05, "used_env_steps": 100}
    path = written(tmp_path / "run", [*[slow] * lines, *[quick] * 10])
    with open(path / "metrics.jsonl", "r+b") as file:
        file.write(b"no json\n")
    seen = look(path, "run")
    assert seen.state == "stopped", "the damage lies before the tail"
    assert len(newest_records(path / "metrics.jsonl")) == 11, "10 quick records, and a slow one that covers a minute"
    rate = (10 * 100 + slow["used_env_steps"]) / (10 * 0.05 + 100.0)
    assert seen.progress.env_steps_per_second() == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.toml", "env = ["),
        ("config.toml", "envv = 1\n"),
        ("metrics.jsonl", "no json\n"),
        ("metrics.jsonl", "[]\n"),
        ("metrics.jsonl", '{"update": 1}\n'),
        ("result.json", "{"),
    ],
)
def test_damage_is_one_line_that_names_the_file(tmp_path, capsys, record, name, content):
    (written(tmp_path / "bad", [record]) / name).write_text(content)
    written(tmp_path / "good", [record])
    assert main(["status", str(tmp_path)]) == 0
    bad, good = capsys.readouterr().out.splitlines()
    assert bad.startswith("bad: state damaged (") and name in bad
    assert good.startswith("good: state stopped")


def test_runs_of_sweeps_and_of_several_roots_are_found_in_order(tmp_path, record):
    for name in ("sweep/B256-s0", "sweep/B64-s0", "one", "sweep/B64-s10", "sweep/B64-s2"):
        written(tmp_path / "runs" / name, [record])
    (tmp_path / "runs" / "notes").mkdir()
    names = [run.name for run in survey([tmp_path / "runs"])]
    assert names == ["one", "sweep/B64-s0", "sweep/B64-s2", "sweep/B64-s10", "sweep/B256-s0"]
    both = survey([tmp_path / "runs" / "one", tmp_path / "runs"])
    assert len(both) == 5 and both[0].name == str(tmp_path / "runs" / "one"), "each once"


def test_a_directory_that_is_empty_or_being_made(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no run under {tmp_path} yet\n"
    young = RunDir(tmp_path / "young")
    young.open(config(CARTPOLE))
    assert (look(young.path, "x").state, look(young.path, "x").reason) == ("running", "starting")
    (young.path / "config.toml").unlink()
    assert (look(young.path, "x").state, look(young.path, "x").reason) == ("running", "starting")
    young.close()
    assert look(young.path, "x").state == "stopped"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs/pogn"], "runs/pogn: no such directory; the nearest is runs/pong"),
        (["rusn/pong"], "rusn/pong: no such directory; the nearest is runs"),
        (["runs/pong/config.toml"], "a file; a directory of runs is wanted, such as runs/pong"),
        (["runs", "--wacth"], "--wacth: status takes directories and --watch and --json; the nearest is --watch"),
        (["--json"], "a directory is needed"),
        (["runs", "gone", "--watch"], "gone: no such directory"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, record, arguments, words):
    written(tmp_path / "runs" / "pong", [record])
    monkeypatch.chdir(tmp_path)
    assert main(["status", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err


def test_json_is_one_object_a_run_with_units(tmp_path, capsys, record):
    faulty = {**record, "replaced_actors": 2, "refused_blocks": 0}
    written(tmp_path / "a", [faulty, record])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.toml").write_text("env = [")
    assert main(["status", str(tmp_path), "--json"]) == 0
    whole, damaged = map(json.loads, capsys.readouterr().out.splitlines())
    assert whole["env_steps"] == record["env_steps"] and whole["total_env_steps"] == 1500
    rate = record["used_env_steps"] / record["seconds"]
    assert whole["env_steps_per_second"] == pytest.approx(rate, rel=1e-9)
    assert whole["noise"] == record["noise"]["policy"] and whole["faults"] == {"replaced_actors": 2}
    assert set(whole) == set(damaged) and damaged["state"] == "damaged" and damaged["env_steps"] is None


def test_faults_are_those_of_all_records_read_and_say_since_when(tmp_path, capsys, record):
    """The second record covers a minute, so the first is read only where the second is quick."""
    step = record["used_env_steps"]
    own = [{"replaced_actors": 2}, {"replaced_actors": 1, "refused_blocks": 1}, {"skipped_steps": 4}]
    records = [{**record, "update": i, "env_steps": step * (i + 1), **own[i]} for i in range(3)]
    whole = look(written(tmp_path / "whole", records), "whole")
    records[1]["seconds"] = 100.0
    tail = look(written(tmp_path / "tail", records), "tail")
    assert whole.progress.words()["faults"] == "4 optimizer steps skipped, 3 actors replaced, 1 blocks refused"
    since = f"since env step {step:,}"
    said = f"4 optimizer steps skipped, 1 actors replaced {since}, 1 blocks refused {since}"
    assert tail.progress.words()["faults"] == said
    assert facts(whole)["faults_since_env_steps"] == 0 and facts(tail)["faults_since_env_steps"] == step
    assert main(["status", str(tmp_path / "tail")]) == 0
    assert f"faults {said}" in capsys.readouterr().out


def test_it_loads_nothing_heavy(tmp_path, record):
    written(tmp_path, [record])
    packages, said = loaded("-m", "rl_gns", "status", str(tmp_path))
    assert not packages & HEAVY and "state stopped" in said


def on_a_terminal(arguments):
    """The program on a terminal of its own: the process, and a list that fills with what it writes there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "160"},
    )
    os.close(theirs)
    said = []

    def read():
        while True:
            try:
                said.append(os.read(ours, 65536))
            except OSError:  # the last writer has gone
                return

    reader = threading.Thread(target=read)
    reader.start()
    return process, said, reader


def until(said, words):
    deadline = time.monotonic() + 60
    while words not in b"".join(said):
        assert time.monotonic() < deadline, b"".join(said)
        time.sleep(0.05)


def test_watching_redraws_and_ends_by_itself_when_all_have_finished(tmp_path, record):
    path = written(tmp_path / "run", [record])
    terminal, said, reader = on_a_terminal(["status", str(tmp_path), "--watch"])
    lines = subprocess.Popen(
        [*PROGRAM, "status", str(tmp_path), "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first = lines.stdout.readline()
    until(said, b"stopped")
    assert terminal.poll() is None and lines.poll() is None
    (path / "result.json").write_text(json.dumps({"stopped": "budget", "env_steps": 1500}))
    out, err = lines.communicate(timeout=60)
    assert "state stopped" in first and "state finished (budget)" in out and out.count("\n") == 1 and err == ""
    assert lines.returncode == 0 and terminal.wait(timeout=60) == 0
    reader.join()
    assert b"finished (budget)" in b"".join(said)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupt_ends_a_watch_quietly(tmp_path, record, terminal, number):
    written(tmp_path / "run", [record])
    arguments = ["status", str(tmp_path), "--watch"]
    if terminal:
        process, said, reader = on_a_terminal(arguments)
        until(said, b"stopped")
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number
        reader.join()
        words = b"".join(said).decode()
    else:
        process = subprocess.Popen([*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert "state stopped" in process.stdout.readline()
        process.send_signal(number)
        out, words = process.communicate(timeout=30)
        assert process.returncode == 128 + number and out == "" and words == ""
    assert "Traceback" not in words and "rl-gns:" not in words
