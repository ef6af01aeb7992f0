"""The variants of a sweep: the same grid under other settings, each a front of its own.

In the file: `[variants.NAME]` tables of settings that differ from the file's own, with a `sweep` table in them where
the grid does (`sweep.learning_rates`: the best rate moves with the epochs). Where there are variants, they alone are
run. A cell's name says nothing of its variant: it is an experiment, whoever asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rl_gns.config import ConfigError, RunConfig
from rl_gns.config_file import from_table, load_toml
from rl_gns.study.grid import Grid, cell_configs, load_grid

Variants = Mapping[str, tuple[RunConfig, Grid]]
"""Name -> settings and grid; a sweep without variants is one, named ``."""
SHARED = ("env", "goals", "goals_judged_on")
"""What variants must have in common: fronts are compared at one goal."""


def load_variants(path: Path) -> Variants:
    """What a sweep's file asks for; ConfigError names what is wrong."""
    config, grid = load_grid(path)
    tables = load_toml(path).get("variants")
    if tables is None:
        return {"": (config, grid)}
    if not isinstance(tables, dict) or not tables or not all(isinstance(t, dict) for t in tables.values()):
        raise ConfigError(f"variants: {path.name} needs tables [variants.NAME] of the settings that differ")
    return {_name(name): _variant(name, dict(table), config, grid) for name, table in tables.items()}


def _name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(f"variants: {name!r}: a name has letters, digits, '_', '-' and '.' only")
    return name


def _variant(name: str, table: dict, config: RunConfig, grid: Grid) -> tuple[RunConfig, Grid]:
    prefix = f"variants.{name}."
    more = table.pop("sweep", {})
    if not isinstance(more, dict):
        raise ConfigError(f"{prefix}sweep: {more!r} is not a table of settings")
    changed = from_table(table, config, prefix)
    for key in SHARED:
        if getattr(changed, key) != getattr(config, key):
            raise ConfigError(f"{prefix}{key}: all variants share it; set it once, outside the variants")
    return changed, from_table(more, grid, f"{prefix}sweep.")


def variant_cells(variants: Variants) -> dict[str, dict[str, RunConfig]]:
    """Variant -> cell name -> configuration; ConfigError where two variants share a cell, for they are one."""
    cells = {name: cell_configs(config, grid) for name, (config, grid) in variants.items()}
    owner: dict[str, str] = {}
    for name, configs in cells.items():
        for cell in configs:
            if cell in owner:
                raise ConfigError(f"variants.{name}: the same experiment as variants.{owner[cell]} ({cell})")
            owner[cell] = name
    return cells


def in_order(cells: Mapping[str, Mapping[str, RunConfig]]) -> dict[str, RunConfig]:
    """All cells as they are run: all fronts of one seed before the next."""
    seeds = list(dict.fromkeys(config.seed for configs in cells.values() for config in configs.values()))
    return {
        name: config
        for seed in seeds
        for configs in cells.values()
        for name, config in configs.items()
        if config.seed == seed
    }
