"""Whether the floor of S is the trust region's: does S_min fall when nothing but the clip is widened?

A ratio clip bounds how far a rollout's optimizer steps can move the policy, and so how few of them reach a goal. Where
S_min falls as the clip widens, the floor is the clip's and not the gradient noise's, and the knee above it is no
critical batch size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rl_gns.noise.front import Front

TRUST_REGION = "trust region"
UNMOVED = 1.25
"""A floor that surely falls by less than this factor under a wider clip is not limited by it (a convention)."""

Verdict = Literal["limited", "not limited", "not excluded", "not tested"]
VERDICT_WORDS = {"limited": "yes", "not limited": "no", "not excluded": "not excluded", "not tested": "not tested"}
"""Answers to `limited by the trust region?`."""


@dataclass(frozen=True)
class FloorRatio:
    """S_min of the wider clip's front over that of the narrower's, with its interval."""

    ratio: float
    low: float
    """0 where unbounded."""
    high: float | None
    """None where unbounded."""
    confidence: float


@dataclass(frozen=True)
class TrustRegion:
    """What clips say about one front's floor."""

    verdict: Verdict
    """limited: S_min falls with a wider clip, the ratio's interval excludes 1. not limited: it falls by less than
    UNMOVED, or there is no clip. not excluded: the interval holds both. not tested: nothing to compare with."""
    narrower: str | None
    """The two fronts whose ratio decides; both None where there is none."""
    wider: str | None
    floor_ratio: FloorRatio | None
    reason: str
    """In words."""

    @property
    def limited_by(self) -> str | None:
        """`trust region`, where it is."""
        return TRUST_REGION if self.verdict == "limited" else None


def floor_ratio(narrower: Front, wider: Front) -> FloorRatio | None:
    """S_min(wider) / S_min(narrower); None where neither side has a bound.

    The interval joins those of the two fronts without supposing symmetry (the method of variance estimates recovery,
    Zou and Donner 2008): with d = ln ratio and (l, u) the intervals of ln S_min, d - sqrt((s_w - l_w)^2 +
    (u_n - s_n)^2) to d + sqrt((u_w - s_w)^2 + (s_n - l_n)^2). A front without a floor, S_min = 0, gives only its
    end points. Equal fronts are the same runs, in which the clip did nothing: 1, exactly.
    """
    confidence = min(narrower.confidence, wider.confidence)
    if narrower == wider:
        return FloorRatio(1.0, 1.0, 1.0, confidence)
    low_n, s_n, high_n = _log_floor(narrower)
    low_w, s_w, high_w = _log_floor(wider)
    if math.isfinite(s_n) and math.isfinite(s_w):
        low = s_w - s_n - math.hypot(s_w - low_w, high_n - s_n)
        high = s_w - s_n + math.hypot(high_w - s_w, s_n - low_n)
    else:
        low, high = low_w - high_n, high_w - low_n
    if low == -math.inf and high == math.inf:
        return None
    ratio = math.exp(s_w - s_n) if math.isfinite(s_n) else math.inf
    return FloorRatio(ratio, math.exp(low), None if high == math.inf else math.exp(high), confidence)


def _log_floor(front: Front) -> tuple[float, float, float]:
    high = math.inf if front.s_min_high is None else math.log(front.s_min_high)
    return _log(front.s_min_low), _log(front.s_min), high


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def judge(clips: Mapping[str, float], fronts: Mapping[str, Front | None]) -> dict[str, TrustRegion]:
    """Name -> verdict, for fronts that differ in nothing but the clip range (0: no clip, the widest).

    A front is held against that of the next wider clip. The widest has none and shares the verdict of the one below
    it, for a floor that still moved when the clip was widened to it may move again; without a clip it is not limited.
    """
    order = sorted(clips, key=lambda name: clips[name] or math.inf)
    found: dict[str, TrustRegion] = {}
    for i, name in enumerate(order):
        wider = next((other for other in order[i + 1 :] if fronts[other] is not None), None)
        if fronts[name] is None:
            found[name] = _untested("there is no front")
        elif not clips[name]:
            found[name] = TrustRegion("not limited", None, None, None, "there is no clip")
        elif wider is not None:
            found[name] = _compared(name, wider, fronts[name], fronts[wider])
        else:
            found[name] = _widest([found[other] for other in order[:i] if found[other].wider == name])
    return found


def _untested(reason: str) -> TrustRegion:
    return TrustRegion("not tested", None, None, None, reason)


def _widest(below: list[TrustRegion]) -> TrustRegion:
    if not below:
        return _untested("no other clip was tried")
    return TrustRegion(
        below[-1].verdict,
        below[-1].narrower,
        below[-1].wider,
        below[-1].floor_ratio,
        f"{below[-1].reason}; no wider clip was tried",
    )


def _compared(name: str, wider: str, front: Front, other: Front) -> TrustRegion:
    ratio = floor_ratio(front, other)
    if ratio is None:
        return TrustRegion("not tested", name, wider, None, f"neither its floor nor that of {wider} is bounded")
    words = f"S_min({wider}) / S_min({name}) = {ratio_words(ratio)}"
    if ratio.low == ratio.high == 1.0:
        return TrustRegion("not limited", name, wider, ratio, f"{wider} is the same runs: the clip does nothing")
    if ratio.high is not None and ratio.high < 1:
        return TrustRegion("limited", name, wider, ratio, f"{words}: the floor falls with a wider clip")
    if ratio.low >= 1 / UNMOVED:
        return TrustRegion("not limited", name, wider, ratio, f"{words}: the floor does not fall by {UNMOVED:g}")
    return TrustRegion("not excluded", name, wider, ratio, f"{words}: it may fall with a wider clip or not")


def ratio_words(ratio: FloorRatio) -> str:
    """`0.64 [0.51 to 0.80]`."""
    high = "no upper limit" if ratio.high is None else f"{ratio.high:.2f}"
    return f"{ratio.ratio:.2f} [{ratio.low:.2f} to {high}]"
