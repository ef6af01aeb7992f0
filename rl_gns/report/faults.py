"""What failed in a run, in words."""

from __future__ import annotations

from typing import Any

FAULTS_SHOWN = 12
"""The last so many, where there were more (a choice)."""


def fault_words(result: dict[str, Any]) -> list[str]:
    """Of a result.json: what was asked to fail, the counts with their cost, and a line each of the last faults; nothing
    where nothing failed or was asked to."""
    return _chaos_words(result.get("chaos")) + (_counts(result) if result.get("faults") else [])


def _chaos_words(chaos: dict[str, float] | None) -> list[str]:
    asked = ",".join(f"{name}={probability:g}" for name, probability in (chaos or {}).items())
    return [f"  Faults were asked for: --chaos {asked}, probabilities a block."] if asked else []


def _counts(result: dict[str, Any]) -> list[str]:
    faults, cost = result["faults"], result.get("faults_env_steps")  # one written before costs were counted has none
    vain = "" if cost is None else f" About {cost:,} env steps were played in vain, beside those that count."
    lines = [
        f"  Rollout actors that failed and were replaced: {result['replaced_actors']}; blocks refused: "
        f"{result['refused_blocks']}; late blocks dropped: {result['late_blocks']}. No failed block entered an update."
        f"{vain}"
    ]
    if len(faults) > FAULTS_SHOWN:
        lines.append(f"  The last {FAULTS_SHOWN} of {len(faults)} faults (metrics.jsonl and result.json have all):")
    for fault in faults[-FAULTS_SHOWN:]:
        lines.append(f"    update {fault['update']}: {fault['reason']}{_reseeded(fault)}{_cost(fault)}.")
    return lines


def _cost(fault: dict[str, Any]) -> str:
    return f"; about {fault['cost_env_steps']:,} env steps" if fault.get("cost_env_steps") else ""


def _reseeded(fault: dict[str, Any]) -> str:
    if fault["what"] == "not placed" or not fault["collectors"]:
        return ""
    pairs = zip(fault["collectors"], fault["generations"], strict=True)
    return "; seeded anew: " + ", ".join(f"collector {c} (generation {g})" for c, g in pairs)
