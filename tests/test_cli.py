"""The user's mistakes: one line each, exit code 2, nothing half-written. The program's: exit code 1."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.numpy import load_file

from rl_gns.cli import main

TRAIN = ["train", "--config", "cartpole", "--run-dir"]


def one_line(capsys, *arguments):
    """(exit code, what was said), which must be one line on standard error alone."""
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("rl-gns: "), (out, err)
    return code, err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--env", "Pnog"], "did you mean 'Pong'"),
        (["train", "--config", "pogn"], "'pogn' is neither a preset nor a file; the nearest is pong"),
        (["train", "--batch.siez", "3"], "--batch.siez: no such setting; the nearest is --batch.size"),
        (["train", "--learning-rate", "1"], "the nearest is --learner.learning-rate"),
        (["train", "--batch.size"], "--batch.size: a value is missing"),
        (["train", "--seed", "abc"], "--seed: 'abc' is no int"),
        (["train", "--learner.gamma", "nan"], "--learner.gamma: nan is not finite"),
        (["train", "--learner.network", "natur"], "--learner.network: 'natur' is none of"),
        (["train", "--config", "pong", "--batch.size", "1000"], "the nearest that fits is 1024"),
        (["train", "--config", "pong", "--learner.network", "mlp"], "nature or small does"),
        (["train", "--actors", "-1"], "--actors: -1 is too small; the least is 0"),
        (["train", "--atari.frameskip", "0"], "frameskip must be at least 1, got 0"),
        (["train", "--goals", "a"], "goals"),
        (["train", "seed=3"], "seed=3: a flag begins with --"),
        (["tran"], "tran: no such verb; the nearest is train"),
        (["train", "--config", "sweeps/cartpole"], "cartpole.toml: a sweep's file"),
        (["train", "--goals", "nan"], "--goals: [nan]: finite returns"),
        (["measure", "--max-env-steps", "0"], "at least 1 is needed"),
        (["measure", "--hessian"], "--hessian: only read with --all"),
        (["measure", "--initialisations", "0"], "--initialisations: 0 is too small; the least is 1"),
        (["sweep"], "--config: a sweep needs a file"),
        (["sweep", "--config", "cartpole"], "no [sweep] table"),
        (["sweep", "--config", "sweeps/cartpole", "--reuse", "nowhere"], "--reuse: nowhere: no such directory"),
        (["sweep", "--config", "sweeps/cartpole", "--cells-at-once", "-1"], "--cells-at-once: -1 is too small"),
        (["report", "nowhere"], "nowhere: no such directory; the nearest is"),
        (["measure", "--run-dir", "nowhere"], "no run here"),
    ],
)
def test_a_mistake_is_one_line(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, said = one_line(capsys, *arguments)
    assert code == 2 and words in said
    assert os.listdir(tmp_path) == [], "nothing half-written"


def test_a_run_without_a_checkpoint_cannot_be_measured(capsys, tmp_path):
    (tmp_path / "config.toml").write_text('env = "CartPole"\n')
    code, said = one_line(capsys, "measure", "--run-dir", tmp_path)
    assert code == 2 and "no checkpoint yet" in said


def test_another_experiments_directory_is_refused(capsys, tmp_path):
    assert main([*TRAIN, str(tmp_path), "--total-env-steps", "1000", "--json"]) == 0
    capsys.readouterr()
    code, said = one_line(capsys, *TRAIN, tmp_path, "--learner.gamma", "0.5")
    assert code == 2 and "learner.gamma: 0.99 there, 0.5 here" in said


def in_a_small_file_system(options, arguments, path):
    """Run the program on a tmpfs of its own, mounted in a namespace of its own."""
    script = f'mount -t tmpfs -o {options} none "$1" && shift && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(path), sys.executable, "-m", "rl_gns", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_read_only_directory_is_one_line(tmp_path):
    done = in_a_small_file_system("ro", [*TRAIN, str(tmp_path / "run")], tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--run-dir" in done.stderr and "Read-only file system" in done.stderr


def test_a_full_disk_is_one_line_and_leaves_whole_files(tmp_path):
    """A tmpfs of 64 kB: room for the start, not for a checkpoint. The line count is checked inside the namespace."""
    look = (
        "import json, pathlib; run = pathlib.Path('%s'); "
        "[json.loads(line) for line in open(run / 'metrics.jsonl')]; "
        "print('parts', sorted(p.name for p in (run / 'checkpoints').iterdir()))"
    ) % (tmp_path / "run")
    train = f'"{sys.executable}" -m rl_gns train --config cartpole --run-dir "{tmp_path}/run"; echo "code $?"'
    script = f'mount -t tmpfs -o size=64k none "{tmp_path}" && {train}; "{sys.executable}" -c "{look}"'
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True)
    assert "code 2" in done.stdout and "parts []" in done.stdout, done
    said = [line for line in done.stderr.splitlines() if line.startswith("rl-gns: ")]
    assert len(said) == 1 and "No space left on device" in said[0] and "Traceback" not in done.stderr


def test_a_diverging_run_stops_saves_the_batch_and_checkpoints_nothing(capsys, tmp_path):
    """A learning rate of 1e20: the weights overflow, the steps are skipped and counted, and after k in a row the run
    ends with exit code 1."""
    arguments = [*TRAIN, tmp_path, "--learner.learning-rate", "1e20", "--learner.max-skipped-steps", "3"]
    code = main([str(a) for a in arguments])
    said = capsys.readouterr().err
    assert code == 1 and "3 optimizer steps in a row had a gradient that is not finite" in said
    assert "not_finite.safetensors" in said and "Traceback" not in said
    rows = load_file(tmp_path / "not_finite.safetensors")
    assert rows["observation"].shape == (len(rows["action"]), 4)
    assert not list((tmp_path / "checkpoints").iterdir()) and not (tmp_path / "result.json").exists()


def test_train_measure_and_report_agree_with_their_files(capsys, tmp_path):
    assert main([*TRAIN, str(tmp_path), "--total-env-steps", "4000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "result.json").read_text())
    assert main(["measure", "--run-dir", str(tmp_path), "--max-env-steps", "8000", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured == json.loads((tmp_path / "measure.json").read_text())
    assert measured["noise"]["policy"]["pooling"] == "frozen" and measured["key"]["env"] == "CartPole"
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Frozen policy (update 5" in said and (tmp_path / "report" / "noise.png").stat().st_size > 10_000


def test_a_fresh_policy_is_measured_at_several_initialisations(capsys, tmp_path, monkeypatch):
    """Each is kept: the same command again measures nothing, one more initialisation measures one."""
    monkeypatch.setenv("RL_GNS_RUNS", str(tmp_path))
    command = ["measure", "--config", "cartpole", "--max-env-steps", "4000", "--initialisations"]
    assert main([*command, "2", "--json"]) == 0
    said = capsys.readouterr()
    measured = json.loads(said.out)
    assert measured["policy"] == "fresh" and {"seed 0", "seed 1"} == {
        line.split(",")[0] for line in said.err.splitlines()
    }
    assert measured["initialisations"]["seeds"] == [0, 1]
    assert measured["initialisations"]["noise"][0] == measured["noise"] != measured["initialisations"]["noise"][1]
    assert main([*command, "3"]) == 0
    said = capsys.readouterr()
    assert {line.split(",")[0] for line in said.err.splitlines()} == {"seed 2"}
    assert "3 initialisations (seeds 0 to 2)" in said.out and "times the noise of shuffled transitions" in said.out
    (made,) = tmp_path.iterdir()
    assert sorted(os.listdir(made)) == ["seed0.json", "seed1.json", "seed2.json"]


def test_a_bare_train_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RL_GNS_RUNS", str(tmp_path))
    assert main(["train", "--total-env-steps", "500", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["env"] == "CartPole"
    (made,) = tmp_path.iterdir()
    assert made.name.startswith("CartPole-B256-s0-")


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in ("train", "measure", "sweep", "report"))
