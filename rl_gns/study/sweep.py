"""`rl-gns sweep`: a grid of runs to goals, one directory a cell, and the knee of the front they make.

What is finished is not run again, and what was killed goes on from its checkpoint. Cells run as Ray tasks, or in turn
in this process; in either case this process alone writes: a cell streams its records and checkpoints here. One that
fails is named, its traceback kept in its directory, and the others go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rl_gns.config import ConfigError, RunConfig, config_id
from rl_gns.distributed import session, tasks
from rl_gns.lock import take_lock
from rl_gns.on_disk import understood
from rl_gns.records import UpdateRecord
from rl_gns.rundir import RunDir, read_json, write_json, write_text
from rl_gns.study.build import make_learner, object_store_bytes
from rl_gns.study.confounds import judged
from rl_gns.study.fronts import Cell, GoalFront, goal_front, read_cells, write_points
from rl_gns.study.grid import Grid
from rl_gns.study.sitting import Event, batches
from rl_gns.study.train import Keeper, Origin
from rl_gns.study.variants import Variants, in_order, variant_cells

ERROR = "error.txt"
"""In a cell's directory: the traceback of the failure that ended its last sitting."""
SWEEP_LOCK = ".sweep.lock"
PROVENANCE = ("command", "commit", "uncommitted_changes")
"""Of a cell's sittings, what sweep.json keeps."""


class Watch(Protocol):
    """Who is told how the cells go."""

    def show(self, name: str, record: UpdateRecord) -> None:
        """A cell's newest record."""

    def say(self, name: str, words: str) -> None:
        """What became of a cell."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep left."""

    fronts: list[GoalFront]
    failed: dict[str, str]
    """Cell -> the last line of its traceback."""


def sweep(
    config: RunConfig,
    grid: Grid,
    path: Path,
    watch: Watch,
    cells_at_once: int = 0,
    reuse: Sequence[Path] = (),
    variants: Variants | None = None,
) -> Sweep:
    """Run what is missing, fit every goal (of every variant, where there are some: they alone are run), and write
    sweep.json and points.csv. ConfigError: the user's mistakes."""
    variants = variants or {"": (config, grid)}
    of_variant = variant_cells(variants)
    configs = in_order(of_variant)
    check_directories(path, reuse, cells_at_once)
    make_learner(next(iter(configs.values())))
    path.mkdir(parents=True, exist_ok=True)
    with take_lock(path / SWEEP_LOCK, path):
        for name, cell in configs.items():
            if _borrowed(name, cell, path, reuse):
                watch.say(name, "reused")
        missing = {name: cell for name, cell in configs.items() if not finished(path / name, cell)}
        failed = Cells(missing, path, watch, crossing_words).run(cells_at_once)
        cells = [cell for name, its in of_variant.items() for cell in read_cells(path, its, name)]
        settings = {name: each for name, (each, _) in variants.items()}
        result = Sweep(_fronts(cells, config.goals, settings), failed)
        write_points(path / "points.csv", cells, settings)
        saved = {"config": dataclasses.asdict(config), "grid": dataclasses.asdict(grid), "cells": cells}
        named = {n: {"config": dataclasses.asdict(c), "grid": dataclasses.asdict(g)} for n, (c, g) in variants.items()}
        saved |= {"variants": named} if any(variants) else {}
        saved |= {"provenance": _provenance(path, configs)}
        write_json(path / "sweep.json", saved | dataclasses.asdict(result))
    return result


def _provenance(path: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """Command and commit of the cells' sittings, each once, in the order of the grid: their directories may go."""
    files = [path / name / "provenance.json" for name in names]
    with understood(path):
        sittings = [sitting for file in files if file.is_file() for sitting in read_json(file)]
        kept = [{name: sitting.get(name) for name in PROVENANCE} for sitting in sittings]
    return [each for i, each in enumerate(kept) if each not in kept[:i]]


def _fronts(cells: list[Cell], goals: Sequence[float], settings: dict[str, RunConfig]) -> list[GoalFront]:
    """A front a goal and variant, in that order."""
    groups = {(goal, name): [] for goal in goals for name in settings}
    for cell in cells:
        if (cell.goal_return, cell.variant) in groups:
            groups[cell.goal_return, cell.variant].append(cell)
    return judged([goal_front(each, settings[name]) for (_, name), each in groups.items() if each], settings)


def check_directories(path: Path, reuse: Sequence[Path], cells_at_once: int) -> None:
    """ConfigError for the first that will not do."""
    if (path / "config.toml").exists():
        raise ConfigError(f"--run-dir: {path} holds a single run; give a directory of its own to the sweep")
    for other in reuse:
        if not other.is_dir():
            raise ConfigError(f"--reuse: {other}: no such directory")
    if cells_at_once < 0:
        raise ConfigError(f"--cells-at-once: {cells_at_once} is too small; the least is 0")


def finished(path: Path, config: RunConfig) -> bool:
    """The cell's result is of this experiment, and answers for these goals; read from result.json alone."""
    with understood(path):
        return _answers(RunDir(path).read_result(), config)


def _answers(result: dict[str, Any] | None, config: RunConfig) -> bool:
    if result is None or result.get("config_id") != config_id(config):
        return False
    asked = [(goal, config.goals_judged_on) for goal in config.goals]
    if [(g["goal_return"], g.get("judged_on")) for g in result["goals"]] != asked:
        return False
    return (config.stop_at_goal and result["stopped"] == "goal") or result["env_steps"] >= config.total_env_steps


def _borrowed(name: str, config: RunConfig, path: Path, reuse: Sequence[Path]) -> bool:
    """Copy the cell from the first other sweep that has finished it (for whatever goals and budget: it goes on)."""
    if (path / name).exists():
        return False
    if (lent := lender(name, config, reuse)) is None:
        return False
    draft = path / f".{name}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(lent, draft)
    os.replace(draft, path / name)
    return True


def lender(name: str, config: RunConfig, reuse: Sequence[Path]) -> Path | None:
    """The cell's directory in the first of the other sweeps that has finished it, for whatever goals and budget."""
    for other in reuse:
        result = RunDir(other / name).read_result()
        if result is not None and result.get("config_id") == config_id(config):
            return other / name
    return None


def together(one: RunConfig, n_cells: int, cells_at_once: int) -> int:
    """How many cells like `one` run at once; 0: as many as the cluster that RAY_ADDRESS names has CPUs for."""
    need = one.learner.threads + one.actor_cpus
    most = 0 if session.named() else max(1, len(os.sched_getaffinity(0)) // need)
    return min(cells_at_once or most, n_cells)


@contextlib.contextmanager
def cells_session(configs: Sequence[RunConfig], at_once: int) -> Iterator[bool]:
    """Where so many of these cells at once need one, a Ray session; False where they run in turn in this process."""
    if at_once == 1 and not session.named():
        yield False
        return
    store = max(at_once, 1) * max(object_store_bytes(config) for config in configs)
    with session.start(len(os.sched_getaffinity(0)) + at_once * configs[0].actor_cpus, store):
        yield True


def told(
    configs: Mapping[str, RunConfig], cells_at_once: int, work: tasks.Work, start: tasks.Arguments
) -> Iterator[tasks.Told]:
    """What `work(*start(name))` of every cell tells: as Ray tasks, or in turn in this process."""
    if not configs:
        return
    one = next(iter(configs.values()))
    at_once = together(one, len(configs), cells_at_once)
    with cells_session(list(configs.values()), at_once) as started:
        if not started:
            yield from tasks.in_turn(list(configs), work, start)
            return
        shape = tasks.shape(tasks.node_cpus(), one.learner.threads, one.actor_cpus, at_once)
        yield from tasks.as_tasks(list(configs), work, start, shape)


class Cells:
    """The cells that are to be run; this process keeps what they tell."""

    def __init__(
        self,
        configs: Mapping[str, RunConfig],
        path: Path,
        watch: Watch,
        words: Callable[[dict[str, Any]], str],
        work: tasks.Work = batches,
        origin: Callable[[RunConfig], Origin] | None = None,
    ):
        """`words` of a finished cell's result.json; `work(config, state, looks)` gives lists of events; `origin` is
        where a cell starts that does not start afresh."""
        self._configs, self._path, self._watch, self._words = configs, path, watch, words
        self._work, self._origin = work, origin
        self._keepers: dict[str, Keeper] = {}

    def run(self, cells_at_once: int) -> dict[str, str]:
        """All of them; cell -> why, for those that failed."""
        failed = {}
        try:
            names = [name for name in self._configs if not self._over(name)]
            with contextlib.closing(self._told(names, cells_at_once)) as stream:
                for name, told in stream:
                    if isinstance(told, tasks.Item):
                        self._keep(name, told.value)
                    elif isinstance(told, tasks.Lost):
                        self._watch.say(name, f"lost its process ({told.reason}); it goes on from its checkpoint")
                    elif isinstance(told, tasks.Failed):
                        failed[name] = self._fail(name, told.traceback)
                    else:
                        self._finish(name)
        finally:
            for keeper in self._keepers.values():
                keeper.close()
        return failed

    def _over(self, name: str) -> bool:
        """It was run far enough for other goals: what it recorded answers for these ones too."""
        if not RunDir(self._path / name).result.exists():
            return False
        keeper = self._opened(name)
        if over := keeper.over():
            self._finish(name)
        return over

    def _told(self, names: list[str], cells_at_once: int) -> Iterator[tasks.Told]:
        return told({name: self._configs[name] for name in names}, cells_at_once, self._work, self._start)

    def _start(self, name: str) -> tuple[Any, ...]:
        """Where a sitting of the cell begins; again after its process was lost."""
        return self._configs[name], *self._opened(name).resume()

    def _opened(self, name: str) -> Keeper:
        if name not in self._keepers:
            config, origin = self._configs[name], self._origin
            begun = origin(config) if origin else None
            keeper = Keeper(config, self._path / name, lambda record: self._watch.show(name, record), begun)
            keeper.open()
            self._keepers[name] = keeper
        return self._keepers[name]

    def _keep(self, name: str, events: list[Event]) -> None:
        for event in events:
            self._keepers[name].keep(event)

    def _finish(self, name: str) -> None:
        keeper = self._keepers.pop(name)
        (keeper.run.path / ERROR).unlink(missing_ok=True)
        words = self._words(keeper.finish())
        keeper.close()
        self._watch.say(name, words)

    def _fail(self, name: str, traceback: str) -> str:
        reason = traceback.strip().splitlines()[-1]
        keeper = self._keepers.pop(name, None)
        if keeper is not None:
            write_text(keeper.run.path / ERROR, traceback)
            keeper.close()
        self._watch.say(name, f"FAILED: {reason}\n{traceback.rstrip()}")
        return reason


def crossing_words(result: dict[str, Any]) -> str:
    """What became of a sweep's cell, in a line."""
    return "; ".join(_goal_words(goal) for goal in result["goals"])


def _goal_words(goal: dict[str, Any]) -> str:
    if goal["reached"]:
        return f"return {goal['goal_return']:g} at S = {goal['optimizer_steps']:,.0f}, E = {goal['env_steps']:,.0f}"
    return f"return {goal['goal_return']:g} not reached{', collapsed' if goal['collapsed'] else ''}"
