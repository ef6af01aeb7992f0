"""`rl-gns plan`: what a sweep or a run is going to cost, before anything starts. It touches no run directory.

The time of a cell of R rollouts is

    start + env steps / rate(B) + evaluations x seconds each + checkpoints x seconds each,

with what `study.calibrate` measures at the smallest, a middle and the largest batch size, each number interpolated in
ln B. Cells run `at_once` at a time in the order of the grid. All of it is *at most* where cells stop at their goals.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import envs
from rl_gns.config import ConfigError, RunConfig, to_dict
from rl_gns.config_file import load, load_toml
from rl_gns.distributed import tasks
from rl_gns.rundir import KEEP_CHECKPOINTS, RunDir
from rl_gns.study.build import checked, idle_actors, make_learner, rollout_bytes
from rl_gns.study.calibrate import Calibration, calibrate
from rl_gns.study.goals import evaluations_due
from rl_gns.study.room import Room, room, warnings
from rl_gns.study.sweep import check_directories, finished, lender
from rl_gns.study.train import Keeper
from rl_gns.study.variants import in_order, load_variants, variant_cells

State = Literal["missing", "begun", "finished", "reused"]


@dataclass(frozen=True)
class PlannedCell:
    """One run."""

    name: str
    batch_size: int
    learning_rate: float
    seed: int
    env_steps: int
    """Its budget, E."""
    state: State
    """reused: it has finished in another sweep's directory. begun: it goes on from a checkpoint."""
    env_steps_left: int
    """Still to be collected, at most."""


@dataclass(frozen=True)
class Seconds:
    """Wall-clock time, and what the fastest and the slowest pieces of the calibration say."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """What `--json` prints."""

    env: str
    cells: list[PlannedCell]
    differs: dict[str, tuple[Any, Any]]
    """Setting -> (default, value) of all cells."""
    varies: dict[str, list[Any]]
    """Setting -> its values, where cells differ from each other."""
    env_steps: int
    """Still to be collected by all cells, at most."""
    stops_at_goals: bool
    """Cells may end before their budget."""
    evaluations: int
    """Still to be played, at most; their env steps are not in E."""
    room: Room
    calibrations: list[Calibration]
    calibration_seconds: float
    seconds: Seconds | None
    """Wall-clock time; None where nothing was calibrated or nothing is missing. Ray's own start, some seconds, is not
    in it."""
    disk_bytes: int | None
    """What the missing cells write and keep: lines of metrics.jsonl and the last checkpoints."""
    memory_bytes: int | None
    """Peak of a cell's process, the largest seen."""
    frames_bytes: int | None
    """Of the largest rollout's frames, by formula; None for worlds without pixels."""
    warnings: list[str]


def plan_file(
    file: Path,
    home: Callable[[RunConfig | None], Path],
    cells_at_once: int = 0,
    reuse: Sequence[Path] = (),
    seconds: float = 30.0,
    watch: Callable[[str], None] = lambda words: None,
) -> Plan:
    """The plan of a sweep's file, or of a single run's: `home` says where that run lies, or, given None, the sweep.
    ConfigError: the user's mistakes."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ConfigError(f"--seconds: {seconds:g} will not do; 30 is the default, 0 is no calibration")
    if "sweep" in load_toml(file):
        path, configs = home(None), in_order(variant_cells(load_variants(file)))
        check_directories(path, reuse, cells_at_once)
        return plan(configs, {name: path / name for name in configs}, cells_at_once, reuse, seconds, watch)
    for flag, given in (("reuse", reuse), ("cells-at-once", cells_at_once)):
        if given:
            raise ConfigError(f"--{flag}: only read for a sweep's file; {file.name} is a single run's")
    config = checked(load(file))
    path = home(config)
    return plan({path.name: config}, {path.name: path}, seconds=seconds, watch=watch)


def plan(
    configs: Mapping[str, RunConfig],
    homes: Mapping[str, Path],
    cells_at_once: int = 0,
    reuse: Sequence[Path] = (),
    seconds: float = 30.0,
    watch: Callable[[str], None] = lambda words: None,
) -> Plan:
    """The plan of cells (name -> configuration, each in its own home); `seconds` is what the calibration may take in
    all, 0 for none. `watch` gets a line before each piece of it."""
    cells = {name: _cell(name, config, homes[name], reuse) for name, config in configs.items()}
    missing = {name: configs[name] for name, cell in cells.items() if cell.env_steps_left}
    seen = _calibrations(list(missing.values()), seconds, watch) if seconds and missing else {}
    costs = {name: _between(seen[_kind(c)], c.batch.size) for name, c in missing.items()} if seen else {}
    measured = [each for kind in seen.values() for each in kind]
    one = next(iter(configs.values()))
    memory = max((each.memory_bytes for each in measured), default=None)
    disk = round(sum(_disk(configs[n], cells[n], cost) for n, cost in costs.items())) if costs else None
    here = room(one, len(missing) or 1, cells_at_once, next(iter(homes.values())))
    pixels = envs.spec(one.env).kind == "pixels"
    return Plan(
        env=one.env,
        cells=list(cells.values()),
        **_settings(list(configs.values())),
        env_steps=sum(cell.env_steps_left for cell in cells.values()),
        stops_at_goals=bool(one.goals) and one.stop_at_goal,
        evaluations=sum(_evaluations(c, cells[name]) for name, c in missing.items()),
        room=here,
        calibrations=measured,
        calibration_seconds=sum(each.seconds for each in measured),
        seconds=_wall_clock({n: (configs[n], cells[n], cost) for n, cost in costs.items()}, here) if costs else None,
        disk_bytes=disk,
        memory_bytes=memory,
        frames_bytes=max(map(rollout_bytes, configs.values())) if pixels else None,
        warnings=warnings(here, memory, disk) + _distinct(filter(None, map(idle_actors, missing.values()))),
    )


def _cell(name: str, config: RunConfig, home: Path, reuse: Sequence[Path]) -> PlannedCell:
    lent = None if home.exists() else lender(name, config, reuse)
    there = lent or home
    over = finished(there, config) or (RunDir(there).result.exists() and Keeper(config, there).over())
    saved = RunDir(there).checkpoints()
    left = 0 if over else max(1, config.total_env_steps - (int(saved[-1].name) if saved else 0))
    state: State = "begun" if saved else "missing"
    if over:
        state = "reused" if lent else "finished"
    rate, size = config.learner.learning_rate, config.batch.size
    return PlannedCell(name, size, rate, config.seed, config.total_env_steps, state, left)


def _settings(configs: Sequence[RunConfig]) -> dict[str, dict[str, Any]]:
    """`differs` and `varies` of the plan."""
    default = _flat(to_dict(RunConfig()))
    values = {key: _distinct(_flat(to_dict(config))[key] for config in configs) for key in default}
    differs = {key: (default[key], v[0]) for key, v in values.items() if len(v) == 1 and v[0] != default[key]}
    return {"differs": differs, "varies": {key: v for key, v in values.items() if len(v) > 1}}


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({json.dumps(value): value for value in values}.values())


def _kind(config: RunConfig) -> RunConfig:
    """Cells of one kind cost alike at one batch size: all but what is set to one value here is the same."""
    return dataclasses.replace(
        config,
        seed=0,
        total_env_steps=1,
        batch=dataclasses.replace(config.batch, size=1),
        learner=dataclasses.replace(config.learner, learning_rate=1.0),
        rollout=dataclasses.replace(config.rollout, columns_per_collector=1),
    )


def _calibrations(
    configs: Sequence[RunConfig], seconds: float, watch: Callable[[str], None]
) -> dict[RunConfig, list[Calibration]]:
    """Kind -> calibrations in the order of the batch size: the smallest, the one nearest the middle in ln B, the
    largest of the cells that are still to be run."""
    chosen = {}
    for kind in dict.fromkeys(map(_kind, configs)):
        sizes = sorted({c.batch.size for c in configs if _kind(c) == kind})
        middle = min(sizes, key=lambda size, s=sizes: abs(math.log(size**2 / (s[0] * s[-1]))))
        picked = sorted({sizes[0], middle, sizes[-1]})
        chosen[kind] = [next(c for c in configs if _kind(c) == kind and c.batch.size == size) for size in picked]
    make_learner(configs[0])  # the first one in a process imports for seconds
    share, found = seconds / sum(map(len, chosen.values())), {}
    for kind, picked in chosen.items():
        found[kind] = []
        for config in picked:
            watch(f"calibrating B = {config.batch.size:,} for {share:.2g} s")
            found[kind].append(calibrate(config, share))
    return found


def _between(known: Sequence[Calibration], size: int) -> Calibration:
    """Every number interpolated in ln B."""
    at, numbers = np.log([each.batch_size for each in known]), {}
    for field in dataclasses.fields(Calibration):
        values = [getattr(each, field.name) for each in known]
        numbers[field.name] = None if None in values else float(np.interp(math.log(size), at, values))
    return Calibration(**numbers | {"batch_size": size})


def _rollouts(config: RunConfig, env_steps: int, valid_share: float = 1.0) -> int:
    return math.ceil(env_steps / (config.batch.rollout_env_steps * valid_share))


def _evaluations(config: RunConfig, cell: PlannedCell, valid_share: float = 1.0) -> int:
    done = _rollouts(config, cell.env_steps - cell.env_steps_left, valid_share)
    return evaluations_due(config, _rollouts(config, cell.env_steps, valid_share)) - evaluations_due(config, done)


def _disk(config: RunConfig, cell: PlannedCell, cost: Calibration) -> float:
    lines = _rollouts(config, cell.env_steps_left, cost.valid_share)
    return lines * cost.line_bytes + min(KEEP_CHECKPOINTS, _checkpoints(config, cell.env_steps)) * cost.checkpoint_bytes


def _checkpoints(config: RunConfig, env_steps: int) -> int:
    """Written over so many env steps, the one at the end included."""
    return env_steps // config.checkpoint.every_env_steps + 1


def _seconds(config: RunConfig, cell: PlannedCell, cost: Calibration, rate: float) -> float:
    """Of one cell on its own; no less than one rollout, since a run ends with a whole one."""
    rollouts = _rollouts(config, cell.env_steps_left, cost.valid_share)
    collecting = rollouts * config.batch.rollout_env_steps * cost.valid_share / rate
    judging = _evaluations(config, cell, cost.valid_share) * (cost.evaluation_seconds or 0.0)
    saving = _checkpoints(config, cell.env_steps_left) * cost.checkpoint_seconds
    return cost.start_seconds + collecting + judging + saving


def _wall_clock(cells: Mapping[str, tuple[RunConfig, PlannedCell, Calibration]], here: Room) -> Seconds:
    def of(rate: str) -> float:
        alone = [_seconds(config, cell, cost, getattr(cost, rate)) for config, cell, cost in cells.values()]
        return tasks.makespan(alone, max(here.at_once, 1)) * here.slowdown

    return Seconds(of("env_steps_per_second"), of("fastest"), of("slowest"))
