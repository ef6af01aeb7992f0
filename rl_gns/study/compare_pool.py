"""From measured cells to what a comparison says: each game at each stage, from all its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rl_gns.comparison import FRESH, ComparedCell, GameAtStage, Ratio
from rl_gns.config import first_difference
from rl_gns.measurement import Pooled
from rl_gns.noise.interval import student_quantile
from rl_gns.noise.pooled_prediction import hold_against
from rl_gns.noise.scale import hopeless_of
from rl_gns.on_disk import understood
from rl_gns.records import PARTS
from rl_gns.rundir import read_json
from rl_gns.study.compare_plan import CellPlan, protocol_words
from rl_gns.study.compare_reuse import MEASURED, ORIGIN
from rl_gns.study.pooled import finite, pool

SAME = (
    "policy_env_steps",
    "noise",
    "env_steps",
    "design_effect",
    "design_effect_low",
    "design_effect_high",
    "long_run_ratio",
    "seconds",
    "key",
)
OF_THE_WORLD = ("env", "network")
"""Parts of a key that differ between games for good reasons (`auto` is another network for vectors)."""


def read_cell(path: Path, plan: CellPlan) -> ComparedCell:
    """A measured cell, from its directory below `path`."""
    with understood(path / plan.name):
        found, origin = read_json(path / plan.name / MEASURED), read_json(path / plan.name / ORIGIN)
        return ComparedCell(
            name=plan.name,
            game=plan.game,
            stage=plan.stage,
            seed=plan.seed,
            **{name: found[name] for name in SAME},
            return_mean=found.get("return_mean"),
            episodes=found.get("episodes", 0),
            training_return_mean=origin["training_return_mean"],
            protocol=protocol_words(found["key"]),
            commit=_commit(origin["provenance"] or {}),
            run=origin["run"],
            reused=origin["reused"],
            forced=origin["forced"],
        )


def _commit(provenance: dict[str, Any]) -> str | None:
    """With a `+` where the checkout held changes that were not committed."""
    commit = provenance.get("commit")
    return f"{commit}+" if commit and provenance.get("uncommitted_changes") else commit


def of_one_key(cells: Sequence[ComparedCell], force: bool) -> tuple[list[ComparedCell], dict[str, str]]:
    """(the cells that may stand together, others with the reason): those whose key is not that of most are left out,
    or by `force` taken and marked. Settings that are alike may come to another precision on another machine."""
    keys = [{name: value for name, value in cell.key.items() if name not in OF_THE_WORLD} for cell in cells]
    most = max(keys, key=keys.count, default={})
    kept, apart = [], {}
    for cell, key in zip(cells, keys, strict=True):
        differs = first_difference(key, most)
        if differs is None:
            kept.append(cell)
        elif force:
            words = f"measured under another key than most ({differs})"
            kept.append(replace(cell, forced=f"{cell.forced}; {words}" if cell.forced else words))
        else:
            apart[cell.name] = (
                f"measured under another key than most ({differs}); remove its directory to measure it again, or take "
                "it and have it marked with --force"
            )
    return kept, apart


def games_at_stages(cells: Sequence[ComparedCell], confidence: float) -> list[GameAtStage]:
    """One a game and stage that has a measured seed, in the order of the cells."""
    groups: dict[tuple[str, int], list[ComparedCell]] = {}
    for cell in cells:
        groups.setdefault((cell.game, cell.stage), []).append(cell)
    pooled = {
        key: {part: pool([cell.noise[part] for cell in each], confidence) for part in PARTS}
        for key, each in groups.items()
    }
    return [_at_stage(each, pooled[key], pooled.get((key[0], FRESH)), confidence) for key, each in groups.items()]


def _at_stage(
    cells: list[ComparedCell], noise: dict[str, Pooled], fresh: dict[str, Pooled] | None, confidence: float
) -> GameAtStage:
    first = cells[0]
    returns = [cell.return_mean for cell in cells if cell.return_mean is not None]
    long_run = [cell.long_run_ratio for cell in cells if cell.long_run_ratio is not None]
    grown = fresh if first.stage != FRESH else None
    return GameAtStage(
        game=first.game,
        stage=first.stage,
        seeds=[cell.seed for cell in cells],
        cells=[cell.name for cell in cells],
        env_steps=sum(cell.env_steps for cell in cells),
        noise=noise,
        growth={part: over(noise[part], grown[part]) for part in PARTS} if grown else None,
        precision=precision(noise["policy"]),
        **_design_effect([cell.design_effect for cell in cells], confidence),
        long_run_ratio=float(np.mean(long_run)) if long_run else None,
        return_mean=float(np.mean(returns)) if returns else None,
        return_least=min(returns, default=None),
        return_most=max(returns, default=None),
        protocol="; or ".join(dict.fromkeys(cell.protocol for cell in cells)),
    )


def over(above: Pooled, below: Pooled) -> Ratio | None:
    """B_simple over B_simple, from the headline intervals; None where one is of fewer than 3 seeds, whose interval is
    of these very policies, or can have no headline. Seeds that both share make it no narrower than it says."""
    if any(each.unit != "seeds" or hopeless_of(each.reason) for each in (above, below)):
        return None
    return ratio(*({"b_crit": each.b_simple, "low": each.low, "high": each.high} for each in (above, below)))


def ratio(above: dict[str, Any], below: dict[str, Any]) -> Ratio:
    """`noise.hold_against` of `b_crit`, `low`, `high` of both."""
    found = hold_against(above, below)
    return Ratio(found.ratio, found.low, found.high)


def precision(pooled: Pooled) -> float | None:
    """Half the width of the interval within seeds over B_simple."""
    if pooled.b_simple is None or pooled.within_high is None:
        return None
    return (pooled.within_high - pooled.within_low) / 2 / pooled.b_simple


def _design_effect(values: Sequence[float | None], confidence: float) -> dict[str, float | None]:
    """Geometric mean, with t on the logarithms of n - 1 degrees of freedom."""
    logs = np.log([value for value in values if value is not None])
    mean = float(logs.mean()) if len(logs) else math.nan
    half = math.nan
    if len(logs) > 1:
        half = student_quantile(confidence, len(logs) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    names = ("design_effect", "design_effect_low", "design_effect_high")
    return dict(zip(names, (finite(math.exp(mean + by)) for by in (0.0, -half, half)), strict=True))
