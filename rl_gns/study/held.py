"""What noise scales predict beside what a sweep has found, from the sweep's directory alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_gns.config import ConfigError
from rl_gns.noise.pooled_prediction import (
    AGREE_WORDS,
    CONFIDENCE,
    Comparison,
    GoalPrediction,
    PooledPrediction,
    goal_prediction,
    hold_against,
    pool_runs,
)
from rl_gns.noise.run_prediction import Interval, RunPrediction
from rl_gns.on_disk import understood
from rl_gns.rundir import RunDir, read_json
from rl_gns.study.predict import from_records, interval_words, predict
from rl_gns.study.predict import words as run_words

SWEEP = "sweep.json"


@dataclass(frozen=True)
class GoalHeld:
    """One goal of a sweep, or of one run of it."""

    game: str
    goal_return: float
    variant: str
    """Of the sweep; empty where it has none."""
    predicted: PooledPrediction | RunPrediction | None
    """From the sweep's cells of the chosen rates that reached it, or from the one run up to there; None where nothing
    is known."""
    swept: dict[str, Any] | None
    """The fields of `noise.front.Front`."""
    swept_rollout: Interval | None
    """Its B_crit a rollout: times minibatches."""
    no_front: str | None
    """Why nothing was swept."""
    limited_by: str | None
    """`trust region`: its floor is the clip's, and the knee no critical batch size."""
    held: Comparison | None


def pooled(path: Path) -> dict[tuple[float, int, str], PooledPrediction]:
    """(goal, epochs, variant) -> prediction from the cells of a sweep's directory; empty without a sweep.json."""
    if not (path / SWEEP).is_file():
        return {}
    saved = read_json(path / SWEEP)
    groups: dict[tuple[float, int, str], list[tuple[GoalPrediction, int]]] = {}
    for cell in saved["cells"]:
        prediction = cell["prediction"] or {}
        if cell["chosen"] and cell["reached"] and prediction.get("s_min") is not None:
            variant = cell.get("variant", "")
            run = _goal_prediction(prediction, _batch(saved, variant)["minibatches"])
            groups.setdefault((cell["goal_return"], run.epochs, variant), []).append((run, cell["batch_size"]))
    return {key: pool_runs(*zip(*runs, strict=True)) for key, runs in groups.items()}


def _batch(saved: dict[str, Any], variant: str) -> dict[str, Any]:
    """The [batch] settings of one variant of a sweep; of the sweep itself where it has none."""
    return saved.get("variants", {}).get(variant, saved)["config"]["batch"]


def _goal_prediction(saved: dict[str, Any], minibatches: int) -> GoalPrediction:
    """Sweeps of before 2026-11-24 kept no interval of a single run, and no minibatches."""
    known = {"low": 0.0, "high": None, "minibatches": minibatches} | saved
    return GoalPrediction(**{field.name: known[field.name] for field in dataclasses.fields(GoalPrediction)})


def predict_sweep(path: Path) -> list[GoalHeld]:
    """Each goal of the sweep in `path`: its cells' prediction beside the knee."""
    saved, predictions = read_json(path / SWEEP), pooled(path)
    found = []
    for goal in saved["fronts"]:
        variant = goal.get("variant", "")
        predicted = predictions.get((goal["goal_return"], _batch(saved, variant)["epochs"], variant))
        found.append(_held(saved, goal, predicted, vars(predicted) if predicted else None))
    return found


def goals_of_a_run(path: Path, part: str = "policy") -> list[GoalHeld]:
    """The goals that the run in `path` reached, where it is a cell of the sweep in the directory above."""
    if not (path.resolve().parent / SWEEP).is_file():
        return []
    saved, run = read_json(path.resolve().parent / SWEEP), RunDir(path)
    config, records, found = run.config(), list(run.records()), []
    fronts = {(goal["goal_return"], goal.get("variant", "")): goal for goal in saved["fronts"]}
    for cell in saved["cells"]:
        if cell["name"] == path.resolve().name and cell["reached"]:
            until = [r for r in records if r["optimizer_steps"] <= cell["optimizer_steps"]]
            predicted = from_records(until, config, part, CONFIDENCE)
            flat = vars(goal_prediction(predicted)) if predicted else None
            goal = fronts[cell["goal_return"], cell.get("variant", "")]
            found.append(_held(saved, goal, predicted, flat))
    return found


def _held(saved: dict[str, Any], goal: dict[str, Any], predicted: Any, flat: dict[str, Any] | None) -> GoalHeld:
    variant = goal.get("variant", "")
    return GoalHeld(
        game=saved["config"]["env"],
        goal_return=goal["goal_return"],
        variant=variant,
        predicted=predicted,
        swept=goal["front"],
        swept_rollout=a_rollout(goal["front"], _batch(saved, variant)["minibatches"]) if goal["front"] else None,
        no_front=goal.get("no_front"),
        limited_by=goal.get("limited_by"),
        held=hold_against(flat, goal["front"]) if flat and goal["front"] and not goal.get("limited_by") else None,
    )


def words(goals: list[GoalHeld]) -> list[str]:
    """For people, some lines a goal."""
    return [line for goal in goals for line in _goal_words(goal)]


def _goal_words(goal: GoalHeld) -> list[str]:
    which = f"{goal.game}{goal.variant and f' ({goal.variant})'}"
    lines, found = [f"{which}, goal {goal.goal_return:g}:"], goal.predicted
    if found is None:
        lines.append("  predicted: nothing, no noise scale is known up to there")
    elif isinstance(found, RunPrediction):
        knee = f"{interval_words(found.b_crit)} an optimizer step, {interval_words(found.b_crit_rollout)} a rollout"
        lines.append(f"  predicted by this run up to there: B_crit {knee} ({found.confidence:.0%} interval)")
    else:
        lines += [f"  {line}" for line in _pooled_words(found)]
    lines.append(f"  swept: {_swept_words(goal)}")
    return [*lines, f"  predicted over swept: {held_words(goal.held)}"] if goal.held else lines


def _swept_words(goal: GoalHeld) -> str:
    if goal.swept is None or goal.swept_rollout is None:
        return f"no front: {goal.no_front}"
    if goal.limited_by:
        return f"{goal.limited_by.replace(' ', '-')} limited: no B_crit"
    knee = f"{interval_words(_knee(goal.swept))} an optimizer step, {interval_words(goal.swept_rollout)} a rollout"
    doubt = "" if goal.swept["resolved"] else f"; not resolved: {goal.swept['reason']}"
    return f"B_crit {knee} ({goal.swept['confidence']:.0%} interval{doubt})"


def _pooled_words(found: PooledPrediction) -> list[str]:
    knee = interval_words(_knee(vars(found)))
    lines = [
        f"predicted from {found.n_runs} runs, {found.confidence:.0%} interval from {found.n_units} {found.unit}:",
        f"  B_crit: {knee} env steps an optimizer step, {interval_words(found.b_crit_rollout)} a rollout",
        f"  S_min: {interval_words(found.s_min)} optimizer steps, {interval_words(found.s_min_rollouts)} rollouts",
        f"  E_min: {interval_words(found.e_min)} env steps",
    ]
    for each in found.by_batch_size:
        alone = interval_words(Interval(each.b_crit, each.low, each.high))
        lines.append(
            f"  runs at B = {each.batch_size:,} alone ({each.n_runs}): B_crit {alone}, S_min {each.s_min:,.3g}"
        )
    return lines


def _knee(known: dict[str, Any]) -> Interval:
    return Interval(known["b_crit"], known["low"], known["high"])


def a_rollout(front: dict[str, Any], minibatches: int) -> Interval:
    """A swept B_crit, env steps an optimizer step, in env steps a rollout."""
    numbers = (front["b_crit"], front["low"], front["high"])
    return Interval(*(None if number is None else minibatches * number for number in numbers))


def held_words(held: Comparison | None) -> str:
    """`311 [60 to no upper limit]: they do not agree`."""
    if held is None:
        return ""
    return f"{interval_words(Interval(held.ratio, held.low, held.high))}: {AGREE_WORDS[held.agree]}"


def predictions(path: Path, part: str, until_env_steps: int) -> tuple[Any, list[str]]:
    """(for programs, for people): each goal of a sweep's directory, or a run's whole prediction and, where it is a cell
    of a sweep, its goals."""
    with understood(path):
        return _predictions(path, part, until_env_steps)


def _predictions(path: Path, part: str, until_env_steps: int) -> tuple[Any, list[str]]:
    if (path / SWEEP).is_file():
        for flag, given in (("part", part != "policy"), ("until-env-steps", until_env_steps)):
            if given:
                raise ConfigError(f"--{flag}: read for a run; a sweep's directory holds the policy's, to each goal")
        goals = predict_sweep(path)
        return goals, words(goals)
    found, goals = predict(path, part, until_env_steps or None), goals_of_a_run(path, part)
    return {**vars(found), "goals": goals}, [*run_words(found), *words(goals)]
