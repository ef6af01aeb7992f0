"""A run's prediction from its directory: the log it reads, and a bandit whose noise scale is known."""

import json

import numpy as np
import pytest
from tiny import BANDIT, CARTPOLE, config

from envs.bandits import true_noise_scale
from rl_gns.cli import main
from rl_gns.config import ConfigError
from rl_gns.noise.run_log import run_log
from rl_gns.rundir import RunDir
from rl_gns.study.predict import predict
from rl_gns.study.train import train


def test_a_bandits_prediction_is_its_noise_scale(tmp_path):
    """The policy stands still (learning rate 1e-12), so B_crit is B_simple; 95 % interval, fixed seed."""
    settings = config(BANDIT, {"total_env_steps": 60_000, "learner": {"learning_rate": 1e-12}})
    train(settings, tmp_path)
    found = predict(tmp_path)
    signal_sq, noise_trace = true_noise_scale(np.zeros(2), 0.0)
    assert found.resolved and found.b_crit.low < noise_trace / signal_sq < found.b_crit.high < 2 * found.b_crit.low
    worth = 1 / (1 + noise_trace / signal_sq / 512)
    assert found.s_min.low < worth * 118 < found.s_min.high and found.covered == 1
    half = predict(tmp_path, until_env_steps=30_000)
    assert abs(half.n_probes - found.n_probes / 2) <= 1 and half.s_min.value < found.s_min.value


def test_probes_that_no_pool_takes_do_not_count(tmp_path):
    """CartPole's first rollout scales its own advantages: coupled."""
    train(config(CARTPOLE), tmp_path)
    records = list(RunDir(tmp_path).records())
    log = run_log(records, "policy")
    assert records[0]["probe_signal_sq"] is not None and log.probe[0] == 1 and len(log.probe) == len(records) - 1
    assert log.optimizer_steps.sum() == records[-1]["optimizer_steps"]
    found = predict(tmp_path)
    assert not found.resolved and found.epochs == 2 and found.minibatches == 2


def test_a_run_without_probes_says_so(tmp_path):
    train(config(CARTPOLE, {"noise": {"every": 0}}), tmp_path)
    with pytest.raises(ConfigError, match=r"no probe that counts in its 7 rollouts; noise\.every"):
        predict(tmp_path)


def test_the_verb_says_the_same_for_people_and_programs(tmp_path, capsys):
    train(config(CARTPOLE), tmp_path)
    assert main(["predict", "--run-dir", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"s_min", "e_min", "b_crit", "b_crit_rollout", "gamma", "resolved", "reason"} <= set(found)
    assert main(["predict", "--run-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "optimizer steps" in said and found["reason"] in said
    assert main(["predict"]) == 2 and main(["predict", "--run-dir", str(tmp_path / "no")]) == 2
