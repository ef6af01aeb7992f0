"""The grid of a sweep: batch sizes x learning rates x seeds, and the cells that it is made of.

A cell's name ends in a hash of all that changes its numbers (`config_id`), so a directory is one experiment whatever
grid asked for it: a wider grid finds what a narrower one has run, here or in another sweep's directory.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rl_gns.config import ConfigError, RunConfig, config_id
from rl_gns.config_file import from_table, load_toml
from rl_gns.config_rules import check_least
from rl_gns.noise.controller import RATE_POWERS
from rl_gns.study.build import checked


@dataclass(frozen=True)
class Grid:
    """The [sweep] table of a sweep's file."""

    batch_sizes: tuple[int, ...] = ()
    """B of each cell, env steps."""
    learning_rates: tuple[float, ...] = ()
    """At a batch of `batch.size`; each is tried at each batch size, as the rule scales it."""
    learning_rate_rule: Literal["none", "sqrt", "linear"] = "none"
    """How a learning rate goes with B / batch.size: not, as its square root (usual for Adam), or in proportion."""
    seeds: tuple[int, ...] = (0,)
    """Every batch size and learning rate runs with each seed."""
    max_optimizer_steps: int = 0
    """A cell's budget ends here too, if that is before total_env_steps; 0: it does not."""


def load_grid(path: Path) -> tuple[RunConfig, Grid]:
    """A sweep's file: a run's settings, and a [sweep] table. What its variants change: `study.variants`."""
    values = load_toml(path)
    values.pop("variants", None)
    table = values.pop("sweep", None)
    if not isinstance(table, dict):
        raise ConfigError(f"--config: {path.name} has no [sweep] table: batch_sizes, learning_rates, seeds")
    return from_table(values, RunConfig()), from_table(table, Grid(), "sweep.")


def cell_configs(config: RunConfig, grid: Grid) -> dict[str, RunConfig]:
    """Name -> configuration of every cell, in the order that they run: a whole front of one seed before the next, the
    large batches of it first, so that a sweep which is cut short is still one."""
    if not config.goals:
        raise ConfigError("goals: a sweep needs at least one goal return")
    for name in ("batch_sizes", "learning_rates", "seeds"):
        given = getattr(grid, name)
        if not given or len(set(given)) < len(given):
            raise ConfigError(f"sweep.{name}: {list(given)}: at least one is needed, and each once")
    for key, value, needed in (
        ("learner.schedule", config.learner.schedule, "constant"),
        ("control.policy", config.control.policy, "fixed"),
    ):
        if value != needed:
            raise ConfigError(f"{key}: {value!r} makes no front: B and the rate must stay; {needed} does")
    check_least(config)
    for name, least in (("batch_sizes", 1), ("learning_rates", 0), ("seeds", 0)):
        if min(getattr(grid, name)) < least:
            raise ConfigError(f"sweep.{name}: {min(getattr(grid, name))} is too small; the least is {least}")
    if grid.max_optimizer_steps < 0:
        raise ConfigError(f"sweep.max_optimizer_steps: {grid.max_optimizer_steps} is too small; the least is 0")
    cells = {}
    for seed in grid.seeds:
        for size in sorted(grid.batch_sizes, reverse=True):
            for rate in grid.learning_rates:
                cell = _cell(config, grid, size, rate, seed)
                cells[cell_name(cell)] = cell
    return cells


def cell_name(config: RunConfig) -> str:
    """`B64-lr0.002-s0-1a2b3c4d`: what a person looks for, and the hash that tells experiments apart."""
    return f"B{config.batch.size}-lr{config.learner.learning_rate:g}-s{config.seed}-{config_id(config)}"


def columns_per_collector(config: RunConfig, size: int) -> int:
    """The configured columns of a collector, or all of a batch that has fewer."""
    columns = max(1, size * config.batch.minibatches // (config.batch.segment_steps * config.rollout.waves))
    return min(config.rollout.columns_per_collector, columns)


def _cell(config: RunConfig, grid: Grid, size: int, rate: float, seed: int) -> RunConfig:
    """One torch thread unless the file asks for more: cells share the cores. A batch of fewer columns than a collector
    has gets a collector of just those; larger collectors are what makes large batches quick."""
    scaled = rate * (size / config.batch.size) ** RATE_POWERS[grid.learning_rate_rule]
    rounded = float(f"{scaled:.3g}")  # so that the number in a name is the number used
    threads = config.learner.threads or 1
    per_collector = columns_per_collector(config, size)
    most = grid.max_optimizer_steps * size // config.batch.epochs or config.total_env_steps
    return checked(
        dataclasses.replace(
            config,
            seed=seed,
            total_env_steps=min(config.total_env_steps, most),
            batch=dataclasses.replace(config.batch, size=size),
            rollout=dataclasses.replace(config.rollout, columns_per_collector=per_collector),
            learner=dataclasses.replace(config.learner, learning_rate=rounded, threads=threads),
        )
    )
