"""The controller inside a run: columns follow the batch, resumes decide alike, more columns tell the same B_simple."""

import json

import numpy as np
import pytest
from tiny import BANDIT, CARTPOLE, bandit_with_policy, config, numbers, trainer

from envs.bandits import true_noise_scale
from rl_gns.noise.held import frozen_scale
from rl_gns.noise.moments import FrozenMoments
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import make_learner
from rl_gns.study.train import train

FOLLOW = {
    "batch": {"size": 128},
    "learner": {"learning_rate": 1e-9},
    "control": {"policy": "follow", "max_batch_size": 4096},
    "total_env_steps": 30_000,
}


@pytest.mark.parametrize("estimator", ["updates", "across"])
def test_a_followed_bandit_comes_to_its_true_noise_scale(estimator):
    """The policy stands still (learning rate 1e-9) at a true noise scale of 285 env steps: B goes up from 128 and ends
    within a factor of 2 x hysteresis (fixed seed; first resolved intervals are wide), and columns follow it."""
    logits = (2.0, -2.0)
    run = trainer(config(BANDIT, FOLLOW | {"control": FOLLOW["control"] | {"estimator": estimator}}))
    run.restore(bandit_with_policy(run.config, logits, 0.0))
    records = list(run.run())
    followed = [(r.noise if estimator == "updates" else r.noise_across) or {} for r in records]
    for before, r in zip(followed, records[1:], strict=False):
        assert r.decision.saw_b_simple == (before["policy"].b_simple if before else None)
    signal_sq, noise_trace = true_noise_scale(np.array(logits), 0.0)
    moves = [r for r in records if r.decision.moved]
    assert moves and moves[0].batch_size == 256 and all(r.decision.saw_resolved for r in moves)
    assert noise_trace / signal_sq / 4 < records[-1].batch_size < 4 * noise_trace / signal_sq
    for r in records:
        assert r.collected_env_steps == r.requested_env_steps == r.batch_size == r.decision.got_batch_size
        assert r.columns * 16 == r.batch_size and r.used_env_steps == r.collected_env_steps - r.masked_env_steps


def test_columns_that_wake_up_burn_in_first():
    """Collectors 2 and 3 sleep through two policies: their next blocks begin after a burn-in, the others' do not."""
    settings = config(CARTPOLE, {"rollout": {"burn_in_env_steps": 7}})
    weights, source = make_learner(settings).weights(), LocalSource(settings)
    spent = []
    for version, collectors in enumerate([4, 4, 2, 2, 4, 4]):
        source.publish(weights, version)
        spent.append([b.burn_in_env_steps for b in source.collect(collectors, 16).blocks])
    source.close()
    first, awake = spent[0], 7 * 4
    assert all(steps >= awake for steps in first) and spent[1:4] == [[0] * 4, [0] * 2, [0] * 2]
    assert spent[4] == [0, 0, awake, awake] and spent[5] == [0] * 4


def test_four_times_the_columns_leave_b_simple_where_it_was():
    """One frozen CartPole policy on 16 and on 64 columns (T = 16): 95 % intervals overlap (2.8 standard errors of the
    difference: false-alarm rate below 1 %) and are no wider than a factor of 2, so that a factor of 4 would be seen."""
    settings = config(CARTPOLE, {"noise": {"groups": 16}, "rollout": {"burn_in_env_steps": 100}})
    learner, source = make_learner(settings), LocalSource(settings)
    source.publish(learner.weights(), 0)
    calibration = learner.prepare(source.collect(4, 16).blocks)
    learner.statistics.add(calibration.advantages())
    scales = [frozen(learner, source, collectors, rollouts) for collectors, rollouts in ((4, 240), (16, 60))]
    source.close()
    assert all(s.resolved for s in scales)
    assert max(s.low for s in scales) < min(s.high for s in scales)
    assert all(s.high < 2 * s.low for s in scales)
    np.testing.assert_allclose(scales[0].noise_trace, scales[1].noise_trace, rtol=0.1)


def frozen(learner, source, collectors, rollouts):
    held = FrozenMoments()
    for _ in range(rollouts):
        batch = learner.prepare(source.collect(collectors, 16).blocks)
        gradients = learner.group_gradients(batch)
        moments = learner.moments(batch, gradients)
        held.add({"policy": gradients.policy.numpy(), "rest": gradients.rest.numpy()}, moments.gram, moments.env_steps)
    return frozen_scale(held, "policy", 0.95, key=moments.key, policy_version=0, off_policy=False)


def test_a_resumed_run_decides_alike(tmp_path):
    base = FOLLOW | {"control": {"policy": "follow", "kappa": 20.0}, "checkpoint": {"every_env_steps": 4_000}}
    settings, half = (config(BANDIT, base | {"total_env_steps": n}) for n in (30_000, 10_000))
    whole = train(settings, tmp_path / "whole")
    train(half, tmp_path / "resumed")
    resumed = train(settings, tmp_path / "resumed")
    assert whole["batch_size_moves"] >= 1 and numbers(whole) == numbers(resumed)
    lines = [
        [numbers(json.loads(line)) for line in (tmp_path / name / "metrics.jsonl").open()]
        for name in ("whole", "resumed")
    ]
    assert lines[0] == lines[1]


def test_the_state_of_the_controller_is_in_the_checkpoint():
    run = trainer(config(BANDIT, FOLLOW))
    state = run.state()
    state["control"] = {"batch_size": 1024}
    run.restore(state)
    assert next(run.run()).batch_size == 1024
