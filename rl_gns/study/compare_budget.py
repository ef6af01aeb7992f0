"""`--budget`: how many env steps of frozen policy a comparison can give each game at each stage in a time.

Every game is timed as its cells will run, with as many others beside it: a short measurement of a fresh policy tells
what a measurement's start takes and what its env steps do, a calibration as `plan`'s tells it of training. Cells are
then laid out as they will be run, phase after phase, and the most env steps bought with which all of them end in time.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rl_gns.comparison import FRESH, Bought
from rl_gns.config import ConfigError, RunConfig
from rl_gns.distributed import tasks
from rl_gns.study.calibrate import calibrate
from rl_gns.study.compare_plan import Asked, CellPlan, cell_config
from rl_gns.study.measure import FIRST_LOOK, SHUFFLED_EVERY, measure
from rl_gns.study.sweep import cells_session, together, told

TIMED = FIRST_LOOK + SHUFFLED_EVERY
"""Rollouts of the short measurement: those after the first look give the rate, the others the start."""
TRAINING_SECONDS = 10.0
"""That the training's calibration takes, about (a choice; at least 3 rollouts whatever they take)."""
KEPT_FREE = 0.15
"""Of the budget, for trained policies slower than fresh ones and a machine that is not always as quick (a guess)."""


@dataclass(frozen=True)
class Speed:
    """Of one game's measurements, or of its trainings."""

    start_seconds: float
    env_steps_per_second: float

    def seconds(self, env_steps: float) -> float:
        return self.start_seconds + env_steps / self.env_steps_per_second


@dataclass(frozen=True)
class Timed:
    """One game in the company of others."""

    measuring: Speed
    training: Speed | None
    """None where nothing is to be trained."""
    around_seconds: float
    """That the job took besides, as every cell's will: a process that starts and imports."""


def fitted(
    asked: Asked, seconds: float, missing: Sequence[CellPlan], runs: Sequence[CellPlan], cells_at_once: int
) -> Bought:
    """At most `asked.env_steps`, at least `FIRST_LOOK` rollouts of every cell; ConfigError where not even that fits.
    `missing`: one or more cells that are still to be measured; `runs`: one of each training run still to be made."""
    begun = time.perf_counter()
    at_once = _at_once(missing[0].config, max(len(missing), len(runs)), cells_at_once)
    speeds, opening = timed_together(missing, runs, at_once)
    left = seconds * (1 - KEPT_FREE) - (time.perf_counter() - begun)

    def needed(env_steps: int) -> float:
        return opening + needed_seconds(asked, missing, runs, speeds, at_once, env_steps)

    least = _least(asked)
    fitting = bisect_right(range(least, asked.env_steps + 1), left, key=needed)
    if not fitting:
        enough = seconds + (needed(least) - left) / (1 - KEPT_FREE)
        training = f" and {len(runs)} trainings to {max(asked.stages):,} env steps" if runs else ""
        raise ConfigError(
            f"--budget: {seconds:,.0f} s is too short for {len(missing)} measurements{training}; about {enough:,.0f} s "
            f"would do, or less to do"
        )
    trained = [timed.training.env_steps_per_second for timed in speeds.values() if timed.training]
    return Bought(
        seconds=seconds,
        most_env_steps=asked.env_steps,
        env_steps=least + fitting - 1,
        training_rate=min(trained, default=None),
        measuring_rate=min(timed.measuring.env_steps_per_second for timed in speeds.values()),
        cells_at_once=at_once,
    )


def needed_seconds(
    asked: Asked,
    missing: Sequence[CellPlan],
    runs: Sequence[CellPlan],
    speeds: Mapping[str, Timed],
    at_once: int,
    env_steps: int,
) -> float:
    """Fresh policies, then trainings, then later stages: each phase in the order of its cells, the next one always
    where a cell has ended; `env_steps` a game and stage."""

    def measured(plan: CellPlan) -> float:
        timed = speeds[plan.game]
        return timed.around_seconds + timed.measuring.seconds(env_steps / len(asked.seeds(plan.stage)))

    def trained(plan: CellPlan) -> float:
        timed = speeds[plan.game]
        return timed.around_seconds + timed.training.seconds(plan.config.total_env_steps) if timed.training else 0.0

    fresh = (measured(plan) for plan in missing if plan.stage == FRESH)
    later = (measured(plan) for plan in missing if plan.stage != FRESH)
    return sum(tasks.makespan(phase, at_once) for phase in (fresh, map(trained, runs), later))


def timed_together(
    missing: Sequence[CellPlan], runs: Sequence[CellPlan], at_once: int
) -> tuple[dict[str, Timed], float]:
    """Each game, and the seconds that it takes to open a session. A game that fails here (its own cells will say why)
    counts as the slowest of the others; RuntimeError where all do."""
    games, training = {plan.game: plan.config for plan in missing}, {plan.game for plan in runs}
    jobs = whole_rounds(list(games), at_once)
    begun, asked_at = time.perf_counter(), dict[str, float]()

    def start(job: str) -> tuple[Any, ...]:
        asked_at[job] = time.perf_counter()
        return games[jobs[job]], jobs[job] in training

    found, failed = defaultdict[str, list[Timed]](list), ""
    with contextlib.closing(told({job: games[game] for job, game in jobs.items()}, at_once, timing, start)) as stream:
        for job, news in stream:
            if isinstance(news, tasks.Item):
                measuring, trained, taken = news.value
                around = max(0.0, time.perf_counter() - asked_at[job] - taken)
                found[jobs[job]].append(Timed(measuring, trained, around))
            elif isinstance(news, tasks.Failed):
                failed = news.traceback
    if not found:
        raise RuntimeError(f"no game could be timed for --budget:\n{failed}")
    every = [timed for several in found.values() for timed in several]
    return {game: slowest(found.get(game, every)) for game in games}, min(asked_at.values()) - begun


def whole_rounds(games: Sequence[str], at_once: int) -> dict[str, str]:
    """Job -> game: every game once, and the first ones again until the last round is as full as the others."""
    n_rounds = -(-len(games) // at_once)
    return {f"{games[k % len(games)]} {k}": games[k % len(games)] for k in range(n_rounds * at_once)}


def slowest(several: Sequence[Timed]) -> Timed:
    """The longest start and the least rate of all."""
    trainings = [timed.training for timed in several if timed.training]
    return Timed(
        measuring=_slowest([timed.measuring for timed in several]),
        training=_slowest(trainings) if trainings else None,
        around_seconds=max(timed.around_seconds for timed in several),
    )


def _slowest(speeds: Sequence[Speed]) -> Speed:
    return Speed(max(s.start_seconds for s in speeds), min(s.env_steps_per_second for s in speeds))


def timing(config: RunConfig, training: bool) -> Iterator[tuple[Speed, Speed | None, float]]:
    """One game's measuring and training, in whatever process this is, and the seconds that it took to find them."""
    begun = time.perf_counter()
    measuring, trained = measuring_speed(config), None
    if training:
        found = calibrate(config, TRAINING_SECONDS)
        trained = Speed(found.start_seconds, found.env_steps_per_second)
    yield measuring, trained, time.perf_counter() - begun


def measuring_speed(config: RunConfig) -> Speed:
    """From a short measurement of a fresh policy: its env steps after the first look, and what was before them."""
    looks, begun = list[tuple[int, float]](), time.perf_counter()
    whole = measure(
        config,
        TIMED * config.batch.rollout_env_steps,
        0.0,
        watch=lambda env_steps, _: looks.append((env_steps, time.perf_counter() - begun)),
    )
    taken = time.perf_counter() - begun
    first, passed = looks[0]
    rate = (whole.env_steps - first) / (taken - passed)
    return Speed(max(0.0, passed - first / rate), rate)


def _at_once(config: RunConfig, n_cells: int, cells_at_once: int) -> int:
    """Of so many cells like this one; on a cluster that is named, as many as it has CPUs for now."""
    if at_once := together(config, n_cells, cells_at_once):
        return at_once
    with cells_session([config], 0):
        shape = tasks.shape(tasks.node_cpus(), config.learner.threads, config.actor_cpus, 0)
    return min(shape.at_once, n_cells)


def _least(asked: Asked) -> int:
    """`FIRST_LOOK` rollouts of each seed, where so many are asked for."""
    rollout = cell_config(asked, asked.games[0], asked.base.seed).batch.rollout_env_steps
    return min(asked.env_steps, FIRST_LOOK * rollout * max(len(asked.seeds(stage)) for stage in asked.stages))
