"""What `rl-gns compare` writes into compare.json: games beside each other at the same stages.

Fields of the names `b_simple`, `low`, `high` are env steps; null stands for "not known" and for an end that is not
there. A stage is the env steps of training that a policy has had; 0 is a fresh one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rl_gns.measurement import Pooled
from rl_gns.records import MomentsKey, NoiseScale, logged

LAYOUT = 2
"""Version of compare.json. 2: `low` and `high` are the wider of both intervals."""
FRESH = 0
"""The stage of a policy that was not trained."""


def stage_name(stage: int) -> str:
    """`fresh`, or the env steps as a directory is named after them."""
    return str(stage) if stage else "fresh"


@dataclass(frozen=True)
class Ratio:
    """One number over another, in logarithms: distances to the limits are joined as independent ones (MOVER)."""

    value: float | None = logged("1", "null where one of the two is not known")
    low: float = logged("1", "lower end of its interval; 0 where unbounded")
    high: float | None = logged("1", "upper end; null where unbounded")


@dataclass(frozen=True)
class GameAtStage:
    """One game at one stage."""

    game: str = logged("", "as the world is called")
    stage: int = logged("env steps", "of training; 0: fresh")
    seeds: list[int] = logged("", "those measured, one a policy")
    cells: list[str] = logged("", "their names in `cells`, in the same order")
    env_steps: int = logged("env steps", "valid ones measured on, of all seeds together")
    noise: dict[str, Pooled] = logged("", "part (policy, rest, total) -> what the seeds say together")
    growth: dict[str, Ratio | None] | None = logged(
        "",
        "part -> B_simple here over that of the fresh policies, null where one is of fewer than 3 seeds or can have no "
        "headline; null for fresh ones and without them",
    )
    precision: float | None = logged(
        "1", "half the width of the policy part's interval within seeds over its B_simple; null where unbounded"
    )
    design_effect: float | None = logged(
        "1", "geometric mean over seeds of noise_trace by columns over that of shuffled transitions, policy part"
    )
    design_effect_low: float | None = logged("1", "lower end, from the spread between seeds; null for one seed")
    design_effect_high: float | None = logged("1", "upper end, likewise")
    long_run_ratio: float | None = logged(
        "1", "mean over seeds of long-run over within-rollout noise trace, policy part; how columns persist"
    )
    return_mean: float | None = logged(
        "points", "mean of `return_mean` of the cells that have one; null where no seed has one"
    )
    return_least: float | None = logged("points", "of the seed with the least")
    return_most: float | None = logged("points", "of the seed with the most")
    protocol: str = logged("", "world, network, T, epochs, minibatches, discount: the measurements' own words")


@dataclass(frozen=True)
class ComparedCell:
    """One game, stage and seed: a measurement of one frozen policy."""

    name: str = logged("", "its directory below compare.json")
    game: str = logged("", "as the world is called")
    stage: int = logged("env steps", "that was asked for; 0: fresh")
    seed: int = logged("", "of the initialisation, and of the run where there is one")
    policy_env_steps: int = logged("env steps", "E of the run when the policy was frozen; 0: fresh")
    return_mean: float | None = logged(
        "points", "mean raw return of the episodes that the frozen policy ended while it was measured"
    )
    episodes: int = logged("episodes", "how many those are; 0 where an older measurement did not count them")
    training_return_mean: float | None = logged(
        "points", "smoothed return of training at that checkpoint; null for fresh ones and where the log is gone"
    )
    noise: dict[str, NoiseScale] = logged("", "part -> noise scale of this policy, with its own interval")
    env_steps: int = logged("env steps", "valid ones measured on")
    design_effect: float | None = logged("1", "as in measure.json, with the two ends that follow")
    design_effect_low: float | None = logged("1", "lower end")
    design_effect_high: float | None = logged("1", "upper end")
    long_run_ratio: float | None = logged("1", "of the policy part")
    seconds: float = logged("s", "wall-clock of the measurement")
    protocol: str = logged("", "as of the game at that stage")
    key: MomentsKey = logged("", "what the noise scale depends on; cells of another one are not pooled")
    commit: str | None = logged("", "of the code that measured; null where that is not known")
    run: str | None = logged("", "directory of the training run; null for fresh ones")
    reused: str | None = logged("", "what of it another verb had left: `run`, `measurement`, or null")
    forced: str | None = logged("", "how its settings differ from the comparison's, if --force let it in; else null")


@dataclass(frozen=True)
class FrontBeside:
    """The knee that a sweep found for one goal of one of the games."""

    game: str = logged("", "as the world is called")
    directory: str = logged("", "of the sweep")
    goal_return: float = logged("points", "to which the steps were counted")
    variant: str = logged("", "of the sweep; empty where it has none")
    b_crit: float | None = logged("env steps", "an optimizer step, swept; null without a front or where the clip's")
    low: float | None = logged("env steps", "lower end")
    high: float | None = logged("env steps", "upper end; null where unbounded")
    resolved: bool = logged("", "the front has a knee between its batch sizes")
    no_b_crit: str | None = logged("", "why b_crit is null")
    confidence: float | None = logged("probability", "of the intervals of this record")
    predicted: float | None = logged("env steps", "B_crit from the noise scales of the sweep's own runs")
    predicted_low: float | None = logged("env steps", "lower end")
    predicted_high: float | None = logged("env steps", "upper end")
    ratio: Ratio | None = logged("", "predicted over swept; null where either is missing")
    measured_ratio: Ratio | None = logged(
        "",
        "policy part's B_simple of the last stage of this comparison over swept B_crit, at the front's confidence; "
        "null where not known",
    )
    protocol: str = logged("", "of the sweep")
    forced: str | None = logged("", "how it differs from the comparison's, if --force let it in; else null")


@dataclass(frozen=True)
class PaperValue:
    """What McCandlish et al. (2018) show for one game."""

    game: str = logged("", "as the world is called here")
    b_simple_early: float = logged("env steps", "lowest of the smoothed noise scale after the first scores")
    b_simple_end: float = logged("env steps", "at the end of training")
    b_crit_first: float = logged("env steps", "at the first goal")
    b_crit_last: float = logged("env steps", "at the last goal")
    first_goal: float = logged("points", "smoothed return of the first goal")
    last_goal: float = logged("points", "of the last goal")
    protocol: str = logged("", "how it differs from ours")
    source: str = logged("", "where the numbers are from, and how well they are known")


@dataclass(frozen=True)
class Bought:
    """What `--budget` made of a time."""

    seconds: float = logged("s", "that were asked for")
    most_env_steps: int = logged("env steps", "that were asked for, had there been the time")
    env_steps: int = logged("env steps", "of frozen policy a game and stage, that fitted in")
    training_rate: float | None = logged(
        "env steps/s", "of a cell's training beside others, slowest game; null: none was due"
    )
    measuring_rate: float = logged("env steps/s", "of a measurement beside others, slowest game")
    cells_at_once: int = logged("1", "that were reckoned with")


@dataclass(frozen=True)
class GamesCompared:
    """compare.json."""

    version: int = logged("", "of this layout: 2")
    command: list[str] = logged("", "that was run last")
    provenance: dict[str, Any] = logged("", "started, commit, versions, machine of the last sitting")
    games: list[str] = logged("", "in the order that was asked for")
    stages: list[int] = logged("env steps", "ascending; 0: fresh")
    training_seeds: list[int] = logged("", "of the stages after fresh")
    initialisations: list[int] = logged("", "seeds of the fresh policies")
    env_steps: int = logged("env steps", "of frozen policy that each game gets at each stage, split over its seeds")
    confidence: float = logged("probability", "that all intervals but the fronts' aim at")
    settings: dict[str, Any] = logged("", "the run's settings that all games share, nested as in config.toml")
    results: list[GameAtStage] = logged("", "a game and stage each, games in order, stages ascending")
    cells: list[ComparedCell] = logged("", "those that are measured, in the same order, then by seed")
    fronts: list[FrontBeside] = logged("", "of the sweeps that were given, for games that are compared")
    paper: list[PaperValue] = logged("", "for the games that the paper has")
    forced: list[str] = logged("", "a line a protocol that is mixed in by --force: the figure says so; else empty")
    missing: dict[str, str] = logged("", "cell -> why it has no measurement; empty once all is done")
    budget: Bought | None = logged("", "null without --budget")
