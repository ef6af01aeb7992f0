"""`rl-gns sweep`: a grid of batch sizes and seeds, one run directory a cell, and the knee of the front it makes.

Cells run one after the other in this process. A finished cell is not run again, so running the same command again
resumes, and a wider grid runs only what is new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_gns.config import ConfigError, RunConfig
from rl_gns.config_file import from_table, load_toml
from rl_gns.noise.front import Front, fit_front, largest_useful_batch
from rl_gns.noise.predict import PooledPrediction, Prediction, pool_predictions, predict_front
from rl_gns.records import UpdateRecord
from rl_gns.rundir import RunDir, write_json
from rl_gns.study.build import checked
from rl_gns.study.train import train


@dataclass(frozen=True)
class Grid:
    """The [sweep] table of a sweep's file."""

    batch_sizes: tuple[int, ...] = ()
    """B of each cell, env steps."""
    learning_rates: tuple[float, ...] = ()
    """One a batch size."""
    seeds: tuple[int, ...] = (0,)
    """Each batch size runs with each seed."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid at one goal; steps are None where it did not get there within its budget."""

    goal_return: float
    batch_size: int
    learning_rate: float
    seed: int
    reached: bool
    optimizer_steps: float | None
    env_steps: float | None
    prediction: Prediction | None
    """From this run's own noise scales up to the goal; None where it was not reached."""


@dataclass(frozen=True)
class GoalFront:
    """What the grid says about one goal."""

    goal_return: float
    cells: int
    reached: int
    front: Front | None
    """None where too few cells got there."""
    largest_useful_batch: float | None
    """The largest B whose E is within 1.2 of the least, from the points."""
    predicted: PooledPrediction | None
    """B_crit from the noise scales of the same runs."""


Watch = Callable[[str, UpdateRecord], None]


def load_grid(path: Path) -> tuple[RunConfig, Grid]:
    """A sweep's file: a run's settings, and a [sweep] table."""
    values = load_toml(path)
    table = values.pop("sweep", None)
    if not isinstance(table, dict):
        raise ConfigError(f"--config: {path.name} has no [sweep] table: batch_sizes, learning_rates, seeds")
    grid = from_table(table, Grid(), "sweep.")
    if not grid.batch_sizes or len(grid.batch_sizes) != len(grid.learning_rates):
        raise ConfigError("sweep.learning_rates: one a batch size is needed")
    if not grid.seeds:
        raise ConfigError("sweep.seeds: at least one is needed")
    return from_table(values, RunConfig()), grid


def cell_configs(config: RunConfig, grid: Grid) -> dict[str, RunConfig]:
    """Name -> configuration of every cell, in the order that they run."""
    if not config.goals:
        raise ConfigError("goals: a sweep needs at least one goal return")
    cells = {}
    for size, rate in zip(grid.batch_sizes, grid.learning_rates, strict=True):
        for seed in grid.seeds:
            batch = dataclasses.replace(config.batch, size=size)
            learner = dataclasses.replace(config.learner, learning_rate=rate)
            cell = dataclasses.replace(config, batch=batch, learner=learner, seed=seed)
            cells[f"B{size}-lr{rate:g}-s{seed}"] = checked(cell)
    return cells


def sweep(config: RunConfig, grid: Grid, path: Path, watch: Watch = lambda name, record: None) -> list[GoalFront]:
    """Run what is missing, fit every goal, and write sweep.json."""
    configs = cell_configs(config, grid)
    if (path / "config.toml").exists():
        raise ConfigError(f"--run-dir: {path} holds a single run; give a directory of its own to the sweep")
    for name, cell in configs.items():
        train(cell, path / name, lambda record, name=name: watch(name, record))
    cells = [cell for name, each in configs.items() for cell in read_cells(path / name, each)]
    fronts = [goal_front([c for c in cells if c.goal_return == goal], config) for goal in config.goals]
    write_json(path / "sweep.json", {"config": dataclasses.asdict(config), "cells": cells, "fronts": fronts})
    return fronts


def read_cells(path: Path, config: RunConfig) -> list[Cell]:
    """One finished run at each of its goals."""
    run = RunDir(path)
    records = list(run.records())
    return [
        Cell(
            goal_return=crossing["goal_return"],
            batch_size=config.batch.size,
            learning_rate=config.learner.learning_rate,
            seed=config.seed,
            reached=crossing["reached"],
            optimizer_steps=crossing["optimizer_steps"],
            env_steps=crossing["env_steps"],
            prediction=_predict(records, crossing["optimizer_steps"], config) if crossing["reached"] else None,
        )
        for crossing in run.read_result()["goals"]
    ]


def _predict(records: list[dict[str, Any]], until: float, config: RunConfig) -> Prediction | None:
    kept = [r for r in records if r["optimizer_steps"] <= until and r["batch_env_steps"]]
    if not kept:
        return None
    policy = [(r["noise"] or {}).get("policy", {}) for r in kept]
    return predict_front(
        optimizer_steps=np.diff([r["optimizer_steps"] for r in kept], prepend=0),
        batch_size=np.array([r["batch_env_steps"] for r in kept]),
        signal_sq=np.array([p.get("signal_sq", np.nan) for p in policy]),
        noise_trace=np.array([p.get("noise_trace", np.nan) for p in policy]),
        epochs=config.batch.epochs,
    )


def goal_front(cells: list[Cell], config: RunConfig) -> GoalFront:
    """Fit the cells that reached one goal, at the valid env steps that their optimizer steps really averaged.

    Where some did not reach it the front is not resolved: those that did are the lucky ones.
    """
    there = [c for c in cells if c.reached]
    size, steps, env_steps = (
        np.array([getattr(c, name) for c in there]) for name in ("batch_size", "optimizer_steps", "env_steps")
    )
    enough = len(np.unique(size)) >= 2 and len(there) >= 3
    front = fit_front(env_steps * config.batch.epochs / steps, steps, config.batch.epochs) if enough else None
    if front and len(there) < len(cells):
        missing = f"{len(cells) - len(there)} of {len(cells)} runs did not get there, which favours the lucky ones"
        front = dataclasses.replace(front, resolved=False, reason=missing)
    predictions = [c.prediction for c in there if c.prediction and c.prediction.s_min is not None]
    return GoalFront(
        goal_return=cells[0].goal_return,
        cells=len(cells),
        reached=len(there),
        front=front,
        largest_useful_batch=largest_useful_batch(size, env_steps) if enough else None,
        predicted=pool_predictions(predictions) if len(predictions) >= 2 else None,
    )
