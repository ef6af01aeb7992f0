"""What a person sees while a run works: a live table on a terminal, one line a minute elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from rl_gns.records import NoiseScale, UpdateRecord

SECONDS_BETWEEN_LINES = 60.0


class LiveView:
    """A context manager; `show` takes each record of a run that ends at `total_env_steps`."""

    def __init__(self, title: str, total_env_steps: int, console: Console | None = None):
        self._title, self._total = title, total_env_steps
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.is_terminal else None
        self._started = self._last_line = time.monotonic()
        self._first: UpdateRecord | None = None
        self._noise: dict[str, NoiseScale] | None = None

    def __enter__(self) -> LiveView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def show(self, record: UpdateRecord) -> None:
        """Draw the newest state."""
        self._noise = record.noise or self._noise
        rows = self._rows(record)
        if self._live:
            self._live.update(_table(self._title, rows))
        elif self._due(record):
            self._console.print(f"{self._title}: " + ", ".join(f"{k} {v}" for k, v in rows.items()), soft_wrap=True)
        self._first = self._first or record

    def _due(self, record: UpdateRecord) -> bool:
        now = time.monotonic()
        due = self._first is None or now - self._last_line >= SECONDS_BETWEEN_LINES or record.env_steps >= self._total
        if due:
            self._last_line = now
        return due

    def _rows(self, record: UpdateRecord) -> dict[str, str]:
        rate, eta = self._rate(record)
        return {
            "env steps": f"{record.env_steps:,} of {self._total:,} ({record.env_steps / self._total:.0%})",
            "return": "no episode finished yet" if record.return_mean is None else f"{record.return_mean:.2f}",
            "batch size": f"{record.batch_size:,} env steps (of {record.requested_env_steps:,} a rollout)",
            "B_simple (policy)": b_simple_words(self._noise["policy"]) if self._noise else "not measured yet",
            "env steps a second": "..." if rate is None else f"{rate:,.0f}",
            "ETA": "..." if eta is None else _duration(eta),
        }

    def _rate(self, record: UpdateRecord) -> tuple[float | None, float | None]:
        """(env steps a second, seconds left), from this sitting's records after the first."""
        if self._first is None:
            self._started = time.monotonic()
            return None, None
        rate = (record.env_steps - self._first.env_steps) / (time.monotonic() - self._started)
        return rate, max(0.0, self._total - record.env_steps) / rate if rate else None


def b_simple_words(scale: NoiseScale) -> str:
    """`12,000 [8,000 to 20,000] env steps`, or what is known while it is unresolved."""
    if scale.resolved:
        return f"{scale.b_simple:,.0f} [{scale.low:,.0f} to {scale.high:,.0f}] env steps"
    number = "" if scale.b_simple is None else f" (estimate {scale.b_simple:,.0f})"
    bound = f"at least {scale.low:,.0f} env steps" if scale.low > 0 else "no limit yet"
    more = f", at least {float(f'{scale.env_steps_needed:.2g}'):,.0f} more env steps" if scale.env_steps_needed else ""
    return f"{bound}{number}; unresolved: {scale.reason}{more}"


def _table(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _duration(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}"


class CellLines:
    """One line a cell of a sweep, as it starts, on standard error."""

    def __init__(self, cells: int):
        self._cells, self._seen = cells, list[str]()
        self._console = Console(stderr=True)

    def show(self, name: str, record: UpdateRecord) -> None:
        """Name a cell at its first record."""
        if name not in self._seen:
            self._seen.append(name)
            self._console.print(f"cell {len(self._seen)} of {self._cells}: {name}", soft_wrap=True, highlight=False)
