"""`rl-gns fit`: the knee of every front in a file of runs, or in a sweep's directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rl_gns.digits import round3
from rl_gns.noise.front import Front, NoFront, fit_front
from rl_gns.noise.pooled_prediction import PooledPrediction, hold_against
from rl_gns.noise.run_prediction import Interval
from rl_gns.noise.trust_region import VERDICT_WORDS
from rl_gns.on_disk import understood
from rl_gns.study.confounds import mark
from rl_gns.study.held import a_rollout, held_words, pooled
from rl_gns.study.points import GoalRun, read_points
from rl_gns.study.predict import interval_words

WIDTH = 190
"""Columns of the table where there is no terminal."""
AIC_MARGIN = 2.0
"""Another curve is named only where its AICc is lower by this (a convention)."""


def fit(path: Path) -> list[dict[str, Any]]:
    """One object a game, goal, number of epochs and variant, in the order of the runs: the fields of `Front`, all None
    but `reason` and the counts where the runs make no front. Fronts of different epochs or variants are never pooled.
    Of a sweep's directory also what its variants' clips say, `limited_by` and `trust_region`; and, None for a CSV file,
    `predicted`, the `PooledPrediction` from the noise scales of its own cells, `held`, its `Comparison` with the knee,
    and `b_crit_rollout`, the knee's `Interval` a rollout."""
    groups: dict[tuple[str, float, int, str], list[GoalRun]] = {}
    for run in read_points(path):
        groups.setdefault((run.game, run.goal_return, run.epochs, run.variant), []).append(run)
    with understood(path):
        predictions = pooled(path) if path.is_dir() else {}
    fronts = []
    for (game, goal, epochs, variant), runs in groups.items():
        front = _front(runs)
        beside = _beside(front, predictions.get((goal, epochs, variant)))
        fronts.append({"game": game, "goal_return": goal, "variant": variant, **front, **beside})
    with understood(path):
        mark(fronts, path)
    return fronts


def _beside(front: dict[str, Any], predicted: PooledPrediction | None) -> dict[str, Any]:
    both = predicted if front["low"] is not None else None
    return {
        "b_crit_rollout": a_rollout(front, predicted.minibatches) if both else None,
        "predicted": predicted,
        "held": hold_against(vars(predicted), front) if both else None,
    }


def _front(runs: list[GoalRun]) -> dict[str, Any]:
    rates = [run.learning_rate for run in runs]
    try:
        front = fit_front(
            [run.batch_env_steps for run in runs],
            [run.optimizer_steps for run in runs],
            epochs=runs[0].epochs,
            reached=[run.reached for run in runs],
            learning_rate=None if None in rates else rates,
        )
        return dataclasses.asdict(front)
    except NoFront as error:
        unknown = dict.fromkeys(field.name for field in dataclasses.fields(Front))
        counts = {"n": len(runs), "n_reached": sum(run.reached for run in runs), "epochs": runs[0].epochs}
        return unknown | counts | {"resolved": False, "reason": str(error)}


def show(fronts: list[dict[str, Any]], console: Console | None = None) -> None:
    """A table for people, and below it why a knee is not resolved."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH)
    named, predicted = any(f["variant"] for f in fronts), any(f["predicted"] for f in fronts)
    variant, more = ["variant"] * named, ["predicted B_crit", "predicted / swept"] * predicted
    names = ["game", "goal", *variant, "epochs", "runs", "S_min", "E_min", "B_crit (env steps)", *more]
    table = Table(*names, "rms ln S", "lower AICc")
    for front in fronts:
        first, last = _cells(front, named)
        table.add_row(*first, *(_prediction(front) if predicted else ()), *last)
    console.print(table)
    for front in fronts:
        which = f"{front['game']}, goal {front['goal_return']:g}{', ' * named}{front['variant']}"
        for note in _notes(front):
            console.print(f"{which}: {note}", markup=False, highlight=False)


def _prediction(front: dict[str, Any]) -> tuple[str, str]:
    found = front["predicted"]
    knee = interval_words(Interval(found.b_crit, found.low, found.high)) if found else ""
    return knee, held_words(front["held"])


def _cells(front: dict[str, Any], named: bool) -> tuple[list[str], list[str]]:
    runs = f"{front['n_reached']} of {front['n']}"
    variant = [front["variant"]] if named else []
    first = [front["game"], f"{front['goal_return']:g}", *variant, str(front["epochs"]), runs]
    if front["rms_log"] is None:
        return [*first, "", "", "no front"], ["", ""]
    numbers = [round3(front["s_min"]), round3(front["e_min"]), knee_words(front)]
    return [*first, *numbers], [f"{front['rms_log']:.3f}", _rival(front["aic"])]


def knee_words(front: dict[str, Any]) -> str:
    """`449 [397 to 507]`; one-sided `at least` and `at most`; `about` where the knee is not resolved; no number where
    the floor is the trust region's."""
    if front.get("limited_by"):
        return f"{front['limited_by'].replace(' ', '-')} limited"
    low, high = front["low"], front["high"]
    if low == 0 and high is None:
        return "unknown"
    if high is None:
        return f"at least {round3(low)}"
    if low == 0:
        return f"at most {round3(high)}"
    return f"{'' if front['resolved'] else 'about '}{round3(front['b_crit'])} [{round3(low)} to {round3(high)}]"


def _rival(aic: dict[str, float | None]) -> str:
    known = {name: value for name, value in aic.items() if value is not None}
    if "hyperbola" not in known:
        return ""
    best = min(known, key=known.get)
    gain = known["hyperbola"] - known[best]
    return f"{best.replace('_', ' ')}, by {gain:.1f}" if gain > AIC_MARGIN else ""


def _notes(front: dict[str, Any]) -> list[str]:
    notes = [] if front["resolved"] else [f"not resolved: {front['reason']}"]
    if verdict := front.get("trust_region"):
        notes.append(f"limited by the trust region: {VERDICT_WORDS[verdict['verdict']]} ({verdict['reason']})")
    if front["widen"]:
        sizes = ", ".join(f"{size:,.0f}" for size in front["widen"])
        notes.append(
            f"the best learning rate is not inside those tried at B = {sizes}: left out; widen the rates there"
        )
    if (found := front["predicted"]) and not front["limited_by"]:
        swept = interval_words(front["b_crit_rollout"]) if front["b_crit_rollout"] else "no front"
        notes.append(
            f"B_crit a rollout: swept {swept}, predicted {interval_words(found.b_crit_rollout)} "
            f"(from {found.n_runs} runs, {found.confidence:.0%} interval from {found.n_units} {found.unit})"
        )
    return notes
