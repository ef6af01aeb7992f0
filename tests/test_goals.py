"""Crossings of a goal: by hand, by real evaluation, and the control that learns nothing."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import BANDIT, CARTPOLE, config, trainer

from rl_gns.config import ConfigError
from rl_gns.rollout.evaluation import evaluate
from rl_gns.rundir import RunDir
from rl_gns.study.goals import CONFIRMATIONS, Look, collapsed, crossings, evaluated, looks, settled
from rl_gns.study.train import train


def seen(*rows):
    return [Look(*row) for row in rows]


def to_goals(*goals, judged_on="evaluation"):
    return dataclasses.replace(config(CARTPOLE), goals=tuple(map(float, goals)), goals_judged_on=judged_on)


def test_crossings_by_hand():
    """Between S = 10 and 40 the return goes from 0 to 20: a goal of 10 lies half-way in ln S, at S = 20."""
    found = crossings(seen((10, 100, 0.0), (40, 400, 20.0)), to_goals(10, 20, 50, -5))
    assert [c.reached for c in found] == [True, True, False, True]
    assert (found[0].optimizer_steps, found[0].env_steps) == pytest.approx((20, 200))
    assert found[1].optimizer_steps == pytest.approx(40)
    assert found[2].optimizer_steps is None and found[2].env_steps is None
    assert found[3].optimizer_steps == pytest.approx(10)


def test_one_lucky_evaluation_is_smoothed():
    lucky = seen((1, 10, 0.0), (2, 20, 10.0), (4, 40, 2.0), (8, 80, 12.0))
    assert crossings(lucky, to_goals(9))[0].optimizer_steps > 4
    assert crossings([], to_goals(9))[0].reached is False


def test_a_run_is_settled_once_later_evaluations_had_their_say():
    scores = seen(*((s, 10 * s, float(s)) for s in range(1, 8)))
    reached_at = [len(scores[:n]) for n in range(8) if crossings(scores[:n], to_goals(4))[0].reached]
    assert min(reached_at) == 4
    assert [settled(scores[:n], to_goals(2, 4)) for n in range(4, 8)] == [n >= 4 + CONFIRMATIONS for n in range(4, 8)]
    assert not settled(scores, to_goals(4, 100)) and not settled(scores, to_goals())


SCORES = st.lists(st.integers(-20, 20), min_size=1, max_size=25)


def at_powers(scores, scale=1):
    return seen(*((scale * 2**i, scale * 3 * 2**i, float(score)) for i, score in enumerate(scores)))


@given(SCORES, SCORES, st.integers(-15, 15))
def test_a_settled_crossing_does_not_depend_on_what_comes_later(scores, more, goal):
    settings = to_goals(goal)
    if settled(at_powers(scores), settings):
        first, later = (crossings(at_powers(s), settings)[0] for s in (scores, scores + more))
        assert dataclasses.replace(later, collapsed=first.collapsed) == first


@given(SCORES, st.integers(-15, 15), st.integers(0, 10))
def test_a_crossing_lies_where_it_must(scores, goal, higher):
    """Between the looks, later for a higher goal, in proportion to S, and with E = 3 S as all looks have it."""
    near, far = crossings(at_powers(scores), to_goals(goal, goal + higher + 0.5))
    assert near.reached or not far.reached
    if near.reached:
        assert 1 <= near.optimizer_steps <= 2 ** (len(scores) - 1) * (1 + 1e-9) and max(scores) >= goal
        assert near.env_steps == pytest.approx(3 * near.optimizer_steps)
        assert not far.reached or far.optimizer_steps >= near.optimizer_steps * (1 - 1e-9)
        scaled = crossings(at_powers(scores, 7), to_goals(goal))[0]
        assert scaled.optimizer_steps == pytest.approx(7 * near.optimizer_steps)


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=25, unique=True), st.data())
def test_rising_evaluations_are_only_interpolated(scores, data):
    scores = sorted(scores)
    goal = data.draw(st.integers(scores[0], scores[-1]))
    for judged_on in ("evaluation", "training"):
        found = crossings(at_powers(scores), to_goals(goal, judged_on=judged_on))[0]
        assert found.judged_on == judged_on
        assert np.log2(found.optimizer_steps) == pytest.approx(np.interp(goal, scores, range(len(scores))), abs=1e-9)


def test_a_collapse_is_a_half_of_the_way_won_and_half_of_that_lost():
    up, down = [0.0, 20.0, 40.0, 60.0, 60.0, 60.0], [20.0, 10.0, 10.0, 10.0]
    assert collapsed(100, np.array(up + down)) and not collapsed(100, np.array(up))
    assert not collapsed(130, np.array(up + down)), "it never came half-way"
    assert not collapsed(100, np.array([*up, 45.0, 40.0, 40.0])), "it kept more than half"
    assert not collapsed(-1, np.array(up + down)), "it began beyond the goal"
    found = crossings(at_powers(up + down), to_goals(50, 100))
    assert [(c.reached, c.collapsed) for c in found] == [(True, True), (False, True)]


def test_the_papers_mode_reads_the_smoothed_training_return_and_says_so(tmp_path):
    """No evaluation is played; the crossing is the first full window whose mean is the goal, as by hand."""
    changes = {"goals": [20.0], "goals_judged_on": "training", "stop_at_goal": True, "total_env_steps": 20_000}
    settings = config(CARTPOLE, changes)
    result = train(settings, tmp_path)
    records = list(RunDir(tmp_path).records())
    assert all(r["evaluation_return"] is None for r in records)
    (goal,) = result["goals"]
    assert (goal["judged_on"], goal["reached"], result["stopped"]) == ("training", True, "goal")
    full = [r for r in records if r["return_episodes"] >= settings.return_episodes]
    first = next(r for r in full if r["return_mean"] >= 20)
    assert first is records[-1] and goal["optimizer_steps"] <= first["optimizer_steps"]
    assert len(looks(records, settings)) == len(full) < len(records)


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
    assert crossings(looks(records, settings), settings)[0].optimizer_steps == 1


def test_evaluation_is_log_spaced_and_touches_no_weight(tmp_path):
    settings = config(CARTPOLE, {"goals": [1e6], "evaluation_episodes": 4, "total_env_steps": 4000})
    plain = dataclasses.replace(settings, goals=())
    found, bare = train(settings, tmp_path / "a"), train(plain, tmp_path / "b")
    assert found["goals"][0]["reached"] is False and bare["goals"] == []
    assert (found["return_mean"], found["optimizer_steps"]) == (bare["return_mean"], bare["optimizer_steps"])
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


@pytest.mark.parametrize("judged_on", ["training", "evaluation"])
def test_a_run_killed_between_its_last_checkpoint_and_its_result_ends_where_it_stood(judged_on, tmp_path):
    changes = {"goals": [12.0], "goals_judged_on": judged_on, "stop_at_goal": True, "total_env_steps": 6000}
    settings = config(CARTPOLE, changes)
    result = train(settings, tmp_path)
    assert result["stopped"] == "goal"
    (tmp_path / "result.json").unlink()
    assert train(settings, tmp_path) == result


@pytest.mark.parametrize("world", ["Bandit", "EchoedBandit"])
def test_a_world_whose_episodes_never_end_has_no_goals(world):
    """They would be evaluated for ever."""
    with pytest.raises(ConfigError, match=f"episodes of {world} never end"):
        config(BANDIT, {"env": world, "goals": [0.5]})
