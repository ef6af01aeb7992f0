"""What a person sees while a run works: a live table on a terminal, one line a minute elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rl_gns.records import UpdateRecord, to_json
from rl_gns.study.progress import Progress

SECONDS_BETWEEN_LINES = 60.0
BAR_WIDTH = 40


class LiveView:
    """A context manager; `show` takes each record of a run that ends at `total_env_steps`."""

    def __init__(self, title: str, total_env_steps: int, console: Console | None = None):
        self._title, self._progress = title, Progress(total_env_steps)
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.is_terminal else None
        self._last_line: float | None = None

    def __enter__(self) -> LiveView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def show(self, record: UpdateRecord) -> None:
        """Draw the newest state."""
        self._progress.add(to_json(record))
        if self._live:
            self._live.update(progress_table(self._title, self._progress.words(), self._progress.share))
        elif self._due():
            print_line(self._console, self._title, self._progress.words())

    def _due(self) -> bool:
        now = time.monotonic()
        first, over = self._last_line is None, self._progress.share >= 1
        due = first or over or now - self._last_line >= SECONDS_BETWEEN_LINES
        if due:
            self._last_line = now
        return due


def progress_table(title: str, words: dict[str, str], share: float) -> Table:
    """One run: a bar of the budget that is spent, and a row a fact."""
    table = Table(title=Text(title), show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("progress", ProgressBar(total=1.0, completed=share, width=BAR_WIDTH))
    for name, value in words.items():
        table.add_row(name, Text(value))
    return table


def print_line(console: Console, title: str, words: dict[str, str]) -> None:
    """One run in one line, however long."""
    facts = ", ".join(f"{name} {value}" for name, value in words.items())
    console.print(f"{title}: {facts}", soft_wrap=True, markup=False, highlight=False)


class CellLines:
    """What becomes of the cells of a sweep, a line each, on standard error."""

    def __init__(self, cells: int):
        self._cells, self._begun = cells, set[str]()
        self._console = Console(stderr=True)

    def show(self, name: str, record: UpdateRecord) -> None:
        """Name a cell at its first record of this sitting."""
        if name not in self._begun:
            self._begun.add(name)
            self.say(name, f"runs (cell {len(self._begun)} of this sitting, {self._cells} in the grid)")

    def say(self, name: str, words: str) -> None:
        """How it stands."""
        self._console.print(f"{name}: {words}", soft_wrap=True, markup=False, highlight=False)
