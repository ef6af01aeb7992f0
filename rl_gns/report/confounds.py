"""A sweep's variants side by side: the floor of each front, what set it, and how hard its runs met their limits."""

from __future__ import annotations

from typing import Any

from rl_gns.digits import round3
from rl_gns.noise.trust_region import VERDICT_WORDS

COLUMNS = (
    "goal",
    "variant",
    "epochs",
    "clip",
    "reached",
    "S_min (90 %)",
    "B_crit (90 %)",
    "B",
    "KL (nats)",
    "clipped rows",
    "clipped gradients",
    "limited by the trust region",
)
LIMITED = "trust-region limited"


def confound_table(saved: dict[str, Any]) -> list[str]:
    """Lines of a Markdown table, a front a line, from the contents of sweep.json; KL and clip fractions are of the
    chosen cells at the largest batch size. Empty where the sweep has no variants."""
    configs = {name: each["config"] for name, each in saved.get("variants", {}).items()}
    if not configs:
        return []
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return head + ["| " + " | ".join(_row(f, configs[f["variant"]])) + " |" for f in saved["fronts"]]


def _row(front: dict[str, Any], config: dict[str, Any]) -> list[str]:
    clip, fit = config["learner"]["clip_range"], front["front"]
    return [
        f"{front['goal_return']:g}",
        front["variant"],
        str(config["batch"]["epochs"]),
        f"{clip:g}" if clip else "none",
        f"{front['reached']} of {front['cells']}",
        _interval(fit, "s_min", "s_min_low", "s_min_high") if fit else "no front",
        LIMITED if front["limited_by"] else _interval(fit, "b_crit", "low", "high") + _doubt(fit) if fit else "",
        *_limits(front["limits_met"]),
        VERDICT_WORDS[front["trust_region"]["verdict"]] if front["trust_region"] else "not tested",
    ]


def _limits(met: list[dict[str, Any]]) -> list[str]:
    if not met:
        return [""] * 4
    largest = met[-1]
    fractions = (largest["clip_fraction"], largest["grad_clip_fraction"])
    kl = largest["approx_kl"]
    return [f"{largest['batch_size']:,}", _blank(kl, ".2g"), *(_blank(each, ".1%") for each in fractions)]


def _blank(value: float | None, form: str) -> str:
    return "unknown" if value is None else f"{value:{form}}"


def _interval(fit: dict[str, Any], name: str, low: str, high: str) -> str:
    middle = "beyond all batch sizes" if fit[name] is None else round3(fit[name])
    return f"{middle} [{round3(fit[low])} to {'no limit' if fit[high] is None else round3(fit[high])}]"


def _doubt(fit: dict[str, Any]) -> str:
    return "" if fit["resolved"] else ", not resolved"


def floor_words(front: dict[str, Any]) -> list[str]:
    """What wider clips say of one front, for `rl-gns report`; nothing where there was none to hold it against."""
    if not (said := front.get("trust_region")):
        return []
    return [f"  Limited by the trust region: {VERDICT_WORDS[said['verdict']]} ({said['reason']})."]
