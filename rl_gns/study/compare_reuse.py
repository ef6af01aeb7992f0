"""What `train`, `measure`, `sweep` and other comparisons left, for the cells of a comparison.

A run serves a cell where its settings are the cell's own (`compare_plan.experiment`) and it has a checkpoint at the
stage, the first within one rollout of it, or a measurement of that checkpoint on enough env steps that no look could
end early. A run of the game and seed with other settings is another protocol: passed over, or forced and marked.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_gns.checkpoint import read_checkpoint
from rl_gns.comparison import FRESH
from rl_gns.config import NUMERICS, ConfigError, RunConfig, config_id, first_difference
from rl_gns.config_file import load
from rl_gns.measurement import Measurement
from rl_gns.on_disk import DAMAGE, checked_record, understood
from rl_gns.rundir import RunDir, read_json
from rl_gns.study.compare_plan import CellPlan, experiment
from rl_gns.study.initialisations import fresh_digest

SETTINGS, MEASURED, ORIGIN = "settings.toml", "measure.json", "origin.json"
"""In a directory of a comparison's cell: the settings that it was measured under, the measurement, and whose policy."""


@dataclass(frozen=True)
class Left:
    """A directory that holds a policy, or a measurement of one."""

    path: Path
    config: RunConfig
    measured: dict[str, Any] | None

    def measures(self, cell: CellPlan) -> bool:
        """Its measurement is of the cell's stage, on enough env steps, and was not to stop where it resolved."""
        return self._long_enough(cell) and spent_whole(self.measured, self.path / ORIGIN)

    def may_read_low(self, cell: CellPlan) -> bool:
        """It would serve, had no look been able to end it where it resolved."""
        return self._long_enough(cell) and not spent_whole(self.measured, self.path / ORIGIN)

    def _long_enough(self, cell: CellPlan) -> bool:
        found = self.measured
        return found is not None and at_stage(found["policy_env_steps"], cell) and found["env_steps"] >= cell.env_steps

    def other_numerics(self) -> bool:
        """It was measured, or the run was finished, under another version of the arithmetic."""
        if self.measured is not None:
            return self.measured.get("numerics", 1) != NUMERICS
        result = RunDir(self.path).read_result()
        return result is not None and result.get("config_id") != config_id(self.config)

    def checkpoint(self, cell: CellPlan) -> Path | None:
        """The run's checkpoint at the stage."""
        if cell.stage == FRESH:
            return None
        there = [path for path in RunDir(self.path).checkpoints() if at_stage(int(path.name), cell)]
        return there[0] if there else None


@dataclass(frozen=True)
class Reused:
    """What serves a cell."""

    left: Left
    forced: str | None
    """How its settings differ, where --force took it."""


def spent_whole(measured: dict[str, Any], origin: Path) -> bool:
    """No look could end the measurement early. Comparisons measure so; before measurements said it themselves, those
    with an origin.json were theirs, but for what they had borrowed."""
    early = measured.get("stops_early")
    return not early if early is not None else origin.is_file() and read_json(origin)["reused"] != "measurement"


def at_stage(policy_env_steps: int, cell: CellPlan) -> bool:
    """Trained for the stage's env steps, and less than one rollout more."""
    if cell.stage == FRESH:
        return policy_env_steps == 0
    return cell.stage <= policy_env_steps < cell.stage + cell.config.batch.rollout_env_steps


def left_in(directories: Sequence[Path]) -> list[Left]:
    """All that lies in or below the directories; ConfigError for one with nothing, or with something damaged."""
    found = []
    for directory in directories:
        if not directory.is_dir():
            raise ConfigError(f"--reuse: {directory}: no such directory")
        here = list(_below(directory))
        if not here:
            raise ConfigError(f"--reuse: {directory}: no run and no measurement in it; leave it out")
        found += here
    return found


def _below(directory: Path) -> Iterable[Left]:
    for path in sorted({file.parent for name in ("config.toml", SETTINGS) for file in directory.rglob(name)}):
        with understood(path):
            settings = path / SETTINGS
            yield Left(
                path, load(settings) if settings.is_file() else RunDir(path).config(), _measured(path / MEASURED)
            )
    for path in sorted(directory.rglob("seed*.json")):
        if re.fullmatch(r"fresh-.+-[0-9a-f]{8}", path.parent.name) and (measured := _measured(path)) is not None:
            yield Left(path, RunConfig(env=path.parent.name.split("-")[1], seed=measured["seed"]), measured)


def _measured(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found = read_json(path)
    if isinstance(found, dict):
        found = {name: value for name, value in found.items() if name != "all"}
    try:
        return checked_record(found, Measurement)
    except DAMAGE as error:
        raise ConfigError(f"{path}: damaged ({error}); move it away to go on") from None


def serving(cell: CellPlan, left: Sequence[Left], force: bool) -> Reused | None:
    """What serves the cell: the same settings before others, which serve by force alone; a measurement before a
    checkpoint."""
    usable = _usable(cell, left)
    for each, differs in usable:
        if differs is None:
            return Reused(each, None)
    return Reused(*usable[0]) if usable and force else None


def refused(cell: CellPlan, left: Sequence[Left]) -> str | None:
    """What would serve the cell by force, and the first setting in which it differs; None where nothing would."""
    found = next(((each, differs) for each, differs in _usable(cell, left) if differs), None)
    return None if found is None else f"{found[0].path}: another protocol than this comparison's ({found[1]})"


def may_read_low(cell: CellPlan, left: Sequence[Left]) -> list[Path]:
    """Measurements of the cell's game, seed and stage that a look may have ended where they resolved."""
    return [each.path for each in _of_its_policy(cell, left) if each.may_read_low(cell)]


def _of_its_policy(cell: CellPlan, left: Sequence[Left]) -> list[Left]:
    """Of the cell's game and seed."""
    return [each for each in left if (each.config.env, each.config.seed) == (cell.game, cell.seed)]


def _usable(cell: CellPlan, left: Sequence[Left]) -> list[tuple[Left, str | None]]:
    """Policies of the game, seed and stage, measurements first, and how their settings differ from the cell's."""
    usable = [each for each in _of_its_policy(cell, left) if each.measures(cell) or each.checkpoint(cell)]
    usable.sort(key=lambda each: not each.measures(cell))
    return [(each, difference(each, cell)) for each in usable]


def difference(left: Left, cell: CellPlan) -> str | None:
    """The first setting in which they differ; None where it is the cell's own experiment."""
    if left.other_numerics():
        return "another version of the arithmetic"
    if left.path.suffix == ".json":  # by `rl-gns measure`, whose directory's name is a digest of the settings
        return None if _same_digest(left, cell) else "not the settings that its directory is named after"
    return first_difference(experiment(left.config), experiment(cell.config))


def _same_digest(left: Left, cell: CellPlan) -> bool:
    """Under few or any threads; one that spends all of its env steps is asked for no precision."""
    learner = cell.config.learner
    digests = {
        fresh_digest(
            dataclasses.replace(cell.config, learner=dataclasses.replace(learner, threads=threads)),
            left.measured["max_env_steps"],
            precision=0.0,
        )
        for threads in {0, 1, 2, learner.threads}
    }
    return left.path.parent.name.rsplit("-", 1)[1] in digests


def unfinished(cell: CellPlan, left: Sequence[Left]) -> list[Path]:
    """Runs of the cell's own experiment that have not come to its stage, or are past it."""
    if cell.stage == FRESH:
        return []
    mine = [each for each in left if each.path.suffix != ".json" and (each.path / "config.toml").is_file()]
    return [each.path for each in mine if difference(each, cell) is None and not each.checkpoint(cell)]


def policy_at(path: Path, cell: CellPlan) -> dict[str, Any]:
    """What a measurement needs of the checkpoint at the cell's stage in the run at `path`."""
    checkpoint = Left(path, cell.config, None).checkpoint(cell)
    if checkpoint is None:
        stages = ", ".join(str(int(each.name)) for each in RunDir(path).checkpoints()) or "none"
        raise ConfigError(f"{path}: no checkpoint at {cell.stage:,} env steps (there: {stages}); give a new --run-dir")
    try:
        state = read_checkpoint(checkpoint)
        return {"learner": state["learner"], "counters": state["counters"]}
    except (OSError, *DAMAGE) as error:
        raise ConfigError(f"{checkpoint}: {error}") from None


def training_return(path: Path, env_steps: int) -> float | None:
    """Smoothed return of training at E = `env_steps` of the run at `path`; None where its log is thinned or gone."""
    try:
        run = RunDir(path)
        result = run.read_result()
        if result is not None and result["env_steps"] == env_steps:
            return result["return_mean"]
        return next((r["return_mean"] for r in run.records() if r["env_steps"] == env_steps), None)
    except ConfigError:
        return None
