"""How `rl-gns status` looks: tables on a terminal, redrawn by --watch; elsewhere one line a run, once a minute."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rl_gns.records import to_json
from rl_gns.study.live import SECONDS_BETWEEN_LINES, print_line, progress_table
from rl_gns.study.progress import b_simple_words, duration, number, return_words
from rl_gns.study.status import RunStatus, check_directories, facts, survey

SECONDS_BETWEEN_LOOKS = 2.0
HEADINGS = ("run", "state", "env steps", "return", "batch size", "B_simple (policy)", "env steps a second; ETA")


def show(directories: Sequence[Path], as_json: bool = False, console: Console | None = None) -> None:
    """One look; ConfigError where a directory does not exist."""
    check_directories(directories)
    console = console or Console()
    runs = survey(directories)
    if console.is_terminal and not as_json:
        console.print(table(runs, directories))
    else:
        print_runs(runs, directories, as_json, console)


def watch(directories: Sequence[Path], as_json: bool = False, console: Console | None = None) -> None:
    """Look again and again until all runs have finished."""
    check_directories(directories)
    console = console or Console()
    if console.is_terminal and not as_json:
        _redraw(directories, console)
    else:
        _print_each_minute(directories, as_json, console)


def _redraw(directories: Sequence[Path], console: Console) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            runs = survey(directories)
            live.update(table(runs, directories), refresh=True)
            if all_finished(runs):
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _print_each_minute(directories: Sequence[Path], as_json: bool, console: Console) -> None:
    due = time.monotonic()
    while True:
        runs = survey(directories)
        over = all_finished(runs)
        if over or time.monotonic() >= due:
            due = time.monotonic() + SECONDS_BETWEEN_LINES
            print_runs(runs, directories, as_json, console)
        if over:
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def all_finished(runs: Sequence[RunStatus]) -> bool:
    """Nothing more can come by itself: there are runs, and each has its result."""
    return bool(runs) and all(run.state == "finished" for run in runs)


def print_runs(runs: Sequence[RunStatus], directories: Sequence[Path], as_json: bool, console: Console) -> None:
    """One line a run: words, or a JSON object."""
    if as_json:
        print("\n".join(json.dumps(to_json(facts(run))) for run in runs), end="\n" if runs else "", flush=True)
        return
    for run in runs:
        print_line(console, run.name, words(run))
    if not runs:
        console.print(_nothing(directories), soft_wrap=True, markup=False, highlight=False)


def words(run: RunStatus) -> dict[str, str]:
    """What -> how, in the order that it is shown."""
    said = {"state": run.state + (f" ({run.reason})" if run.reason else "")}
    if run.config:
        said |= {"env": f"{run.config.env}, seed {run.config.seed}"}
    if run.progress:
        said |= run.progress.words()
    if run.state != "running":
        said.pop("ETA", None)
    return said | ({} if run.seconds_since_write is None else {"last written": _ago(run.seconds_since_write)})


def table(runs: Sequence[RunStatus], directories: Sequence[Path]) -> Table | Text | Group:
    """One run in full, many in a row each."""
    if not runs:
        return Text(_nothing(directories))
    if len(runs) == 1:
        return progress_table(runs[0].name, words(runs[0]), runs[0].progress.share if runs[0].progress else 0.0)
    drawn = Table(title=Text(f"{', '.join(map(str, directories))}: {_count(runs)}"), show_lines=True)
    for heading in HEADINGS:
        drawn.add_column(heading, overflow="fold")
    for run in runs:
        drawn.add_row(*map(Text, _row(run)))
    return drawn


def _row(run: RunStatus) -> list[str]:
    env = f"\n{run.config.env}" if run.config else ""
    age = "" if run.seconds_since_write is None else f"\n{_ago(run.seconds_since_write)}"
    first = [run.name + env, f"{run.state}{f' ({run.reason})' if run.reason else ''}{age}"]
    if run.progress is None or run.progress.last is None:
        return [*first, "", "", "", "", ""]
    progress, last = run.progress, run.progress.last
    if progress.faults():
        first[1] += f"\n{progress.fault_words()}"
    first[1] += "".join(f"\n{what} {words}" for what, words in progress.control_words().items())
    eta = f"\n{duration(progress.seconds_left())}" if run.state == "running" else ""
    return [
        *first,
        f"{progress.env_steps:,} of {progress.total_env_steps:,}\n{progress.share:.0%}",
        return_words(last["return_mean"]),
        f"{last['batch_size']:,}",
        b_simple_words(progress.noise) if progress.noise else "not measured yet",
        number(progress.env_steps_per_second()) + eta,
    ]


def _count(runs: Sequence[RunStatus]) -> str:
    states = [run.state for run in runs]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _nothing(directories: Sequence[Path]) -> str:
    return f"no run under {', '.join(map(str, directories))} yet"


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"
