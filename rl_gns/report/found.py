"""What lies in a directory: a run, a sweep or a comparison of games, read once and whole."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_gns.comparison import LAYOUT
from rl_gns.config import ConfigError, RunConfig
from rl_gns.config_file import from_table
from rl_gns.on_disk import understood
from rl_gns.rundir import RunDir, read_json

SWEEP, COMPARE, PROVENANCE = "sweep.json", "compare.json", "provenance.json"
COMMANDS_SHOWN = 4
"""Below a figure; a sweep with --reuse and a resumed run have two or three (a choice)."""
FAILED_SHOWN = 3
"""Cells that failed for one reason mostly fail together (a choice)."""
Sittings = list[dict[str, Any]]


@dataclass(frozen=True)
class Origin:
    """Where the numbers of a figure come from."""

    n: str
    """`12 runs`, say."""
    seeds: tuple[int, ...]
    commits: tuple[str, ...]
    """Of the code that made the runs; empty where no provenance was kept."""
    commands: tuple[str, ...]
    """That made the runs."""
    seeds_said: str = ""
    """Instead of all seeds together, where not everything has them all."""
    also: tuple[str, ...] = ()
    """What else is to be said of where they come from."""
    of: str = "runs"
    """Whose commits they are."""

    def words(self) -> str:
        """n, seeds and commits, for a caption."""
        commits = ", ".join(self.commits) or "not recorded in the directory"
        seeds = self.seeds_said or seeds_words(self.seeds)
        return "; ".join([f"n = {self.n}", seeds, f"commit of the {self.of}: {commits}", *self.also]) + "."

    @property
    def first_commands(self) -> tuple[str, ...]:
        """As many as stand below a figure."""
        return self.commands[:COMMANDS_SHOWN]

    @property
    def more_commands(self) -> str:
        """How many do not; empty where all do."""
        more = len(self.commands) - COMMANDS_SHOWN
        return f"And {more} command{'s' * (more > 1)} more: `rl-gns report --json` names all." if more > 0 else ""


@dataclass(frozen=True)
class FoundRun:
    """One run's directory."""

    path: Path
    config: RunConfig
    records: list[dict[str, Any]]
    result: dict[str, Any] | None
    measured: dict[str, Any] | None
    """measure.json."""
    sittings: Sittings
    label: str = ""
    """What it is called beside others; empty: as the directory."""

    @property
    def name(self) -> str:
        return self.label or named(self.path)

    @property
    def origin(self) -> Origin:
        return Origin("1 run", (self.config.seed,), commits(self.sittings), commands(self.sittings))

    def series(self, name: str) -> list[float | None]:
        """That field of every record; None where it is missing."""
        return [record.get(name) for record in self.records]


@dataclass(frozen=True)
class FoundSweep:
    """One sweep's directory."""

    path: Path
    saved: dict[str, Any]
    """sweep.json."""
    settings: RunConfig
    """The sweep's own."""
    configs: dict[str, RunConfig]
    """Variant -> settings; the sweep's own under the empty name where it has none."""
    sittings: Sittings
    """Of all its cells, as sweep.json has them; in one from before it had, of those whose directories were kept."""
    label: str = ""
    """What it is called beside others; empty: as the directory."""

    @property
    def name(self) -> str:
        return self.label or named(self.path)

    @property
    def env(self) -> str:
        return self.settings.env

    @property
    def fronts(self) -> list[dict[str, Any]]:
        return self.saved["fronts"]

    @property
    def failed_words(self) -> str:
        """`2 failed: B64: RuntimeError: ...; ...`, the first few of them; nothing where none did."""
        failed = [f"{name}: {reason}" for name, reason in self.saved["failed"].items()]
        more = f"; and {len(failed) - FAILED_SHOWN} more" if len(failed) > FAILED_SHOWN else ""
        return f"{len(failed)} failed: {'; '.join(failed[:FAILED_SHOWN])}{more}" if failed else ""

    def cells(self, front: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Every run at every goal, or those of one front."""
        if front is None:
            return self.saved["cells"]
        key = (front["goal_return"], front.get("variant", ""))
        return [c for c in self.saved["cells"] if (c["goal_return"], c.get("variant", "")) == key]

    def epochs(self, front: dict[str, Any]) -> int:
        return self.configs[front.get("variant", "")].batch.epochs

    def origin(self, cells: Sequence[dict[str, Any]] | None = None) -> Origin:
        """Of all its runs, or of some."""
        cells = self.saved["cells"] if cells is None else cells
        runs, seeds = {c["name"] for c in cells}, tuple(sorted({c["seed"] for c in cells}))
        return Origin(
            f"{len(runs)} run{'s' * (len(runs) != 1)}", seeds, commits(self.sittings), commands(self.sittings)
        )

    @functools.cached_property
    def chosen_runs(self) -> list[FoundRun]:
        """Runs of the rates that stand for their batch sizes, those whose directories hold a log."""
        names = dict.fromkeys(c["name"] for c in self.saved["cells"] if c["chosen"] and "/" not in c["name"])
        logged = [self.path / name for name in names if (self.path / name / "metrics.jsonl").is_file()]
        return [_run(path) for path in logged]


@dataclass(frozen=True)
class FoundComparison:
    """The directory of a comparison of games."""

    path: Path
    saved: dict[str, Any]
    """compare.json."""
    label: str = ""
    """What it is called beside others; empty: as the directory."""

    @property
    def name(self) -> str:
        return self.label or named(self.path)


Found = FoundRun | FoundSweep | FoundComparison


def look(path: Path) -> Found:
    """What the directory holds; ConfigError, naming it, where that is nothing whole."""
    with understood(path):
        if (path / SWEEP).is_file():
            return _sweep(path)
        if (path / COMPARE).is_file():
            return FoundComparison(path, _comparison(path / COMPARE))
        if not path.is_dir():
            raise ConfigError(f"{path}: no such directory, so no run here")
        cells = [each for each in path.glob("*/config.toml")]
        if not (path / "config.toml").is_file() and cells:
            raise ConfigError(
                f"{path}: no {SWEEP} here, but {len(cells)} runs below: let the sweep finish, or name runs, as "
                f"{min(cells).parent}"
            )
        run = _run(path)
        if not run.records and run.result is None and run.measured is None:
            raise ConfigError(f"{path}: a run that has recorded nothing yet")
        return run


def _run(path: Path) -> FoundRun:
    run, measure = RunDir(path), path / "measure.json"
    measured = read_json(measure) if measure.is_file() else None
    return FoundRun(path, run.config(), list(run.records()), run.read_result(), measured, _sittings(path))


def _sweep(path: Path) -> FoundSweep:
    saved = read_json(path / SWEEP)
    tables = {name: each["config"] for name, each in saved.get("variants", {}).items()} or {"": saved["config"]}
    sittings = saved.get("provenance") or [
        s for file in sorted(path.glob(f"*/{PROVENANCE}")) for s in _sittings(file.parent)
    ]
    configs = {name: from_table(table, RunConfig()) for name, table in tables.items()}
    return FoundSweep(path, saved, from_table(saved["config"], RunConfig()), configs, sittings)


def _comparison(file: Path) -> dict[str, Any]:
    saved = read_json(file)
    if saved["version"] != LAYOUT:
        raise ConfigError(
            f"{file}: of layout {saved['version']}, not {LAYOUT}; the command that made it writes it anew"
        )
    return saved


def _sittings(path: Path) -> Sittings:
    return read_json(path / PROVENANCE) if (path / PROVENANCE).is_file() else []


def commits(sittings: Sittings) -> tuple[str, ...]:
    """Short hashes, a `+` where the checkout held changes that were not committed."""
    known = [
        (s["commit"], s.get("uncommitted_changes") or s["commit"].endswith("+")) for s in sittings if s.get("commit")
    ]
    return tuple(dict.fromkeys(f"{commit[:7]}{'+' if changed else ''}" for commit, changed in known))


def commands(sittings: Sittings) -> tuple[str, ...]:
    """Of the command line; a program of one's own that calls rl_gns has none."""
    given = [s["command"] for s in sittings if len(s.get("command") or ()) > 1]
    return tuple(dict.fromkeys(shlex.join(["rl-gns", *command[1:]]) for command in given))


def joined(origins: Sequence[Origin], n: str) -> Origin:
    """Several as one."""
    seeds = tuple(sorted({seed for each in origins for seed in each.seeds}))
    names = ("commits", "commands", "also")
    commits, commands, also = (
        tuple(dict.fromkeys(x for each in origins for x in getattr(each, name))) for name in names
    )
    return Origin(n, seeds, commits, commands, also=also, of=" and ".join(dict.fromkeys(each.of for each in origins)))


def seeds_words(seeds: Sequence[int]) -> str:
    """`seed 1`, `seeds 0 to 4` where they follow each other, else all of them."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return "seeds " + ", ".join(map(str, seeds))


def named(path: Path) -> str:
    """The directory's own name, also where the path is `.`."""
    return path.resolve().name or "root"
