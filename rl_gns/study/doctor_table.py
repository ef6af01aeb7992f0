"""A doctor's lines as a person reads them."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from rl_gns.study.doctor import Line

STYLES = {"ok": "green", "warning": "yellow", "failure": "bold red"}


def show(lines: list[Line], console: Console | None = None) -> None:
    """A line a thing, what to do below it, and how many are not ok."""
    console = console or Console(highlight=False, soft_wrap=True)
    width = max(len(line.what) for line in lines)
    for line in lines:
        console.print(Text.assemble((f"{line.state:8}", STYLES[line.state]), f"{line.what:{width}}  {line.found}"))
        if line.do:
            console.print(f"{'':8}{'':{width}}  -> {line.do}", markup=False)
    counts = {state: sum(line.state == state for line in lines) for state in STYLES}
    console.print(", ".join(f"{n} {state}" for state, n in counts.items()))
