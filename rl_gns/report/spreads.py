"""A game's noise scale at one stage, believed as far as both of its intervals go: between seeds and within them."""

from __future__ import annotations

from typing import Any


def believed(pooled: dict[str, Any]) -> dict[str, Any]:
    """`b_simple`, `low`, `high` (env steps; `high` null where unbounded), `resolved`, `reason` of one part of
    compare.json: the lower low and the higher high of the interval between seeds and that of these very seeds, resolved
    only where both are. Where the seeds agree by chance, the one between them is too narrow."""
    highs = pooled["high"], pooled["within_high"]
    return {
        "b_simple": pooled["b_simple"],
        "low": min(pooled["low"], pooled["within_low"]),
        "high": None if None in highs else max(highs),
        "resolved": pooled["resolved"] and pooled["within_resolved"],
        "reason": pooled.get("reason"),
    }


def between(pooled: dict[str, Any]) -> tuple[float, float | None] | None:
    """The interval between seeds; None where there are too few of them for one."""
    return (pooled["low"], pooled["high"]) if pooled["unit"] == "seeds" else None
