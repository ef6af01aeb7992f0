"""A plan as a person reads it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from rl_gns.study.plan import Plan
from rl_gns.study.progress import duration

WIDTH = 150
"""Columns where there is no terminal."""


def show(plan: Plan, console: Console | None = None) -> None:
    """Every cell, then a line a question, then the warnings."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH)
    table = Table(title=f"{plan.env}: {len(plan.cells)} cell{'s' * (len(plan.cells) > 1)}")
    for name in ("cell", "batch size", "learning rate", "seed", "env steps", "still to collect", "state"):
        table.add_column(name, justify="left" if name in ("cell", "state") else "right")
    for cell in plan.cells:
        numbers = f"{cell.batch_size:,}", f"{cell.learning_rate:g}", str(cell.seed), f"{cell.env_steps:,}"
        table.add_row(cell.name, *numbers, f"{cell.env_steps_left:,}", cell.state)
    console.print(table)
    for line in words(plan):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def words(plan: Plan) -> list[str]:
    """All but the table of cells."""
    lines = ["Not the default:", *(f"  {key}: {_show(a)} -> {_show(b)}" for key, (a, b) in plan.differs.items())]
    if plan.varies:
        lines += ["Differs between cells:", *(f"  {key}: {_values(v)}" for key, v in plan.varies.items())]
    done = sum(not cell.env_steps_left for cell in plan.cells)
    at_most = " at most: a cell stops at its goals" if plan.stops_at_goals else ""
    evaluations = f", and {plan.evaluations:,} evaluations" if plan.evaluations else ""
    lines.append(
        f"Cells to run: {len(plan.cells) - done} ({done} finished or reused, which cost nothing); "
        f"{plan.env_steps:,} env steps{at_most}{evaluations}."
    )
    lines += [_time(plan), _space(plan), *_speeds(plan)]
    return lines + [f"WARNING: {each}" for each in plan.warnings]


def _time(plan: Plan) -> str:
    here = plan.room
    actors = f" + {here.actors} actors" if here.actors else ""
    cpus = f"each {here.threads} thread{'s' * (here.threads > 1)}{actors}, {here.where} has {here.cpus:g} CPUs"
    at_once = f"{here.at_once} at once ({cpus})"
    if plan.seconds is None:
        return f"Wall-clock time: not measured; {at_once}."
    most = ", at most" if plan.stops_at_goals else ""
    low, high = duration(plan.seconds.low), duration(plan.seconds.high)
    return f"Wall-clock time: {duration(plan.seconds.expected)} ({low} to {high}{most}), {at_once}."


def _space(plan: Plan) -> str:
    frames = f"; frames of the largest rollout {_bytes(plan.frames_bytes)}" if plan.frames_bytes else ""
    free = f"{_bytes(plan.room.disk_free_bytes)} free"
    if plan.disk_bytes is None or plan.memory_bytes is None:
        return f"Disk and memory: not measured; {free}, {_bytes(plan.room.memory_free_bytes)} of memory{frames}."
    memory = f"{_bytes(plan.memory_bytes)} a cell at its peak, of {_bytes(plan.room.memory_free_bytes)} free"
    return f"Disk: {_bytes(plan.disk_bytes)} ({free}). Memory: {memory}{frames}."


def _speeds(plan: Plan) -> list[str]:
    if not plan.calibrations:
        return []
    lines = [f"Calibrated on this machine for {plan.calibration_seconds:.0f} s, collectors in this process:"]
    for each in plan.calibrations:
        lines.append(
            f"  B = {each.batch_size:,}: {each.env_steps_per_second:,.0f} env steps/s ({each.slowest:,.0f} to "
            f"{each.fastest:,.0f}, {each.rollouts} rollouts), start {each.start_seconds:.2g} s{_judging(each)}"
        )
    if plan.evaluations:
        lines.append("  Evaluations were of new policies: where episodes grow as a policy learns, so does their time.")
    return lines


def _judging(each: Any) -> str:
    return "" if each.evaluation_seconds is None else f", an evaluation {each.evaluation_seconds:.2g} s"


def _values(values: list[Any]) -> str:
    shown = [_show(value) for value in sorted(values, key=lambda v: (str(type(v)), v))]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "...", shown[-1]])


def _show(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:g}" if isinstance(value, float) else f"{value:,}"


def _bytes(count: int | None) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if (count or 0) >= size:
            return f"{(count or 0) / size:,.3g} {unit}"
    return f"{(count or 0) / 1e3:,.3g} kB"
