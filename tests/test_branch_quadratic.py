"""Branches of a noisy quadratic, whose expected deficit at every batch size and rate is known exactly."""

import numpy as np
import pytest
from scipy.optimize import brentq
from test_sweep import Heard
from tiny import config

from envs.quadratic import expected_loss, policy_return
from rl_gns.study.branch import branch
from rl_gns.study.branch_plan import Plan
from rl_gns.study.forks import find_checkpoint, read_fork
from rl_gns.study.train import train

QUADRATIC = {
    "env": "Quadratic",
    "total_env_steps": 800,
    "batch": {"size": 16, "segment_steps": 1, "minibatches": 1, "epochs": 1},
    "rollout": {"columns_per_collector": 8, "scatter_env_steps": 0, "burn_in_env_steps": 0},
    "learner": {
        "network": "linear",
        "optimizer": "sgd",
        "learning_rate": 1.3e-3,
        "threads": 1,
        "gamma": 0.0,
        "gae_lambda": 0.0,
        "normaliser": "none",
        "max_grad_norm": 0.0,
        "micro_batch": 512,
    },
    "noise": {"every": 0},
}
PLAN = Plan(batch_sizes=(48, 88), env_steps=6400, seeds=8, burn_in_env_steps=0)


def exact_deficit(size, weights, fork, plan):
    """Expected deficit over the reference's expected gain after the same env steps, under the better rule."""

    def loss(each, rule):
        learning_rate = fork.learning_rate * (each / plan.reference) ** {"none": 0, "linear": 1}[rule]
        return float(expected_loss(weights, each, learning_rate, plan.env_steps / each))

    before, reference = -policy_return(weights), loss(plan.reference, "none")
    return min(loss(size, rule) - reference for rule in ("none", "linear")) / (before - reference)


@pytest.mark.slow
@pytest.mark.patient
@pytest.mark.timeout(900)
def test_the_bracket_lies_within_a_factor_of_1_5_of_the_exact_answer(tmp_path):
    train(config(QUADRATIC), tmp_path / "run")
    found = branch(tmp_path / "run", 0, PLAN, None, lambda n: Heard(), cells_at_once=1)
    fork = read_fork(tmp_path / "run", find_checkpoint(tmp_path / "run", 0))
    weights = fork.state["learner"]["network"]["policy_head.weight"][0]
    exact = brentq(lambda size: exact_deficit(size, weights, fork, found.plan) - found.plan.tolerance, 17, 1000)
    bracket = found.bracket
    assert found.plan.learning_rate_rules == ("none", "linear") and bracket.resolved
    assert exact / 1.5 <= bracket.largest_pass < bracket.smallest_fail <= 1.5 * exact
    for row in found.rows:
        expected = expected_loss(weights, row.batch_size, row.learning_rate, PLAN.env_steps / row.batch_size)
        assert -np.mean(list(row.scores.values())) == pytest.approx(float(expected), rel=0.1)
        assert found.verdicts[row.batch_size] == ("pass" if row.batch_size == 48 else "fail")
