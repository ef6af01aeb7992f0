"""`rl-gns compare`: games beside each other, at the same stages, with the same protocol, seeds and env steps.

What is measured is not measured again, and what other verbs left is taken. Fresh policies come first, then training
runs (cells as a sweep's), then their checkpoints at each stage. compare.json is written anew after every measurement,
so that it always tells what is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_gns.comparison import FRESH, LAYOUT, Bought, FrontBeside, GamesCompared
from rl_gns.config import ConfigError, RunConfig, first_difference, to_dict
from rl_gns.config_file import from_table
from rl_gns.on_disk import understood
from rl_gns.rundir import read_json, take_lock, write_json
from rl_gns.study.compare_budget import fitted
from rl_gns.study.compare_fronts import measured_ratio, read_fronts
from rl_gns.study.compare_measure import Source, borrow, finished, measure_cells, source_of
from rl_gns.study.compare_plan import Asked, CellPlan, cell_config, cells, shared
from rl_gns.study.compare_pool import games_at_stages, of_one_key, read_cell
from rl_gns.study.compare_reuse import Left, Reused, left_in, may_read_low, refused, serving, unfinished
from rl_gns.study.paper_atari import paper_values
from rl_gns.study.progress import return_words
from rl_gns.study.provenance import command, whereabouts
from rl_gns.study.sweep import Cells, Watch, cells_session, together

COMPARE, COMPARE_LOCK = "compare.json", ".compare.lock"


@dataclass(frozen=True)
class Settings:
    """How a comparison is to be run; none of it changes a number but `budget`."""

    reuse: tuple[Path, ...] = ()
    fronts: tuple[Path, ...] = ()
    force: bool = False
    cells_at_once: int = 0
    budget: float | None = None
    """Seconds."""


def compare(asked: Asked, path: Path, settings: Settings, watch: Watch) -> GamesCompared:
    """Do what is missing and write compare.json. ConfigError: the user's mistakes, before anything is run."""
    if (path / "config.toml").exists():
        raise ConfigError(f"--run-dir: {path} holds a single run; give a directory of its own to the comparison")
    if settings.cells_at_once < 0:
        raise ConfigError(f"--cells-at-once: {settings.cells_at_once} is too small; the least is 0")
    check_same(path, asked)
    fronts = read_fronts(settings.fronts, cell_config(asked, asked.games[0], 0), asked.games, settings.force)
    left = left_in(settings.reuse)
    path.mkdir(parents=True, exist_ok=True)
    with take_lock(path / COMPARE_LOCK, path):
        return _Comparison(asked, path, settings, watch, fronts, left).run()


def check_same(path: Path, asked: Asked) -> None:
    """ConfigError where `path` holds a comparison of other settings."""
    if not (path / COMPARE).is_file():
        return
    with understood(path / COMPARE):
        there = from_table(read_json(path / COMPARE)["settings"], RunConfig())
    if differs := first_difference(shared(there), shared(cell_config(asked, asked.games[0], 0))):
        raise ConfigError(f"--run-dir: {path} holds a comparison of another protocol ({differs}); give a new one")


class _Comparison:
    """One sitting."""

    def __init__(
        self,
        asked: Asked,
        path: Path,
        settings: Settings,
        watch: Watch,
        fronts: list[FrontBeside],
        left: list[Left],
    ):
        self._asked, self._path, self._settings, self._watch = asked, path, settings, watch
        self._fronts, self._left, self._bought = fronts, left, None
        self._reused: dict[str, Reused] = {}
        self._failed: dict[str, str] = {}
        self._provenance = whereabouts()

    def run(self) -> GamesCompared:
        self._refuse_strange()
        self._bought = self._budgeted()
        plans = cells(self._asked)
        self._reuse(plans)
        self._write()
        fresh = [plan for plan in plans if plan.stage == FRESH]
        later = [plan for plan in plans if plan.stage != FRESH]
        with self._session(plans):
            self._measure(fresh)
            self._train(later)
            self._measure(later)
        return self._write()

    def _budgeted(self) -> Bought | None:
        """Env steps that fit into the budget, or those that an earlier sitting found for the same question; None where
        nothing is to be bought."""
        if self._settings.budget is None:
            return None
        if (bought := self._bought_before()) is None:
            if not (missing := self._unmeasured()):
                return None
            self._watch.say("budget", "a few measurements and rollouts, to tell how fast they are here")
            untrained = self._untrained()
            bought = fitted(self._asked, self._settings.budget, missing, untrained, self._settings.cells_at_once)
            self._watch.say("budget", f"buys {bought.env_steps:,} env steps of frozen policy a game and stage")
        self._asked = dataclasses.replace(self._asked, env_steps=bought.env_steps)
        return bought

    def _bought_before(self) -> Bought | None:
        if not (self._path / COMPARE).is_file():
            return None
        with understood(self._path / COMPARE):
            saved, asked = read_json(self._path / COMPARE), self._asked
            known = saved["budget"] if saved["version"] == LAYOUT else None  # before, it did not say what was asked for
            bought = Bought(**known) if known else None
            there = [tuple(saved[name]) for name in ("games", "stages", "training_seeds", "initialisations")]
        mine = [asked.games, asked.stages, asked.training_seeds, asked.initialisations]
        if bought is None or there != mine:
            return None
        same = (bought.seconds, bought.most_env_steps) == (self._settings.budget, asked.env_steps)
        return bought if same else None

    def _refuse_strange(self) -> None:
        """ConfigError where nothing is measured here yet and all that --reuse has is of another protocol."""
        plans, force = cells(self._asked), self._settings.force
        if any(finished(self._path, plan) or serving(plan, self._left, force) for plan in plans):
            return
        for plan in plans:
            if words := refused(plan, self._left):
                raise ConfigError(f"--reuse: {words}; leave it out, or take it and have it marked with --force")

    def _reuse(self, plans: Sequence[CellPlan]) -> None:
        """Copy measurements that are there; note runs that will do, and say what is passed over."""
        for plan in plans:
            if finished(self._path, plan):
                continue
            if (reused := serving(plan, self._left, self._settings.force)) is not None:
                self._take(plan, reused)
                continue
            if words := refused(plan, self._left):
                self._watch.say(plan.name, f"{words}: not taken")
            for other in may_read_low(plan, self._left):
                self._watch.say(plan.name, f"{other} could stop early, which reads low (measure --whole): not taken")
            for other in unfinished(plan, self._left):
                self._watch.say(plan.name, f"{other} has no checkpoint at {plan.stage:,} env steps: trained here")

    def _take(self, plan: CellPlan, reused: Reused) -> None:
        self._reused[plan.name] = reused
        if reused.left.measures(plan):
            borrow(self._path, plan, reused)
            self._watch.say(plan.name, f"measured in {reused.left.path}")

    def _unmeasured(self) -> list[CellPlan]:
        """Cells that are neither measured here nor elsewhere."""
        missing = [plan for plan in cells(self._asked) if not finished(self._path, plan)]
        found = [(plan, serving(plan, self._left, self._settings.force)) for plan in missing]
        return [plan for plan, reused in found if reused is None or not reused.left.measures(plan)]

    def _untrained(self) -> list[CellPlan]:
        """Of those, cells after fresh for which a training run is still to be made, one a game and seed."""
        found = {}
        for plan in self._unmeasured():
            trained = Left(self._path / plan.run_name, plan.config, None).checkpoint(plan) is not None
            if plan.stage != FRESH and not trained and serving(plan, self._left, self._settings.force) is None:
                found[plan.run_name] = plan
        return list(found.values())

    def _train(self, plans: Sequence[CellPlan]) -> None:
        wanted = {plan.run_name: plan.config for plan in self._untrained()}
        failed = Cells(wanted, self._path, self._watch, trained_words).run(self._settings.cells_at_once)
        self._failed |= {
            plan.name: f"{plan.run_name}: {failed[plan.run_name]}" for plan in plans if plan.run_name in failed
        }

    def _measure(self, plans: Sequence[CellPlan]) -> None:
        missing = [plan for plan in plans if not finished(self._path, plan) and plan.name not in self._failed]

        def source(plan: CellPlan) -> Source:
            return source_of(self._reused.get(plan.name), plan, self._path)

        at_once = self._settings.cells_at_once
        self._failed |= measure_cells(missing, source, self._path, self._watch, at_once, self._write)

    @contextlib.contextmanager
    def _session(self, plans: Sequence[CellPlan]) -> Iterator[None]:
        """One Ray session for all that is to be done, where cells run at once."""
        missing = [plan for plan in plans if not finished(self._path, plan)]
        if not missing:
            yield
            return
        configs = [plan.config for plan in missing]
        with cells_session(configs, together(configs[0], len(configs), self._settings.cells_at_once)):
            yield

    def _write(self) -> GamesCompared:
        found = self._compared()
        write_json(self._path / COMPARE, found)
        return found

    def _compared(self) -> GamesCompared:
        asked, plans = self._asked, sorted(cells(self._asked), key=self._order)
        done = [read_cell(self._path, plan) for plan in plans if finished(self._path, plan)]
        done, apart = of_one_key(done, self._settings.force)
        there = {cell.name for cell in done}
        results = games_at_stages(done, asked.base.noise.confidence)
        fronts = [dataclasses.replace(front, measured_ratio=measured_ratio(front, done)) for front in self._fronts]
        return GamesCompared(
            version=LAYOUT,
            command=command(),
            provenance=self._provenance,
            games=list(asked.games),
            stages=list(asked.stages),
            training_seeds=list(asked.training_seeds),
            initialisations=list(asked.initialisations),
            env_steps=asked.env_steps,
            confidence=asked.base.noise.confidence,
            settings=_settings(asked),
            results=results,
            cells=done,
            fronts=fronts,
            paper=paper_values(list(asked.games)),
            forced=[f"{cell.name}: {cell.forced}" for cell in done if cell.forced]
            + [f"{front.directory}: {front.forced}" for front in fronts if front.forced],
            missing={
                plan.name: apart.get(plan.name) or self._failed.get(plan.name, "not measured yet")
                for plan in plans
                if plan.name not in there
            },
            budget=self._bought,
        )

    def _order(self, plan: CellPlan) -> tuple[int, int, int]:
        return self._asked.games.index(plan.game), plan.stage, plan.seed


def _settings(asked: Asked) -> dict[str, Any]:
    return to_dict(cell_config(asked, asked.games[0], asked.base.seed))


def trained_words(result: dict[str, Any]) -> str:
    """What became of a training run, in a line."""
    return f"trained {result['env_steps']:,} env steps, return {return_words(result['return_mean'])}"
