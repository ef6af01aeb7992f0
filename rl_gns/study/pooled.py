"""Noise scales of several independent policies, as on disk, together: what `compare` and `measure` say of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from rl_gns.measurement import Pooled
from rl_gns.noise.across_seeds import SeedScale, across_seeds
from rl_gns.noise.scale import hopeless_of


def pool(scales: Sequence[dict[str, Any]], confidence: float) -> Pooled:
    """One part's noise scales, as on disk, of seeds measured alike."""
    found = across_seeds([_seed_scale(scale) for scale in scales], confidence)
    headline, between = found.headline, found.between
    known = [s["b_simple"] for s in scales if s["b_simple"] is not None]
    resolved = [s for s in scales if s["resolved"]]
    between_log_std, within_log_std = log_stds(resolved)
    return Pooled(
        b_simple=finite(found.b_simple),
        low=headline.low,
        high=finite(headline.high),
        resolved=headline.resolved,
        reason=found.reason,
        unit="seeds" if between else "groups",
        between_low=between.low if between else None,
        between_high=finite(between.high) if between else None,
        within_low=found.within.low,
        within_high=finite(found.within.high),
        within_resolved=found.within.resolved,
        least=min(known, default=None),
        most=max(known) if len(known) == len(scales) else None,
        n_seeds=len(scales),
        n_resolved=len(resolved),
        between_log_std=between_log_std,
        within_log_std=within_log_std,
    )


def _seed_scale(scale: dict[str, Any]) -> SeedScale:
    """A noise scale as on disk, for `across_seeds`."""
    low, high = scale["low"] or 0.0, math.inf if scale["high"] is None else scale["high"]
    hopeless = hopeless_of(scale["reason"])
    return SeedScale(
        scale["signal_sq"], scale["noise_trace"], low, high, scale["n_groups"], scale["confidence"], hopeless
    )


def finite(value: float) -> float | None:
    """None where it is infinite or not a number."""
    return value if math.isfinite(value) else None


def log_stds(resolved: Sequence[dict[str, Any]]) -> tuple[float | None, float | None]:
    """Standard deviations of ln B_simple: between the policies, and what their own intervals account for; None for
    fewer than two of them."""
    if len(resolved) < 2:
        return None, None
    b_simple, low, high = np.array([(s["b_simple"], s["low"], s["high"]) for s in resolved]).T
    quantile = stats.norm.ppf(0.5 + resolved[0]["confidence"] / 2)
    within = np.log(high / low) / (2 * quantile)
    return float(np.log(b_simple).std(ddof=1)), float(np.sqrt((within**2).mean()))
