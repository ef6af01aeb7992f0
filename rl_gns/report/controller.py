"""What a run's controller saw, wanted and did."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rl_gns.digits import round3, with_interval
from rl_gns.report import drawing
from rl_gns.report.drawing import BLUE, GREEN, INK, ORANGE, Drawn, Table
from rl_gns.report.found import FoundRun
from rl_gns.report.noise_figures import series

COLUMNS = (
    "begun_env_steps",
    "env_steps",
    "saw_b_simple_env_steps",
    "saw_low_env_steps",
    "saw_high_env_steps",
    "saw_resolved",
)
COLUMNS += ("target_batch_size_env_steps", "asked_batch_size_env_steps", "got_batch_size_env_steps", "moved", "reason")
FIELDS = ("saw_b_simple", "saw_low", "saw_high", "saw_resolved", "target_batch_size")
FIELDS += ("asked_batch_size", "got_batch_size", "moved", "reason")


def decisions(run: FoundRun, name: str) -> Drawn | None:
    """None where the batch size was fixed, or nothing was decided."""
    if run.config.control.policy == "fixed" or not any(record.get("decision") for record in run.records):
        return None
    decided = [record for record in run.records if record.get("decision")]
    records = drawing.thinned(decided, [record["decision"]["moved"] for record in decided])
    each, begun = [record["decision"] for record in records], np.array([_begun(record) for record in records], float)
    figure, axes = drawing.panels(height=4.2)
    _saw(axes, begun, each)
    got = series(each, "got_batch_size")
    _along(axes, begun, series(each, "target_batch_size"), "--", color=BLUE, label="wanted: kappa x B_simple")
    axes.step(begun, got, where="post", color=GREEN, lw=1.8, label="used")
    moved = np.array([bool(decision["moved"]) for decision in each])
    if moved.any():
        axes.plot(begun[moved], got[moved], "o", ms=5, mfc="none", mec=INK, label="moved")
    axes.set(xlabel="env steps E", ylabel="batch size B (env steps)")
    drawing.log_axis(axes, "y")
    drawing.plain_axis(axes, "x")
    drawing.legend_below(figure, axes, columns=2)
    control = run.config.control
    return Drawn(
        name=name,
        title=f"{run.config.env}: what the controller saw and did ({run.name})",
        figure=figure,
        columns=COLUMNS,
        rows=[_row(record) for record in records],
        table=_moves(decided),
        caption=f"It follows {control.kappa:g} x B_simple ({control.part}, {control.estimator}), moves where that is "
        f"more than {control.hysteresis:g} times away from the batch size in use, at most by a factor of 2 at once, "
        f"from {run.config.batch_floor:,} to {run.config.batch_cap:,} env steps. Band: the interval that it saw, where "
        "that was resolved (a dot and a bar: once alone).",
        origin=run.origin,
    )


def _begun(record: dict[str, Any]) -> int:
    """E at which the decision was made: the rollout was collected after it."""
    return record["env_steps"] - record["used_env_steps"]


def _row(record: dict[str, Any]) -> tuple[Any, ...]:
    return (_begun(record), record["env_steps"], *(record["decision"].get(n) for n in FIELDS))


def _along(axes: Axes, at: np.ndarray, values: np.ndarray, dashes: str, **look: Any) -> None:
    """A line, with a dot where a value stands alone: a line would draw nothing there."""
    alone = list(np.flatnonzero(_alone(np.isfinite(values))))
    axes.plot(at, values, dashes, lw=1, marker="." if alone else None, ms=5, markevery=alone or None, **look)


def _alone(known: np.ndarray) -> np.ndarray:
    """True where the one before and the one after are not known."""
    beside = np.concatenate([[False], known, [False]])
    return known & ~beside[:-2] & ~beside[2:]


def _saw(axes: Axes, begun: np.ndarray, each: list[dict[str, Any]]) -> None:
    resolved = np.array([bool(decision["saw_resolved"]) for decision in each])
    if not resolved.any():
        return
    low, high = (np.where(resolved, series(each, name), np.nan) for name in ("saw_low", "saw_high"))
    low, alone = np.maximum(low, 1.0), _alone(resolved)
    axes.fill_between(begun, low, high, color=ORANGE, alpha=0.18, lw=0, label="B_simple seen: interval")
    axes.vlines(begun[alone], low[alone], high[alone], color=ORANGE, alpha=0.4, lw=2)
    values = np.where(resolved, series(each, "saw_b_simple"), np.nan)
    _along(axes, begun, values, "-", color=ORANGE, label="B_simple seen")


def _moves(decided: list[dict[str, Any]]) -> Table:
    lines, before = [], None
    for record in decided:
        decision = record["decision"]
        if decision["moved"]:
            saw = with_interval(decision["saw_b_simple"], decision["saw_low"], decision["saw_high"])
            begun = f"{_begun(record):,}"
            came = "" if before is None else f"{before:,}"
            wanted = "" if decision["target_batch_size"] is None else round3(decision["target_batch_size"])
            lines.append((begun, came, f"{decision['got_batch_size']:,}", wanted, saw, decision["reason"]))
        before = decision["got_batch_size"]
    head = ("at E (env steps)", "from B", "to B", "wanted", "B_simple seen (env steps)", "why")
    return Table(head, lines or [("", "", "", "", "", "it never moved")])
