"""What `rl-gns compare` is asked for: games x stages x seeds, and the settings of each cell.

A cell is one frozen policy: of a game, at a stage (env steps of training; 0: fresh), of a seed. The policies of one
game and seed after fresh are checkpoints of one training run.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

import envs
from rl_gns.comparison import FRESH, stage_name
from rl_gns.config import ConfigError, RunConfig, identity
from rl_gns.study.build import checked

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Asked:
    """The same for every game: settings, stages, seeds and env steps."""

    base: RunConfig
    """Settings of all cells; its world, seed, budget and goals are not read."""
    games: tuple[str, ...]
    stages: tuple[int, ...]
    """Ascending."""
    training_seeds: tuple[int, ...]
    initialisations: tuple[int, ...]
    env_steps: int
    """Of frozen policy, a game and stage, split evenly over its seeds: none is stopped early, for one that is stopped
    where it looks resolved has too large a signal."""

    def seeds(self, stage: int) -> tuple[int, ...]:
        return self.initialisations if stage == FRESH else self.training_seeds

    def share(self, stage: int) -> int:
        """Env steps that each seed is measured on, at least."""
        return math.ceil(self.env_steps / len(self.seeds(stage)))


@dataclass(frozen=True)
class CellPlan:
    """One cell."""

    game: str
    stage: int
    seed: int
    env_steps: int
    """To be measured on."""
    config: RunConfig
    """Of the training run whose checkpoint it is, or would be."""

    @property
    def name(self) -> str:
        """Its directory."""
        return f"{self.game}-{stage_name(self.stage)}-s{self.seed}"

    @property
    def run_name(self) -> str:
        """The directory of the training run."""
        return f"{self.game}-train-s{self.seed}"


def ask(base: RunConfig, games: str, stages: str, training_seeds: int, initialisations: int, env_steps: int) -> Asked:
    """From a command line; ConfigError in one line for what will not do. Seeds count up from `base.seed`."""
    for flag, value in (("seeds", training_seeds), ("initialisations", initialisations), ("env-steps", env_steps)):
        if value < 1:
            raise ConfigError(f"--{flag}: {value} is too small; the least is 1")
    asked = Asked(
        base=base,
        games=_games(games),
        stages=_stages(stages),
        training_seeds=tuple(range(base.seed, base.seed + training_seeds)),
        initialisations=tuple(range(base.seed, base.seed + initialisations)),
        env_steps=env_steps,
    )
    for game in asked.games:
        checked(cell_config(asked, game, base.seed))
    return asked


def _games(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ConfigError("--games: none is given; Pong,Breakout are two")
    for name in names:
        try:
            envs.spec(name)
        except envs.UnknownWorld as error:
            raise ConfigError(f"--games: {error}") from None
        if names.count(name) > 1:
            raise ConfigError(f"--games: {name} is given twice")
    return names


def _stages(text: str) -> tuple[int, ...]:
    found = []
    for word in (word.strip() for word in text.split(",")):
        if word != "fresh" and not re.fullmatch(r"[1-9][\d_]{0,15}", word):
            raise ConfigError(f"--stages: {word!r} is neither 'fresh' nor a number of env steps; fresh,200000 are two")
        found.append(FRESH if word == "fresh" else int(word))
    if len(set(found)) < len(found):
        raise ConfigError(f"--stages: {text}: each once")
    return tuple(sorted(found))


def budget_seconds(text: str) -> float | None:
    """`10m`, `2h`, `90s` or `90`; None for nothing."""
    if not text:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or not 0 < float(match[1]) < 1e6:
        raise ConfigError(f"--budget: {text[:40]!r} is no time; 10m, 2h and 90s are")
    return float(match[1]) * UNITS[match[2]]


def cell_config(asked: Asked, game: str, seed: int) -> RunConfig:
    """The run of one game and seed, trained to the last stage, with a checkpoint kept at each. One torch thread unless
    the settings ask for more: cells share the cores."""
    stages = [stage for stage in asked.stages if stage != FRESH]
    base = asked.base
    return dataclasses.replace(
        base,
        env=game,
        seed=seed,
        total_env_steps=max(stages, default=1),
        goals=(),
        stop_at_goal=False,
        learner=dataclasses.replace(base.learner, threads=base.learner.threads or 1),
        checkpoint=dataclasses.replace(base.checkpoint, keep=tuple(stages)),
    )


def cells(asked: Asked) -> list[CellPlan]:
    """Fresh policies of all games first, then stage by stage, seed by seed: cut short, it is still a comparison."""
    found = []
    for stage in asked.stages:
        for seed in asked.seeds(stage):
            for game in asked.games:
                config = cell_config(asked, game, seed)
                found.append(CellPlan(game, stage, seed, asked.share(stage), config))
    return found


UNFELT = {"learner": ("threads", "device"), "noise": ("every", "window_env_steps", "across_env_steps")}
"""Settings of a run at a fixed batch size that no frozen policy differs by, but for the last bits."""


def experiment(config: RunConfig) -> dict[str, Any]:
    """What must be equal for a policy to count as the cell's own: the identity, without what moves bits alone, and
    without evaluations, which play on columns of their own, and probes."""
    kept = {name: value for name, value in identity(config).items() if name != "evaluated"}
    if config.control.policy == "fixed":
        kept |= {
            table: {name: value for name, value in kept[table].items() if name not in names}
            for table, names in UNFELT.items()
        }
    return kept


def shared(config: RunConfig) -> dict[str, Any]:
    """What all games of one comparison have in common."""
    return {name: value for name, value in experiment(config).items() if name not in ("env", "seed")}


def protocol_words(key: dict[str, Any]) -> str:
    """World, network, reuse and discount, in one line, of a measurement's key as on disk."""
    return (
        f"{key['env']}; {key['network']}, {key['precision']}; T = {key['segment_steps']}; {key['epochs']} epochs x "
        f"{key['minibatches']} minibatches; gamma {key['gamma']:g}, lambda {key['gae_lambda']:g}; "
        f"advantages {key['normaliser']}"
    )
