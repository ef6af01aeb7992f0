"""When a run reached a goal, judged on evaluations of the frozen policy at log-spaced optimizer steps.

The smoothed *training* return will not do: an episode of return G takes at least as many env steps of a column as it
is long, so at a fixed segment length it appears that many rollouts late whatever the batch size, which a front fit
takes for S_min. A trained policy that learns nothing more would "reach" its own return late, and the later the
smaller the batch. It is the paper's rule, and there for comparison: `goals_judged_on = "training"`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from rl_gns.config import RunConfig
from rl_gns.records import UpdateRecord
from rl_gns.result import GoalCrossing
from rl_gns.rollout.evaluation import evaluate
from rl_gns.trainer import Trainer

SPACING = 1.15
"""Evaluations lie this factor apart in S, so that they cost the same share of any run (a choice)."""
CONFIRMATIONS = 2
"""So many evaluations after a crossing have a say in it (a choice), and no later one: where a run crossed does not
depend on how long it went on, and a policy that collapses later has reached the goal all the same."""
SMOOTHED_LOOKS = 3
"""A collapse is judged on means of so many looks in a row (a choice)."""


class Look(NamedTuple):
    """One judgement of the policy; `score` is a mean raw return."""

    optimizer_steps: int
    env_steps: int
    score: float


def evaluated(record: UpdateRecord, trainer: Trainer, steps_before: int) -> UpdateRecord:
    """The record with an evaluation of the policy as it is now, where one is due: in a run whose goals are judged on
    evaluations, whenever S passes a power of `SPACING`, and at the end."""
    config = trainer.config
    passed = _power(record.optimizer_steps) > _power(steps_before)
    if not config.goals or config.goals_judged_on != "evaluation" or not (passed or trainer.over()):
        return record
    score, env_steps = evaluate(config, trainer.learner.weights(), record.update)
    return dataclasses.replace(record, evaluation_return=score, evaluation_env_steps=env_steps)


def evaluations_due(config: RunConfig, rollouts: int) -> int:
    """How many evaluations a run of so many rollouts plays."""
    if not config.goals or config.goals_judged_on != "evaluation" or not rollouts:
        return 0
    powers = [_power(n * config.batch.epochs * config.batch.minibatches) for n in range(rollouts + 1)]
    passed = [new > old for old, new in itertools.pairwise(powers)]
    return sum(passed) + (not passed[-1])


def _power(optimizer_steps: int) -> int:
    return math.floor(math.log(optimizer_steps) / math.log(SPACING)) if optimizer_steps else -1


def look(record: Mapping[str, Any], config: RunConfig) -> Look | None:
    """What one line of metrics.jsonl says about the policy: its evaluation, if it has one, or, where goals are judged
    on training, the mean return of the last `return_episodes` episodes, once there are as many."""
    if config.goals_judged_on == "training":
        score = record["return_mean"] if record["return_episodes"] >= config.return_episodes else None
    else:
        score = record["evaluation_return"]
    return None if score is None else Look(record["optimizer_steps"], record["env_steps"], score)


def looks(records: Iterable[Mapping[str, Any]], config: RunConfig) -> list[Look]:
    """Every look of a run, in order."""
    return [seen for record in records if (seen := look(record, config)) is not None]


def crossings(seen: Sequence[Look], config: RunConfig) -> list[GoalCrossing]:
    """One crossing a goal.

    Evaluations are made nondecreasing in S by isotonic regression over those up to `CONFIRMATIONS` after the one in
    question; the first whose value is the goal or more has reached it. The training return, smooth already, is made
    nondecreasing by its running maximum. S and E are interpolated linearly in the return, in ln S and ln E, from the
    look before; a goal that the first look reaches is put there.
    """
    scores = np.array([each.score for each in seen])
    return [_crossing(goal, seen, scores, config.goals_judged_on) for goal in config.goals]


def settled(seen: Sequence[Look], config: RunConfig) -> bool:
    """Every goal is reached, and has the looks after it that have a say."""
    scores = np.array([each.score for each in seen])
    found = [_first(goal, scores, config.goals_judged_on) for goal in config.goals]
    say = CONFIRMATIONS if config.goals_judged_on == "evaluation" else 0
    return bool(found) and all(each is not None and each[0] + say < len(scores) for each in found)


def _crossing(goal: float, seen: Sequence[Look], scores: np.ndarray, judged_on: str) -> GoalCrossing:
    found, fallen = _first(goal, scores, judged_on), collapsed(goal, scores)
    if found is None:
        return GoalCrossing(goal, judged_on, False, None, None, fallen)
    at, smooth = found
    before = max(at - 1, 0)
    share = (goal - smooth[before]) / (smooth[at] - smooth[before]) if at else 1.0
    steps, env_steps = (
        math.exp((1 - share) * math.log(getattr(seen[before], name)) + share * math.log(getattr(seen[at], name)))
        for name in ("optimizer_steps", "env_steps")
    )
    return GoalCrossing(goal, judged_on, True, steps, env_steps, fallen)


def _first(goal: float, scores: np.ndarray, judged_on: str) -> tuple[int, np.ndarray] | None:
    """(index of the look that reached the goal, nondecreasing scores up to there or further), or None."""
    if judged_on == "training":
        reached = np.flatnonzero(scores >= goal)
        return (int(reached[0]), np.maximum.accumulate(scores)) if len(reached) else None
    for at in range(len(scores)):
        window = scores[: at + 1 + CONFIRMATIONS]
        if window.max() >= goal and (smooth := isotonic_regression(window).x)[at] >= goal:
            return at, smooth
    return None


def collapsed(goal: float, scores: np.ndarray) -> bool:
    """The run lost what it had won: its best mean of `SMOOTHED_LOOKS` scores in a row lay at least half-way from its
    first score to the goal, and its last such mean has given back at least half of that rise.

    Both halves are choices. A run that is not known to be getting anywhere is no evidence of more steps to come: it is
    counted, not censored.
    """
    if len(scores) < 2 * SMOOTHED_LOOKS or goal <= scores[0]:
        return False
    means = np.convolve(scores, np.full(SMOOTHED_LOOKS, 1 / SMOOTHED_LOOKS), mode="valid")
    rise = means.max() - scores[0]
    return bool(rise >= (goal - scores[0]) / 2 and means[-1] - scores[0] <= rise / 2)
