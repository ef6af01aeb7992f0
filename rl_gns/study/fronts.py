"""What the finished cells of a sweep say: crossings, predictions, points.csv, and a front for each goal."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_gns.config import RunConfig
from rl_gns.noise.front import Front, NoFront, fit_front, largest_useful_batch
from rl_gns.noise.pooled_prediction import (
    CONFIDENCE,
    Comparison,
    GoalPrediction,
    PooledPrediction,
    goal_prediction,
    hold_against,
    pool_runs,
)
from rl_gns.noise.trust_region import TrustRegion
from rl_gns.rundir import RunDir, write_text
from rl_gns.study.limits import LIMITS, AtBatchSize, known_mean, limit_means
from rl_gns.study.predict import from_records

COLUMNS = (
    "game",
    "goal_return",
    "batch_env_steps",
    "optimizer_steps",
    "env_steps",
    "seed",
    "learning_rate",
    "epochs",
    "reached",
)
"""Columns of points.csv, those of McCandlish et al.'s Atari fronts first; then `variant`, where a sweep has them."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid at one goal."""

    name: str
    """Its directory."""
    goal_return: float
    judged_on: str
    batch_size: int
    """B that was asked for."""
    learning_rate: float
    seed: int
    reached: bool
    collapsed: bool
    """It lost what it had won; where it did not reach the goal it is counted, not censored."""
    optimizer_steps: float
    """S at the goal; where it was not reached, S at the run's end."""
    env_steps: float
    """E, likewise."""
    batch_env_steps: float
    """Valid env steps that an optimizer step averaged, over all cells of this batch size."""
    chosen: bool
    """Its learning rate is the one that stands for its batch size in the front."""
    prediction: GoalPrediction | None
    """From this run's own noise scales up to the goal; None where it was not reached."""
    variant: str = ""
    """Of the sweep; empty where it has none."""
    approx_kl: float | None = None
    """Mean over the optimizer steps to the goal (to the run's end where it was not reached), nats."""
    clip_fraction: float | None = None
    """Likewise, of rows."""
    grad_clip_fraction: float | None = None
    """Likewise, of optimizer steps."""


@dataclass(frozen=True)
class GoalFront:
    """What the grid says about one goal."""

    goal_return: float
    judged_on: str
    cells: int
    reached: int
    collapsed: int
    """Of those that did not reach it."""
    front: Front | None
    no_front: str | None
    """Why there is no front; None where there is one."""
    largest_useful_batch: float | None
    """The largest B whose E is within 1.2 of the least, from the points."""
    predicted: PooledPrediction | None
    """B_crit from the noise scales of the same runs."""
    held: Comparison | None
    """Predicted over swept; None where either is missing."""
    variant: str = ""
    """Of the sweep; empty where it has none."""
    limits_met: tuple[AtBatchSize, ...] = ()
    """KL, clip fraction and gradient-clip rate of the chosen cells, a batch size each."""
    limited_by: str | None = None
    """`trust region`: S_min is the clip's, and front.b_crit the fit's knee but no critical batch size."""
    trust_region: TrustRegion | None = None
    """What wider clips say; None where no variant differs in nothing but the clip."""


def read_cells(path: Path, configs: Mapping[str, RunConfig], variant: str = "") -> list[Cell]:
    """Every finished cell of one variant at each of its goals, in the order of the grid."""
    results = {name: RunDir(path / name).read_result() for name in configs}
    done = {name: (configs[name], result) for name, result in results.items() if result is not None}
    valid = _valid_env_steps(list(done.values()))
    cells = []
    for name, (config, result) in done.items():
        records = [r for r in RunDir(path / name).records() if r["batch_env_steps"]]
        cells += [_cell(name, config, result, goal, records, valid[config.batch.size]) for goal in result["goals"]]
    return [dataclasses.replace(c, variant=variant) for c in _chosen(cells)]


def _valid_env_steps(done: list[tuple[RunConfig, dict[str, Any]]]) -> dict[int, float]:
    """Batch size asked for -> the mean that optimizer steps averaged: a little less, where rows are masked."""
    means: dict[int, list[float]] = {}
    for config, result in done:
        mean = result["env_steps"] * config.batch.epochs / max(result["optimizer_steps"], 1)
        means.setdefault(config.batch.size, []).append(mean)
    return {size: float(np.mean(values)) for size, values in means.items()}


def _cell(
    name: str, config: RunConfig, result: dict[str, Any], goal: dict[str, Any], records: list[dict], valid: float
) -> Cell:
    at = goal if goal["reached"] else result
    return Cell(
        name=name,
        goal_return=goal["goal_return"],
        judged_on=goal["judged_on"],
        batch_size=config.batch.size,
        learning_rate=config.learner.learning_rate,
        seed=config.seed,
        reached=goal["reached"],
        collapsed=goal["collapsed"],
        optimizer_steps=at["optimizer_steps"],
        env_steps=at["env_steps"],
        batch_env_steps=valid,
        chosen=False,
        prediction=_predict(records, goal["optimizer_steps"], config) if goal["reached"] else None,
        **limit_means(records, at["optimizer_steps"]),
    )


def _predict(records: list[dict[str, Any]], until: float, config: RunConfig) -> GoalPrediction | None:
    """From the policy's probes up to S = `until`; None where none of them counts."""
    kept = [r for r in records if r["optimizer_steps"] <= until]
    found = from_records(kept, config, "policy", CONFIDENCE)
    return goal_prediction(found) if found and found.covered else None


def _chosen(cells: list[Cell]) -> list[Cell]:
    """The cells, those of the best learning rate marked, for each goal and batch size: the rate whose runs reached the
    goal most often and then in the fewest steps (geometric mean). Best of a few, on the same runs: S reads low."""
    groups: dict[tuple[float, int], dict[float, list[Cell]]] = {}
    for c in cells:
        groups.setdefault((c.goal_return, c.batch_size), {}).setdefault(c.learning_rate, []).append(c)
    best = {key: min(rates, key=lambda rate, rates=rates: _slowness(rates[rate])) for key, rates in groups.items()}
    return [dataclasses.replace(c, chosen=c.learning_rate == best[c.goal_return, c.batch_size]) for c in cells]


def _slowness(cells: list[Cell]) -> tuple[float, float]:
    missed = sum(not c.reached for c in cells) / len(cells)
    steps = [c.optimizer_steps for c in cells if c.reached]
    return missed, float(np.mean(np.log(steps))) if steps else 0.0


def goal_front(cells: Sequence[Cell], config: RunConfig) -> GoalFront:
    """Fit one goal: runs that did not reach it are censored at their end, collapsed ones counted, and learning rates
    are part of the model where there are enough (`noise.front`). The largest useful batch and the prediction are of
    the cells of the chosen rates that reached it, at batch sizes where at least half of them did.
    """
    there = [c for c in _mostly_there(cells) if c.reached]
    size, env_steps = (np.array([getattr(c, name) for c in there]) for name in ("batch_size", "env_steps"))
    enough = len(np.unique(size)) >= 2 and len(there) >= 3
    front, no_front = _front([c for c in cells if c.reached or not c.collapsed], config.batch.epochs)
    runs = [c for c in there if c.prediction]
    predicted = pool_runs([c.prediction for c in runs], [c.batch_size for c in runs]) if runs else None
    return GoalFront(
        goal_return=cells[0].goal_return,
        judged_on=cells[0].judged_on,
        cells=len(cells),
        reached=sum(c.reached for c in cells),
        collapsed=sum(c.collapsed and not c.reached for c in cells),
        front=front,
        no_front=no_front,
        largest_useful_batch=largest_useful_batch(size, env_steps) if enough else None,
        predicted=predicted,
        held=hold_against(vars(predicted), vars(front)) if predicted and front else None,
        variant=cells[0].variant,
        limits_met=_limits_met(cells),
    )


def _limits_met(cells: Sequence[Cell]) -> tuple[AtBatchSize, ...]:
    """Of the cells that stand for their batch size in one front, ascending."""
    found = []
    for size in sorted({c.batch_size for c in cells if c.chosen}):
        here = [c for c in cells if c.chosen and c.batch_size == size]
        found.append(AtBatchSize(size, len(here), *(known_mean([getattr(c, name) for c in here]) for name in LIMITS)))
    return tuple(found)


def _mostly_there(cells: Sequence[Cell]) -> list[Cell]:
    """Of the chosen rates, those of batch sizes half of whose runs or more reached the goal: the quick ones among few
    would speak for all."""
    chosen = [c for c in cells if c.chosen]
    share = {b: np.mean([c.reached for c in chosen if c.batch_size == b]) for b in {c.batch_size for c in chosen}}
    return [c for c in chosen if share[c.batch_size] >= 0.5]


def _front(cells: Sequence[Cell], epochs: int) -> tuple[Front | None, str | None]:
    values = {
        name: [getattr(c, name) for c in cells]
        for name in ("batch_env_steps", "optimizer_steps", "reached", "learning_rate")
    }
    try:
        sizes, steps = values.pop("batch_env_steps"), values.pop("optimizer_steps")
        return fit_front(sizes, steps, epochs, **values), None
    except NoFront as error:
        return None, str(error)


def write_points(path: Path, cells: Sequence[Cell], configs: Mapping[str, RunConfig]) -> None:
    """points.csv: a line a cell and goal, all learning rates. Where `reached` is 0, S and E are the run's end, at which
    it is censored; collapsed runs, of which no more steps would make a crossing, are left out (sweep.json counts them).
    `configs`: variant -> its settings.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    named = any(configs)
    lines.writerow([*COLUMNS, *(["variant"] if named else [])])
    for c in cells:
        if c.reached or not c.collapsed:
            values = (c.goal_return, c.batch_env_steps, c.optimizer_steps, c.env_steps)
            facts = (c.seed, c.learning_rate, configs[c.variant].batch.epochs, int(c.reached))
            of = [c.variant] if named else []
            lines.writerow([configs[c.variant].env, *(f"{value:.10g}" for value in values), *facts, *of])
    write_text(path, text.getvalue())
