"""Where settings come from and runs lie, for all verbs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from rl_gns.config import ConfigError, RunConfig, config_id
from rl_gns.config_file import find, load
from rl_gns.flags import value_of


def preset(arguments: list[str]) -> RunConfig:
    """The settings of --config, or the defaults: what the other flags come on top of."""
    name = value_of(arguments, "config")
    return load(find(name)) if name else RunConfig()


def runs_root() -> Path:
    """Where runs lie unless told otherwise."""
    return Path(os.environ.get("RL_GNS_RUNS", "runs"))


def default_sweep_dir(file: str) -> Path:
    """The file's name without its end; ConfigError where that is none, as of `...toml`."""
    if not (stem := Path(file).stem).strip("."):
        raise ConfigError(f"--config: {file}: no name for a directory; give --run-dir")
    return runs_root() / stem


def default_compare_dir(preset: str, config: RunConfig) -> Path:
    """A name that the same shared settings always give, whatever the games and stages."""
    of_all = dataclasses.replace(config, env="CartPole", seed=0)
    return runs_root() / f"compare-{Path(preset).stem or 'games'}-{config_id(of_all)}"


def default_run_dir(preset: str, config: RunConfig) -> Path:
    """A name that the same settings always give, so that the same command finds its run again."""
    return runs_root() / f"{Path(preset).stem or config.env}-B{config.batch.size}-s{config.seed}-{config_id(config)}"
