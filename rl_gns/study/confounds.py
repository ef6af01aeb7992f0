"""What else than gradient noise may set the floor of a front: what widening the clip does to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl_gns.config import RunConfig, identity
from rl_gns.config_file import from_table
from rl_gns.noise.front import Front
from rl_gns.noise.trust_region import TrustRegion, judge
from rl_gns.rundir import read_json
from rl_gns.study.fronts import GoalFront


def judged(fronts: Sequence[GoalFront], configs: Mapping[str, RunConfig]) -> list[GoalFront]:
    """The fronts, those of variants that differ in nothing but the clip with what widening it does to the floor."""
    said = verdicts({(f.variant, f.goal_return): f.front for f in fronts}, configs)
    return [
        dataclasses.replace(
            f, trust_region=found, limited_by=found.limited_by, held=None if found.limited_by else f.held
        )
        if (found := said.get((f.variant, f.goal_return)))
        else f
        for f in fronts
    ]


def verdicts(
    fronts: Mapping[tuple[str, float], Front | None], configs: Mapping[str, RunConfig]
) -> dict[tuple[str, float], TrustRegion]:
    """(variant, goal) -> verdict, for variants that have others which differ in nothing but the clip."""
    found = {}
    for clips in clip_families(configs):
        for goal in dict.fromkeys(goal for _, goal in fronts):
            here = {name: clip for name, clip in clips.items() if (name, goal) in fronts}
            each = judge(here, {name: fronts[name, goal] for name in here})
            found |= {(name, goal): verdict for name, verdict in each.items()}
    return found


def clip_families(configs: Mapping[str, RunConfig]) -> list[dict[str, float]]:
    """Variants that differ in nothing but the clip range, two or more: name -> clip range of each. Of those with the
    same clip (and another grid) the first counts."""
    families: list[tuple[dict, dict[str, float]]] = []
    for name, config in configs.items():
        rest = identity(dataclasses.replace(config, learner=dataclasses.replace(config.learner, clip_range=0.0)))
        known = next((members for other, members in families if other == rest), None)
        if known is None:
            families.append((rest, known := {}))
        if config.learner.clip_range not in known.values():
            known[name] = config.learner.clip_range
    return [members for _, members in families if len(members) > 1]


def mark(fits: Sequence[dict[str, Any]], directory: Path) -> None:
    """Add `limited_by` and `trust_region` to the objects of `rl-gns fit DIR`, as its sweep.json describes the variants;
    both None where there are none."""
    saved = read_json(directory / "sweep.json") if (directory / "sweep.json").is_file() else {}
    configs = {name: from_table(v["config"], RunConfig()) for name, v in saved.get("variants", {}).items()}
    names = [field.name for field in dataclasses.fields(Front)]
    fronts = {
        (fit["variant"], fit["goal_return"]): None if fit["rms_log"] is None else Front(**{n: fit[n] for n in names})
        for fit in fits
    }
    said = verdicts({key: front for key, front in fronts.items() if key[0] in configs}, configs)
    for fit in fits:
        verdict = said.get((fit["variant"], fit["goal_return"]))
        fit["limited_by"] = verdict and verdict.limited_by
        if fit["limited_by"]:
            fit["held"] = None
        fit["trust_region"] = verdict and dataclasses.asdict(verdict)
