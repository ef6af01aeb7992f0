"""`rl-gns branch` from the command line: mistakes in one line, and the same words for people and programs."""

import json

import pytest
from test_branch import SMALL
from tiny import CARTPOLE, config

from rl_gns.cli import main
from rl_gns.study.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("branch") / "run"
    train(config(SMALL, {"total_env_steps": 600}), path)
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch-sizes", "100"], "--batch-sizes: 100 x 2 minibatches is no multiple"),
        ([], "--batch-sizes: at least one other than the reference, 64"),
        (["--batch-sizes", "128", "--seeds", "1"], "--seeds: 1 gives no interval; the least is 2"),
        (["--batch-sizes", "128", "--tolerance", "1.5"], "--tolerance: 1.5 is not inside (0, 1)"),
        (["--batch-sizes", "128", "--env-steps", "100"], "--env-steps: 100 are less than a rollout of B = 128"),
        (["--batch-sizes", "128", "--at", "10"], "--at: 10: "),
        (["--batch-sizes", "128", "--learning-rate-rules", "none", "none"], "each once"),
        (["--batch-sizes", "128", "--seds", "3"], "--seds: no such setting; the nearest is --seeds"),
        (["--batch-sizes", "128", "--burn-in-env-steps", "-1"], "burn-in-env-steps: -1 is too small"),
    ],
)
def test_a_mistake_is_one_line(run, capsys, arguments, words):
    assert main(["branch", str(run), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err


def test_a_run_without_a_checkpoint_or_no_run_is_one_line(tmp_path, capsys):
    (tmp_path / "config.toml").write_text('env = "CartPole"\n')
    assert main(["branch", str(tmp_path), "--batch-sizes", "512"]) == 2
    assert "no checkpoint there yet" in capsys.readouterr().err
    assert main(["branch", str(tmp_path / "no"), "--batch-sizes", "512"]) == 2
    assert "no run here" in capsys.readouterr().err
    assert main(["branch", "--batch-sizes", "512"]) == 2 and "which run?" in capsys.readouterr().err


def test_the_verb_on_cartpole_says_the_same_for_people_and_programs(tmp_path, capsys):
    train(config(CARTPOLE, {"total_env_steps": 600, "evaluation_episodes": 4}), tmp_path)
    command = ["branch", str(tmp_path), "--batch-sizes", "64", "--env-steps", "512", "--seeds", "2", "--cells-at-once"]
    command += ["1", "--burn-in-env-steps", "5", "--tolerance", "0.3"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"]["tolerance"] == 0.3 and found["rows"][0]["judgement"]["n_seeds"] == 2
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "below 30%" in said and "reference" in said and "Columns: new in every branch" in said
    assert main(["report", str(tmp_path)]) == 0, "the run is still a run"
