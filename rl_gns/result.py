"""What result.json holds: a finished run in one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rl_gns.records import NoiseScale, logged


@dataclass(frozen=True)
class GoalCrossing:
    """When a run reached a goal; the steps are None where it did not (censored at the run's end)."""

    goal_return: float = logged("score", "the goal")
    judged_on: str = logged("", "`evaluation` (episodes of the frozen policy) or `training` (their smoothed return)")
    reached: bool = logged("", "whether that return got there")
    optimizer_steps: float | None = logged("steps", "S at the crossing, interpolated in ln S between looks")
    env_steps: float | None = logged("env steps", "E at the crossing, likewise")
    collapsed: bool = logged("", "it came half-way to the goal at least, and ended having lost half of that or more")


@dataclass(frozen=True)
class RunResult:
    """result.json: written last, so its presence means that the run finished."""

    env: str = logged("", "world")
    seed: int = logged("", "run seed")
    config_id: str = logged("", "hash of the settings that change numbers")
    env_steps: int = logged("env steps", "E at the end")
    optimizer_steps: int = logged("steps", "S at the end")
    updates: int = logged("rollouts", "rollouts at the end")
    batch_size: int = logged("env steps", "B at the end")
    batch_size_moves: int = logged("1", "how often the controller changed B")
    epochs: int = logged("1", "passes over a rollout")
    minibatches: int = logged("1", "optimizer steps a pass")
    learning_rate: float = logged("1", "at the end")
    return_mean: float | None = logged("score", "mean raw return of the last finished episodes")
    episodes: int = logged("episodes", "finished")
    goals: list[GoalCrossing] = logged("", "one a goal")
    noise: dict[str, NoiseScale] | None = logged("", "the last pooled noise scales")
    noise_across: dict[str, NoiseScale] | None = logged("", "the last across rollouts")
    noise_control_trips: int = logged("rollouts", "whose control channel read low or high")
    skipped_steps: int = logged("steps", "optimizer steps skipped for a gradient that was not finite")
    late_blocks: int = logged("blocks", "late or duplicate blocks dropped")
    refused_blocks: int = logged("blocks", "that were not what was asked for, and dropped")
    replaced_actors: int = logged("actors", "that failed and were replaced")
    faults: list[dict[str, Any]] = logged("", "every fault, with the `update` in which it was met")
    faults_env_steps: int = logged("env steps", "about what all of them cost, none of it in `env_steps`")
    chaos: dict[str, float] = logged("probability", "a block, of the faults that --chaos asked for; empty where off")
    seconds: float = logged("s", "wall-clock of all sittings of the run")
    stopped: str = logged("", "why the run ended: `budget` or `goal`")
