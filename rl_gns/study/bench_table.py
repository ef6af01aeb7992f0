"""A bench result as a person reads it: one line a quantity, with its spread, its bound and the verdict."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from rl_gns.study.bench import BenchResult, Spread

LINES = {
    "component_limit": "component limit",
    "end_to_end": "end to end, probe off",
    "share_of_limit": "end to end / limit",
    "probe_overhead": "probe, with / without",
    "probe_overhead_by_clock": "probe, its own clock",
    "bytes_per_env_step": "an env step in the store",
    "busy_share": "used by others",
}
"""Field of BenchResult -> its words."""


def show(result: BenchResult, console: Console | None = None) -> None:
    """Print the table, what it was measured on, and why nothing was judged where nothing was."""
    table = Table(title=f"{result.env}: medians of {result.alternations} alternations, {result.rollouts} rollouts each")
    for name in ("", "median", "low to high", "unit", "verdict"):
        table.add_column(name, justify="right" if name in ("median", "low to high") else "left")
    for name, measured in result.components.items():
        table.add_row(f"{name} alone", *_cells(measured), "")
    for name, words in LINES.items():
        verdict = result.verdicts.get(name)
        kind = f"{verdict.verdict.partition(':')[0]} ({verdict.bound})" if verdict else ""
        table.add_row(words, *_cells(getattr(result, name)), kind)
    console = console or Console()
    console.print(table)
    console.print(", ".join(f"{k} {v}" for k, v in result.machine.items()), soft_wrap=True, highlight=False)
    for reason in {v.verdict for v in result.verdicts.values() if v.verdict.startswith("not judged")}:
        console.print(reason, soft_wrap=True, highlight=False)


def _cells(measured: Spread) -> tuple[str, str, str]:
    digits = 0 if abs(measured.median) >= 100 else 1
    low, high = (f"{v:,.{digits}f}" for v in (measured.low, measured.high))
    return f"{measured.median:,.{digits}f}", f"{low} to {high}", measured.unit
