"""Crossings of a goal: by hand, by real evaluation, and the control that learns nothing."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import CARTPOLE, config, trainer

from rl_gns.rollout.evaluation import evaluate
from rl_gns.study.goals import crossings, evaluated
from rl_gns.study.train import train


def looks(*rows):
    names = ("optimizer_steps", "env_steps", "evaluation_return")
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_crossings_by_hand():
    """Between S = 10 and 40 the return goes from 0 to 20: a goal of 10 lies half-way in ln S, at S = 20."""
    settings = dataclasses.replace(config(CARTPOLE), goals=(10.0, 20.0, 50.0, -5.0))
    found = crossings(looks((10, 100, 0.0), (20, 200, None), (40, 400, 20.0)), settings)
    assert [c.reached for c in found] == [True, True, False, True]
    assert (found[0].optimizer_steps, found[0].env_steps) == pytest.approx((20, 200))
    assert found[1].optimizer_steps == pytest.approx(40)
    assert found[2].optimizer_steps is None and found[2].env_steps is None
    assert found[3].optimizer_steps == pytest.approx(10)


def test_one_lucky_evaluation_is_smoothed():
    settings = dataclasses.replace(config(CARTPOLE), goals=(9.0,))
    lucky = looks((1, 10, 0.0), (2, 20, 10.0), (4, 40, 2.0), (8, 80, 12.0))
    assert crossings(lucky, settings)[0].optimizer_steps > 4
    assert crossings([], settings)[0].reached is False


def balancing(settings):
    """A trainer whose policy pushes towards the side that the pole falls to: a hand-made linear controller."""
    run = trainer(settings)
    with torch.no_grad():
        push = torch.tensor([[0.0, 0.0, -20.0, -10.0], [0.0, 0.0, 20.0, 10.0]])
        run.learner.network.policy_head.weight.copy_(push)
    return run


def test_evaluation_plays_whole_episodes_of_the_policy_that_it_is_given():
    settings = config(CARTPOLE, {"learner": {"network": "linear"}})
    good, bad = balancing(settings).learner.weights(), trainer(settings).learner.weights()
    score, env_steps = evaluate(settings, good, 0)
    assert score > 150 and env_steps == round(score * 20), "CartPole pays 1 an env step"
    assert evaluate(settings, good, 0) == (score, env_steps) != evaluate(settings, good, 1)
    assert 15 < evaluate(settings, bad, 0)[0] < 30, "a random policy lasts about 22 env steps"


@pytest.mark.parametrize("columns", [1, 16])
def test_a_good_policy_that_learns_nothing_crosses_at_once_at_any_batch_size(columns):
    """The null control of every front: judged on the training return, the small batch would cross much later."""
    settings = config(
        CARTPOLE,
        {
            "goals": [100.0],
            "learner": {"network": "linear", "learning_rate": 1e-12},
            "batch": {"size": 64 * columns, "minibatches": 1, "epochs": 1},
        },
    )
    run, records, steps = balancing(settings), [], 0
    for record in run.run():
        record, steps = evaluated(record, run, steps), record.optimizer_steps
        records.append(dataclasses.asdict(record))
        if len(records) == 3:
            break
    assert crossings(records, settings)[0].optimizer_steps == 1


def test_evaluation_is_log_spaced_and_touches_no_weight(tmp_path):
    settings = config(CARTPOLE, {"goals": [1e6], "evaluation_episodes": 4, "total_env_steps": 4000})
    plain = dataclasses.replace(settings, goals=())
    found, bare = train(settings, tmp_path / "a"), train(plain, tmp_path / "b")
    assert found["goals"][0]["reached"] is False and bare["goals"] == []
    assert (found["return_mean"], found["optimizer_steps"]) == (bare["return_mean"], bare["optimizer_steps"])
    from rl_gns.rundir import RunDir

    steps = [r["optimizer_steps"] for r in RunDir(tmp_path / "a").records() if r["evaluation_return"] is not None]
    assert steps[0] == 4 and steps[-1] == found["optimizer_steps"]
    assert max(np.diff(np.log(steps))) < 0.8 and len(steps) < found["optimizer_steps"] / 4


def test_new_goals_are_read_off_the_old_evaluations_and_trained_for_where_need_be(tmp_path):
    settings = config(CARTPOLE, {"goals": [12.0], "stop_at_goal": True, "total_env_steps": 6000})
    first = train(settings, tmp_path)
    assert first["stopped"] == "goal"
    further = train(dataclasses.replace(settings, goals=(12.0, 40.0)), tmp_path)
    assert [g["goal_return"] for g in further["goals"]] == [12, 40]
    assert further["goals"][0] == first["goals"][0] and further["env_steps"] > first["env_steps"]
