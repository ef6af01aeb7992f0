"""`--budget`: how many env steps of frozen policy a comparison can give each game at each stage in a time.

A measurement takes a start (columns are scattered and burnt in), then a time in proportion; two short ones tell both.
A training run is timed as `plan` does. Both on the first game alone: the emulation of others takes more or less.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rl_gns.comparison import Bought
from rl_gns.config import ConfigError, RunConfig
from rl_gns.distributed import tasks
from rl_gns.study.calibrate import calibrate
from rl_gns.study.compare_plan import Asked, CellPlan, cell_config
from rl_gns.study.measure import FIRST_LOOK, measure
from rl_gns.study.sweep import cells_session, together

TRIED = (3, 9)
"""Rollouts of the two short measurements (a choice)."""
TRAINING_SECONDS = 10.0
"""That the training's calibration takes, about (a choice; at least 3 rollouts whatever they take)."""
KEPT_FREE = 0.15
"""Of the budget, for games slower than the first and for a machine that is not always as quick (a guess)."""


@dataclass(frozen=True)
class Speed:
    """Of one cell's measurement."""

    start_seconds: float
    env_steps_per_second: float


def fitted(
    asked: Asked, seconds: float, missing: Sequence[CellPlan], runs: Sequence[CellPlan], cells_at_once: int
) -> Bought:
    """At most `asked.env_steps`, at least `FIRST_LOOK` rollouts of every cell; ConfigError where not even that fits.
    `missing`: cells that are still to be measured; `runs`: one of each training run that is still to be made."""
    begun = time.perf_counter()
    config = cell_config(asked, asked.games[0], asked.base.seed)
    at_once = _at_once(config, max(len(missing), 1), cells_at_once)
    speed, trained = measuring_speed(config), calibrate(config, TRAINING_SECONDS) if runs else None
    fixed = len(missing) * speed.start_seconds
    if trained:
        each = trained.start_seconds + config.total_env_steps / trained.env_steps_per_second
        fixed += len(runs) * each
    spent = time.perf_counter() - begun
    shares, least = sum(1 / len(asked.seeds(plan.stage)) for plan in missing), _least(asked, config)
    left = (seconds * (1 - KEPT_FREE) - spent) * at_once - fixed
    env_steps = int(left * speed.env_steps_per_second / shares) if missing else asked.env_steps
    if env_steps < least:
        needed = (fixed + shares * least / speed.env_steps_per_second) / at_once + spent
        raise ConfigError(
            f"--budget: {seconds:,.0f} s is too short for {len(missing)} measurements and {len(runs)} trainings to "
            f"{max(asked.stages):,} env steps; about {needed / (1 - KEPT_FREE):,.0f} s would do, or less to do"
        )
    return Bought(
        seconds=seconds,
        most_env_steps=asked.env_steps,
        env_steps=min(env_steps, asked.env_steps),
        training_rate=trained.env_steps_per_second if trained else None,
        measuring_rate=speed.env_steps_per_second,
        cells_at_once=at_once,
    )


def _at_once(config: RunConfig, n_cells: int, cells_at_once: int) -> int:
    """Of so many cells like this one; on a cluster that is named, as many as it has CPUs for now."""
    if at_once := together(config, n_cells, cells_at_once):
        return at_once
    with cells_session([config], 0):
        shape = tasks.shape(tasks.node_cpus(), config.learner.threads, config.actor_cpus, 0)
    return min(shape.at_once, n_cells)


def measuring_speed(config: RunConfig) -> Speed:
    """From two short measurements of a fresh policy."""
    rollout = config.batch.rollout_env_steps
    short, longer = (measure(config, n * rollout, 0.0) for n in TRIED)
    taken = max(longer.seconds - short.seconds, 1e-3 * longer.seconds)
    rate = (longer.env_steps - short.env_steps) / taken
    return Speed(max(0.0, longer.seconds - longer.env_steps / rate), rate)


def _least(asked: Asked, config: RunConfig) -> int:
    most_seeds = max(len(asked.seeds(stage)) for stage in asked.stages)
    return min(asked.env_steps, FIRST_LOOK * config.batch.rollout_env_steps * most_seeds)
