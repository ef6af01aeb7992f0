"""What `measure --all` adds, as a person reads it: a table of noise scales, and one of where the noise comes from."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show(found: dict[str, Any], console: Console | None = None) -> None:
    """Print both tables from the measurement's key `all`."""
    console = console or Console()
    console.print(_scales(found))
    split = found["split"]
    if split["reason"]:
        console.print(f"No split of the noise by its source: {split['reason']}.", soft_wrap=True, highlight=False)
    else:
        console.print(_shares(split))


def _scales(found: dict[str, Any]) -> Table:
    line, steps = found["line_search"], found["held_out_env_steps"]
    table = Table(title=f"Noise scale of the policy gradient in env steps, held-out: {steps:,} env steps")
    for name in ("metric", "B", "interval", "note"):
        table.add_column(name, justify="right" if name in ("B", "interval") else "left")
    rows = {"plain (B_simple)": found["plain"]}
    rows |= {f"layer {name}": scale for name, scale in found["layers"].items()}
    rows |= {f"Adam's, v: {found['adam_from']}": found["adam"], "Fisher (Gauss-Newton)": found["fisher"]}
    rows |= {"Hessian of the surrogate": found["hessian"]} if found["hessian"] else {}
    for name, scale in rows.items():
        table.add_row(name, *_cells(scale["b_simple"], scale))
    table.add_row("one-step line search", *_cells(line["b_noise"], line))
    return table


def _cells(value: float | None, scale: dict[str, Any]) -> tuple[str, str, str]:
    if value is None and scale["low"] is None:
        return "-", "-", scale["reason"]
    high = "unbounded" if scale["high"] is None else f"{scale['high']:,.3g}"
    return "-" if value is None else f"{value:,.3g}", f"{scale['low']:,.3g} to {high}", scale["reason"] or ""


def _shares(split: dict[str, Any]) -> Table:
    table = Table(title=f"Where the noise comes from: {split['n_starts']:,} segments, each replayed four times")
    for name in ("source", "share", "standard error"):
        table.add_column(name, justify="left" if name == "source" else "right")
    for name, share in split["shares"].items():
        table.add_row(name, f"{share['share']:.1%}", f"{share['standard_error'] / split['noise_trace']:.1%}")
    return table
