"""Fronts that sweeps found for the games of a comparison: B_crit and its prediction, beside the measured B_simple."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import envs
from rl_gns.comparison import FRESH, ComparedCell, FrontBeside, Ratio
from rl_gns.config import ConfigError, RunConfig, first_difference
from rl_gns.config_file import from_table
from rl_gns.noise.scale import hopeless_of
from rl_gns.on_disk import understood
from rl_gns.rundir import read_json
from rl_gns.study.compare_plan import shared
from rl_gns.study.compare_pool import ratio
from rl_gns.study.held import SWEEP, GoalHeld, predict_sweep
from rl_gns.study.pooled import pool

VARIES = {"batch": ("size",), "learner": ("learning_rate",), "rollout": ("columns_per_collector",)}
"""What a sweep varies by itself, and so is no other protocol."""


def read_fronts(directories: Sequence[Path], base: RunConfig, games: Sequence[str], force: bool) -> list[FrontBeside]:
    """Every goal of every sweep for one of the games, its `measured_ratio` still missing. ConfigError where there is no
    sweep, and where one of another protocol is not forced."""
    found = []
    for path in directories:
        if not (path / SWEEP).is_file():
            raise ConfigError(f"--fronts: {path}: no {SWEEP} in it; give a sweep's directory")
        with understood(path):
            saved = read_json(path / SWEEP)
            if saved["config"]["env"] in games:
                found += [_front(path, saved, goal, base, force) for goal in predict_sweep(path)]
    return found


def _front(path: Path, saved: dict[str, Any], goal: GoalHeld, base: RunConfig, force: bool) -> FrontBeside:
    table = saved.get("variants", {}).get(goal.variant, saved)["config"]
    config = from_table(table, RunConfig())
    differs = first_difference(_kept(config), _kept(base))
    if differs and not force:
        raise ConfigError(
            f"--fronts: {path}: another protocol than this comparison's ({differs}); leave it out, or take it and have "
            "it marked with --force"
        )
    swept, predicted = goal.swept, vars(goal.predicted) if goal.predicted else {}
    known = swept if swept and not goal.limited_by else {}
    return FrontBeside(
        game=goal.game,
        directory=str(path),
        goal_return=goal.goal_return,
        variant=goal.variant,
        b_crit=known.get("b_crit"),
        low=known.get("low"),
        high=known.get("high"),
        resolved=bool(known.get("resolved")),
        no_b_crit=goal.no_front or (f"the floor is the {goal.limited_by}'s" if goal.limited_by else None),
        confidence=(swept or predicted).get("confidence"),
        predicted=predicted.get("b_crit"),
        predicted_low=predicted.get("low"),
        predicted_high=predicted.get("high"),
        ratio=Ratio(goal.held.ratio, goal.held.low, goal.held.high) if goal.held else None,
        measured_ratio=None,
        protocol=front_words(config),
        forced=differs,
    )


def _kept(config: RunConfig) -> dict[str, Any]:
    return {
        table: {name: each for name, each in value.items() if name not in VARIES.get(table, ())}
        if isinstance(value, dict)
        else value
        for table, value in shared(config).items()
    }


def front_words(config: RunConfig) -> str:
    """A sweep's protocol in one line."""
    batch, learner = config.batch, config.learner
    return (
        f"{envs.protocol(config.env, config.atari)}; {learner.network}, {learner.optimizer}; "
        f"T = {batch.segment_steps}; {batch.epochs} epochs x {batch.minibatches} minibatches; "
        f"gamma {learner.gamma:g}, lambda {learner.gae_lambda:g}; advantages {learner.normaliser}"
    )


def measured_ratio(front: FrontBeside, cells: Sequence[ComparedCell]) -> Ratio | None:
    """The game's B_simple at its last stage after fresh, policy part, over the front's B_crit; both intervals are of
    the front's confidence. None where either is missing, or no env steps would resolve a seed."""
    later = [each for each in cells if each.game == front.game and each.stage != FRESH]
    if not later or front.b_crit is None or front.confidence is None:
        return None
    last = max(each.stage for each in later)
    pooled = pool([each.noise["policy"] for each in later if each.stage == last], front.confidence)
    if hopeless_of(pooled.reason):
        return None
    return ratio(
        {"b_crit": pooled.b_simple, "low": pooled.low, "high": pooled.high},
        {"b_crit": front.b_crit, "low": front.low, "high": front.high},
    )
