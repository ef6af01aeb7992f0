"""When a run reached a goal, judged on evaluations of the frozen policy at log-spaced optimizer steps.

The smoothed *training* return will not do: an episode of return G takes at least as many env steps of a column as it
is long, so at a fixed segment length it appears that many rollouts late whatever the batch size, which a front fit
takes for S_min. A trained policy that learns nothing more would "reach" its own return late, and the later the
smaller the batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from rl_gns.config import RunConfig
from rl_gns.records import GoalCrossing, UpdateRecord
from rl_gns.rollout.evaluation import evaluate
from rl_gns.trainer import Trainer

SPACING = 1.15
"""Evaluations lie this factor apart in S, so that they cost the same share of any run (a choice)."""


def evaluated(record: UpdateRecord, trainer: Trainer, steps_before: int) -> UpdateRecord:
    """The record with an evaluation of the policy as it is now, where one is due: in a run with goals, whenever S
    passes a power of `SPACING`, and at the end."""
    passed = _power(record.optimizer_steps) > _power(steps_before)
    if not trainer.config.goals or not (passed or trainer.over()):
        return record
    score, env_steps = evaluate(trainer.config, trainer.learner.weights(), record.update)
    return dataclasses.replace(record, evaluation_return=score, evaluation_env_steps=env_steps)


def _power(optimizer_steps: int) -> int:
    return math.floor(math.log(optimizer_steps) / math.log(SPACING)) if optimizer_steps else -1


def crossings(records: Sequence[dict[str, Any]], config: RunConfig) -> list[GoalCrossing]:
    """One crossing a goal, from the lines of metrics.jsonl.

    Evaluation returns are made nondecreasing in S (isotonic regression), and the crossing is interpolated linearly in
    ln S and ln E between the two evaluations around it; a goal that the first evaluation reaches is put there.
    """
    looks = [r for r in records if r["evaluation_return"] is not None]
    return [_crossing(goal, looks) for goal in config.goals]


def _crossing(goal: float, looks: list[dict[str, Any]]) -> GoalCrossing:
    smooth = isotonic_regression([r["evaluation_return"] for r in looks]).x if looks else np.array([])
    reached = np.flatnonzero(smooth >= goal)
    if not len(reached):
        return GoalCrossing(goal, False, None, None)
    at = int(reached[0])
    before = max(at - 1, 0)
    share = (goal - smooth[before]) / (smooth[at] - smooth[before]) if at else 1.0
    steps, env_steps = (
        math.exp((1 - share) * math.log(looks[before][name]) + share * math.log(looks[at][name]))
        for name in ("optimizer_steps", "env_steps")
    )
    return GoalCrossing(goal, True, steps, env_steps)
