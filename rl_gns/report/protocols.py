"""Whether runs and sweeps may stand in one comparison: what in their protocols differs, named."""

from __future__ import annotations

from collections.abc import Iterable

from rl_gns.config import ConfigError, RunConfig, first_difference, identity
from rl_gns.config_file import from_table
from rl_gns.on_disk import understood
from rl_gns.report.found import Found, FoundComparison, FoundRun, FoundSweep

VARIED = {
    "": ("env", "seed", "noise", "control", "rollout"),
    "batch": ("size",),
    "learner": ("learning_rate", "micro_batch", "precision", "device", "threads", "max_skipped_steps"),
}
"""Settings that a comparison is about, or that do not change what is learnt: no part of the protocol."""


def protocol(config: RunConfig) -> dict:
    """What must be equal: world options, T, waves, epochs, minibatches, network, loss, discount, normaliser, and how
    goals are judged."""
    kept = identity(config) | {"goals_judged_on": config.goals_judged_on}
    for section, names in VARIED.items():
        for name in names:
            (kept[section] if section else kept).pop(name, None)
    return kept | {"rollout": {"waves": config.rollout.waves}}


def mixed(found: Iterable[Found]) -> list[str]:
    """A line a difference: of sweeps from the first sweep, of runs from the first run in the same world. A sweep's
    variants are named on its figures, so it is one design: its own settings count. A comparison of games with fronts
    beside it counts as a sweep of its settings."""
    firsts: dict[str, tuple[Found, dict]] = {}
    differences = []
    for each in found:
        with understood(each.path):
            kind, its = _kind(each)
            first, there = firsts.setdefault(kind, (each, its))
            if isinstance(first, FoundComparison) or isinstance(each, FoundComparison):
                there, its = _without_goals(there), _without_goals(its)
            if difference := _difference(there, its):
                differences.append(f"{difference} ({first.name} there, {each.name} here)")
    return differences


def _kind(each: Found) -> tuple[str, dict]:
    """(what it is compared with, its protocol); a comparison without fronts beside it with itself alone."""
    if isinstance(each, FoundRun):
        return f"run {each.config.env}", protocol(each.config)
    if isinstance(each, FoundSweep):
        return "sweep", protocol(each.settings)
    if each.saved["fronts"]:
        return "sweep", _without_goals(protocol(from_table(each.saved["settings"], RunConfig())))
    return f"comparison {each.path}", {}


def _without_goals(kept: dict) -> dict:
    """A comparison of games has none; how its fronts' are judged it does not say."""
    return {name: value for name, value in kept.items() if name not in ("goals_judged_on", "evaluated")}


def _difference(there: dict, here: dict) -> str | None:
    """What is learnt before what world it is learnt in."""
    learnt = ({k: v for k, v in each.items() if k != "atari"} for each in (there, here))
    return first_difference(*learnt) or first_difference(there, here)


def check(found: Iterable[Found], force: bool) -> list[str]:
    """The differences, for the figures to say; ConfigError naming the first, unless forced."""
    differences = mixed(found)
    if differences and not force:
        raise ConfigError(f"report: mixed protocols: {differences[0]}; report them apart, or --force marks the figures")
    return differences
