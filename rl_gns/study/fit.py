"""`rl-gns fit`: the knee of every front in a file of runs, or in a sweep's directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rl_gns.noise.front import Front, NoFront, fit_front
from rl_gns.noise.trust_region import VERDICT_WORDS
from rl_gns.study.confounds import mark
from rl_gns.study.points import GoalRun, read_points

WIDTH = 150
"""Columns of the table where there is no terminal."""
AIC_MARGIN = 2.0
"""Another curve is named only where its AICc is lower by this (a convention)."""


def fit(path: Path) -> list[dict[str, Any]]:
    """One object a game, goal, number of epochs and variant, in the order of the runs: the fields of `Front`, all None
    but `reason` and the counts where the runs make no front. Fronts of different epochs or variants are never pooled.
    Of a sweep's directory also what its variants' clips say: `limited_by`, `trust_region`."""
    groups: dict[tuple[str, float, int, str], list[GoalRun]] = {}
    for run in read_points(path):
        groups.setdefault((run.game, run.goal_return, run.epochs, run.variant), []).append(run)
    fronts = [
        {"game": game, "goal_return": goal, "variant": variant, **_front(runs)}
        for (game, goal, _, variant), runs in groups.items()
    ]
    mark(fronts, path)
    return fronts


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
    named = any(front["variant"] for front in fronts)
    names = ["game", "goal", *(["variant"] if named else []), "epochs", "runs", "S_min", "E_min", "B_crit (env steps)"]
    table = Table(*names, "rms ln S", "lower AICc")
    for front in fronts:
        table.add_row(*_cells(front, named))
    console.print(table)
    for front in fronts:
        which = f"{front['game']}, goal {front['goal_return']:g}{', ' * named}{front['variant']}"
        for note in _notes(front):
            console.print(f"{which}: {note}", markup=False, highlight=False)


def _cells(front: dict[str, Any], named: bool) -> list[str]:
    runs = f"{front['n_reached']} of {front['n']}"
    variant = [front["variant"]] if named else []
    first = [front["game"], f"{front['goal_return']:g}", *variant, str(front["epochs"]), runs]
    if front["rms_log"] is None:
        return [*first, "", "", "no front", "", ""]
    numbers = [_number(front["s_min"]), _number(front["e_min"]), knee_words(front)]
    return [*first, *numbers, f"{front['rms_log']:.3f}", _rival(front["aic"])]


def knee_words(front: dict[str, Any]) -> str:
    """`449 [397 to 507]`; one-sided `at least` and `at most`; `about` where the knee is not resolved; no number where
    the floor is the trust region's."""
    if front.get("limited_by"):
        return f"{front['limited_by'].replace(' ', '-')} limited"
    low, high = front["low"], front["high"]
    if low == 0 and high is None:
        return "unknown"
    if high is None:
        return f"at least {_number(low)}"
    if low == 0:
        return f"at most {_number(high)}"
    return f"{'' if front['resolved'] else 'about '}{_number(front['b_crit'])} [{_number(low)} to {_number(high)}]"


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
    return notes


def _number(value: float) -> str:
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"
