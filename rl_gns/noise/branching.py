"""Which batch size is still useful near one moment of training, judged from branches of one checkpoint.

Theory (McCandlish et al. 2018, eq. 2.7). An optimizer step at its best rate is worth 1 / (1 + B_crit / B) of one with
all the data. Over E env steps there are epochs E / B of them, so a branch makes progress

    P(B) = epochs E / (B + B_crit),  falling as 1 / (1 + B / B_crit),

and its deficit, as a fraction of the gain of the reference B_0, is

    d(B) = 1 - P(B) / P(B_0) = (B - B_0) / (B + B_crit).

A tolerance t so marks the batch size B_t = (B_0 + t B_crit) / (1 - t), and B_crit = ((1 - t) B_t - B_0) / t. B_crit
itself has d = (1 - B_0 / B_crit) / 2: a tolerance of 1/2 marks B_crit where B_0 is far below it, and 1/4 marks a third
of it. To make a deficit of t good takes t / (1 - t) more env steps: at 1/4 a third more. All this supposes the best
rate at each B and a score that goes with progress; a fixed rule may give a batch size less than its due, so what passes
is useful and what fails may be the rule's fault.

Verdict. With reference r_s, fork f_s and branch y_s of seed s, gain G = r - f and deficit D = r - y, "D is below t G"
is a t test on the mean over seeds of (r_s - y_s) - t (r_s - f_s); its limits are those of Fieller's set for D / G.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rl_gns.noise.interval import fieller, student_quantile
from rl_gns.noise.run_prediction import Interval

MIN_SEEDS = 5
"""Fewer give numbers but no verdict (a choice)."""
FALSE_ALARMS = 0.05
"""A batch size whose deficit is the tolerance or more passes with at most this probability, under whichever rule;
likewise one below it fails."""
Verdict = Literal["pass", "fail", "unresolved"]


@dataclass(frozen=True)
class Judgement:
    """One rule and batch size against the reference; in the score's unit unless said otherwise."""

    n_seeds: int
    deficit: Interval
    """Reference score less this one's."""
    deficit_fraction: Interval
    """Of the reference's gain. Values below 0: it gained more than the reference. A branch that gained less than
    nothing counts as having gained nothing."""
    verdict: Verdict
    reason: str | None
    """Why unresolved."""


@dataclass(frozen=True)
class Bracket:
    """What the verdicts say together."""

    largest_pass: int | None
    """Env steps; None where no other than the reference passes."""
    smallest_fail: int | None
    """Above the reference; None where none fails."""
    b_crit_low: float | None
    """Env steps: the B_crit for which the model's deficit at `largest_pass` is the tolerance."""
    b_crit_high: float | None
    """Likewise at `smallest_fail`."""
    resolved: bool
    reason: str | None


def confidence_of(n_rules: int) -> float:
    """Two-sided confidence of each rule's interval: one-sided `FALSE_ALARMS` / n_rules, since a batch size passes
    under its better rule (Bonferroni)."""
    return 1 - 2 * FALSE_ALARMS / n_rules


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float) -> Interval:
    """Mean of independent `values [n]` with its t interval; no limits for n = 1, nothing for n = 0."""
    x = np.asarray(values, np.float64)
    if len(x) < 2:
        return Interval(float(x[0]) if len(x) else None, None, None)
    half = student_quantile(confidence, len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def judge(
    reference: Sequence[float],
    fork: Sequence[float],
    branch: Sequence[float],
    tolerance: float,
    n_rules: int,
) -> Judgement:
    """Scores [n] of the reference's end, the fork and the branch's end, paired by seed.

    Passes where the upper limit of D - t G is below 0 and the gain's lower limit above; fails where D - t G lies above
    0 and the gain too. Where a reference gained nothing, nothing passes or fails.
    """
    r, f, y = (np.asarray(scores, np.float64) for scores in (reference, fork, branch))
    confidence = confidence_of(n_rules)
    gain, excess = mean_interval(r - f, confidence), mean_interval(r - y - tolerance * (r - f), confidence)
    verdict, reason = _verdict(len(r), r - y, gain, excess)
    return Judgement(len(r), mean_interval(r - y, confidence), _fraction(r - f, y - f, confidence), verdict, reason)


def _verdict(n: int, deficits: np.ndarray, gain: Interval, excess: Interval) -> tuple[Verdict, str | None]:
    if n < MIN_SEEDS:
        return "unresolved", f"{n} seeds: at least {MIN_SEEDS} are needed"
    if not gain.low > 0:
        return "unresolved", "the reference's own gain does not exclude 0"
    if not np.ptp(deficits) > 0:
        return "unresolved", "no spread between seeds to judge by: the score is at its ceiling, or discrete"
    if excess.high < 0:
        return "pass", None
    if excess.low > 0:
        return "fail", None
    return "unresolved", "the deficit's interval holds the tolerance"


def _fraction(gain: np.ndarray, kept: np.ndarray, confidence: float) -> Interval:
    """1 - mean kept / mean gain by Fieller, from pairs [n]; an end that is unbounded is None."""
    if len(gain) < 2 or gain.mean() <= 0:
        return Interval(None, None, None)
    cov = np.cov(gain, kept) / len(gain)
    low, high, _ = fieller(gain.mean(), kept.mean(), cov, student_quantile(confidence, len(gain) - 1))
    value = 1 - float(kept.mean() / gain.mean())
    return Interval(value, 1 - high if math.isfinite(high) else None, 1 - low)


def of_rules(verdicts: Sequence[Verdict]) -> Verdict:
    """A batch size's verdict under its better rule: it passes where one does, and fails where all do."""
    if "pass" in verdicts:
        return "pass"
    return "fail" if verdicts and all(verdict == "fail" for verdict in verdicts) else "unresolved"


def bracket(verdicts: Mapping[int, Verdict], reference: int, tolerance: float) -> Bracket:
    """The largest batch size that passes and the smallest above the reference that fails, batch size -> verdict."""
    largest = max((size for size, verdict in verdicts.items() if verdict == "pass"), default=None)
    smallest = min((size for size, v in verdicts.items() if v == "fail" and size > reference), default=None)
    reason = None
    if smallest is None:
        reason = "no batch size above the reference fails: give larger ones"
    if largest is None or largest < reference:
        reason = "no batch size above the reference passes: give smaller ones, more seeds or more env steps"
    elif smallest is not None and smallest < largest:
        reason = f"{largest:,} passes though {smallest:,} fails: a rule of the learning rate that suits neither alike"
    ends = [size and max(0.0, b_crit_of(size, reference, tolerance)) for size in (largest, smallest)]
    return Bracket(largest, smallest, *ends, reason is None, reason)


def marked_batch(b_crit: float, reference: float, tolerance: float) -> float:
    """B_t = (B_0 + t B_crit) / (1 - t), env steps: where the model's deficit is the tolerance."""
    return (reference + tolerance * b_crit) / (1 - tolerance)


def b_crit_of(batch_size: float, reference: float, tolerance: float) -> float:
    """B_crit = ((1 - t) B_t - B_0) / t, env steps: the inverse of `marked_batch`; negative where B_t is too close."""
    return ((1 - tolerance) * batch_size - reference) / tolerance
