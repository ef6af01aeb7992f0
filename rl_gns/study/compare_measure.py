"""The cells of a comparison that are still to be measured: jobs, in turn or as Ray tasks, and what is kept of them.

A cell's directory holds settings.toml, origin.json (where the policy came from, commit, machine) and, written last,
measure.json. This process alone writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rl_gns.config import NUMERICS, RunConfig
from rl_gns.config_file import to_toml
from rl_gns.distributed import tasks
from rl_gns.on_disk import understood
from rl_gns.records import to_json
from rl_gns.rundir import read_json, write_json, write_text
from rl_gns.study.build import make_learner
from rl_gns.study.compare_plan import CellPlan
from rl_gns.study.compare_reuse import MEASURED, ORIGIN, SETTINGS, Left, Reused, policy_at, spent_whole, training_return
from rl_gns.study.measure import measure
from rl_gns.study.progress import b_simple_words
from rl_gns.study.provenance import provenance
from rl_gns.study.sweep import ERROR, Watch, told


@dataclass(frozen=True)
class Origin:
    """origin.json: whose policy a cell measured."""

    run: str | None
    """The training run; None: fresh."""
    reused: str | None
    """`run` or `measurement` where another verb, or another comparison, had left it."""
    forced: str | None
    """How its settings differ from the comparison's, where --force took it."""
    training_return_mean: float | None
    provenance: dict[str, Any] | None
    """Of the process that measured; None where another verb measured."""


@dataclass(frozen=True)
class Source:
    """Where a cell's policy is to come from."""

    run: Path | None
    """A run with a checkpoint at the stage; None: fresh."""
    config: RunConfig
    reused: str | None = None
    forced: str | None = None


def finished(path: Path, cell: CellPlan) -> bool:
    """The cell lies below `path`, measured whole, on env steps enough, by this version of the arithmetic."""
    found = path / cell.name / MEASURED
    if not found.is_file():
        return False
    with understood(found):
        measured = read_json(found)
        enough = measured["env_steps"] >= cell.env_steps and measured.get("numerics", 1) == NUMERICS
        return enough and spent_whole(measured, path / cell.name / ORIGIN)


def borrow(path: Path, cell: CellPlan, reused: Reused) -> None:
    """Copy a measurement that another verb left into the cell's directory."""
    run = None if cell.stage == 0 else reused.left.path
    score = training_return(run, reused.left.measured["policy_env_steps"]) if run else None
    provenance, elsewhere = None, reused.left.path / ORIGIN
    if elsewhere.is_file():  # another comparison's, which knows the run
        known = read_json(elsewhere)
        run, score, provenance = (known[name] for name in ("run", "training_return_mean", "provenance"))
    config = reused.left.config if reused.left.path.suffix != ".json" else cell.config
    origin = Origin(None if run is None else str(run), "measurement", reused.forced, score, provenance)
    _begin(path / cell.name, config, origin)
    write_json(path / cell.name / MEASURED, reused.left.measured)


def measure_cells(
    plans: Sequence[CellPlan],
    sources: Callable[[CellPlan], Source],
    path: Path,
    watch: Watch,
    cells_at_once: int,
    kept: Callable[[], None],
) -> dict[str, str]:
    """All of them; `kept` is called after each. Returns cell -> the last line of its traceback, where it failed."""
    by_name, failed = {plan.name: plan for plan in plans}, {}
    begun: dict[str, Source] = {}

    def start(name: str) -> tuple[Any, ...]:
        plan = by_name[name]
        source = begun[name] = sources(plan)
        watch.say(name, "is measured")
        return source.config, policy_at(source.run, plan) if source.run else None, plan.env_steps

    configs = {plan.name: plan.config for plan in plans}
    with contextlib.closing(told(configs, cells_at_once, measuring, start)) as stream:
        for name, news in stream:
            if isinstance(news, tasks.Item):
                _keep(path / name, begun[name], news.value)
                watch.say(name, f"B_simple {b_simple_words(news.value[1]['noise']['policy'])}")
                kept()
            elif isinstance(news, tasks.Lost):
                watch.say(name, f"lost its process ({news.reason}); it is measured again")
            elif isinstance(news, tasks.Failed):
                failed[name] = _fail(path / name, news.traceback)
                watch.say(name, f"FAILED: {failed[name]}")
    return failed


def measuring(
    config: RunConfig, state: Mapping[str, Any] | None, env_steps: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(provenance, measurement as on disk) of one frozen policy; it is never stopped before `env_steps`."""
    begun = provenance(make_learner(config))
    yield begun, to_json(measure(config, env_steps, 0.0, state=state))


def _keep(path: Path, source: Source, news: tuple[dict[str, Any], dict[str, Any]]) -> None:
    begun, measured = news
    score = training_return(source.run, measured["policy_env_steps"]) if source.run else None
    run = None if source.run is None else str(source.run)
    _begin(path, source.config, Origin(run, source.reused, source.forced, score, begun))
    write_json(path / MEASURED, measured)
    (path / ERROR).unlink(missing_ok=True)


def _begin(path: Path, config: RunConfig, origin: Origin) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / MEASURED).unlink(missing_ok=True)
    write_text(path / SETTINGS, to_toml(config))
    write_json(path / ORIGIN, asdict(origin))


def _fail(path: Path, traceback: str) -> str:
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / ERROR, traceback)
    return traceback.strip().splitlines()[-1]


def source_of(reused: Reused | None, cell: CellPlan, path: Path) -> Source:
    """The run that another verb left, or the comparison's own."""
    if cell.stage == 0:
        return Source(None, cell.config)
    if reused is None:
        return Source(path / cell.run_name, cell.config)
    config = measured_as(reused.left, cell)
    return Source(reused.left.path, config, "run", reused.forced)


def measured_as(left: Left, cell: CellPlan) -> RunConfig:
    """A run's own settings, with the comparison's threads and actors."""
    learner = replace(left.config.learner, threads=cell.config.learner.threads)
    return replace(left.config, learner=learner, actors=cell.config.actors)
