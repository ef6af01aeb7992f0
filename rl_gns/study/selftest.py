"""`rl-gns selftest`: does the instrument read right on this machine? Estimates against truths, without a ROM.

Every row has an estimate with an interval and a truth. The interval must hold the truth; in the negative control, an
estimate made the wrong way, it must miss it. Seeds are fixed, so that on one type of CPU the verdict is always the
same. Were they random, a healthy instrument would fail a row at most as often as `false_alarm` says.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from rl_gns.noise.moments import FrozenMoments, group_moments, signal_and_trace
from rl_gns.noise.scale import pool
from rl_gns.records import PARTS, NoiseScale
from rl_gns.study.known_worlds import ECHOED, WORLDS, frozen_scale_of, pooled_scale_of, shuffled_scale_of

CONFIDENCE = 0.999
"""Of the intervals that are held against one truth."""
ERRORS = 4.0
"""Signal and trace may be so many of their standard errors from the truth (normal: 6e-5 are beyond)."""
COVERAGE_SETS, COVERAGE_UPDATES = 400, 40
RESOLVED = 0.75
"""Of the coverage run's intervals at least; 0.98 do (measured)."""


@dataclass(frozen=True)
class Check:
    """One row: `truth` lies in [low, high], or, where `must_miss`, `found` reads low and its interval misses."""

    name: str
    truth: float
    found: float
    low: float
    high: float
    false_alarm: float
    """Probability that a healthy instrument fails this row, for a random seed."""
    must_miss: bool = False
    passed: bool = field(init=False)

    def __post_init__(self) -> None:
        missed_low = self.high < self.truth and self.found < self.truth
        passed = missed_low if self.must_miss else self.low <= self.truth <= self.high
        object.__setattr__(self, "passed", bool(passed))


@dataclass(frozen=True)
class SelftestResult:
    """What `--json` prints."""

    passed: bool
    false_alarm: float
    """Sum over the rows."""
    seconds: float
    cpu_seconds: float
    checks: list[Check]


def selftest(watch: Callable[[str], None] = lambda words: None) -> SelftestResult:
    """Run every check; `watch` gets a line before each group of them."""
    start, cpu_start = time.perf_counter(), time.process_time()
    checks: list[Check] = []
    for words, run in GROUPS.items():
        watch(words)
        checks += run()
    return SelftestResult(
        passed=all(check.passed for check in checks),
        false_alarm=sum(check.false_alarm for check in checks),
        seconds=time.perf_counter() - start,
        cpu_seconds=time.process_time() - cpu_start,
        checks=checks,
    )


def enumerated() -> Iterator[Check]:
    """Group noise +-sqrt(3 / N_k) along one axis, all sign patterns: the estimators' means are exact, tr(Sigma) = 3."""
    steps, mean = np.array([10, 20, 30, 40]), np.array([0.5, 1.0])
    axis = np.array([0.6, -0.8])
    signs = np.array(list(itertools.product((-1, 1), repeat=8))).reshape(-1, 2, 4)
    gradients = mean + (signs * np.sqrt(3 / steps))[..., None] * axis
    pooled = [signal_and_trace(group_moments(g, steps), "total") for g in gradients[:, 0]]
    frozen = [_frozen(rollouts, steps) for rollouts in gradients]
    for name, found in (("within a rollout", pooled), ("over frozen rollouts", frozen)):
        signal_sq, noise_trace = np.mean(found, axis=0).tolist()
        yield _within(f"all sign patterns, {name}: signal_sq", 1.25, signal_sq, 1e-9, 0.0)
        yield _within(f"all sign patterns, {name}: noise_trace", 3.0, noise_trace, 1e-9, 0.0)


def _frozen(rollouts: np.ndarray, steps: np.ndarray) -> tuple[float, float]:
    frozen = FrozenMoments()
    for gradients in rollouts:
        moments = group_moments(gradients, steps)
        frozen.add({"policy": gradients, "rest": 0 * gradients}, dict.fromkeys(PARTS, moments.gram["total"]), steps)
    estimate = frozen.estimate("policy")
    return estimate.signal_sq, estimate.noise_trace


def worlds() -> Iterator[Check]:
    """Collectors, learner, probe, moments, scale and interval on every known world, frozen and pooled."""
    for world in WORLDS:
        signal_sq, noise_trace = world.truth()
        for how, scale in (("frozen", frozen_scale_of), ("pooled", pooled_scale_of)):
            found = scale(world, CONFIDENCE)
            signal_error, trace_error = _relative_errors(noise_trace / signal_sq, found)
            name = f"{world.name}, {how}"
            yield _interval(f"{name}: B_simple", noise_trace / signal_sq, found)
            yield _within(f"{name}: noise_trace", noise_trace, found.noise_trace, ERRORS * trace_error, 1e-4)
            yield _within(f"{name}: signal_sq", signal_sq, found.signal_sq, ERRORS * signal_error, 1e-4)


def _relative_errors(b_simple: float, scale: NoiseScale) -> tuple[float, float]:
    """Relative standard errors of signal and trace for normal noise of rank 1 along G, the worst there is.

    With x = B_simple / N and R estimates of N env steps each: sqrt((4 x + 2 x^2 J / (J-1)) / R) for the signal (pooled:
    R rollouts; frozen: one estimate over all), sqrt(2 / (n_rollouts (J-1))) for the trace.
    """
    estimates = scale.n_rollouts if scale.pooling == "updates" else 1
    x, groups = b_simple * estimates / scale.env_steps, scale.n_groups
    signal = math.sqrt((4 * x + 2 * x**2 * groups / (groups - 1)) / estimates)
    return signal, math.sqrt(2 / (scale.n_rollouts * (groups - 1)))


def echoed() -> Iterator[Check]:
    """A world whose noise comes 16 times in a row: groups of columns read right (above), shuffled transitions low."""
    signal_sq, noise_trace = ECHOED.truth()
    name = f"{ECHOED.name}, shuffled transitions: B_simple must read low"
    yield _interval(name, noise_trace / signal_sq, shuffled_scale_of(ECHOED, CONFIDENCE), must_miss=True)


def coverage() -> Iterator[Check]:
    """95 % intervals of normal streams: noise-to-batch ratio 4, 8 groups, effective rank 50, COVERAGE_UPDATES each."""
    rng = np.random.default_rng(0)
    truth, env_steps = 4.0 * 8 * 64, 64
    held, resolved = 0, 0
    for _ in range(COVERAGE_SETS):
        noise = rng.standard_normal((COVERAGE_UPDATES, 8, 50)) * math.sqrt(truth / 50 / env_steps)
        noise[..., 0] += 1.0
        scale = pool([group_moments(g, env_steps) for g in noise])
        held += scale.low <= truth <= scale.high
        resolved += scale.resolved
    yield _proportion("coverage of 95 % intervals", 0.95, held)
    share = resolved / COVERAGE_SETS
    yield Check(f"share of them resolved, at least {RESOLVED}", RESOLVED, share, 0.0, share, 1e-6)


GROUPS: dict[str, Callable[[], Iterator[Check]]] = {
    "estimators, exactly": enumerated,
    "known worlds through the whole pipeline": worlds,
    "the negative control": echoed,
    "coverage": coverage,
}


def _interval(name: str, truth: float, scale: NoiseScale, must_miss: bool = False) -> Check:
    return Check(name, truth, scale.b_simple, scale.low, scale.high, 1 - CONFIDENCE, must_miss)


def _within(name: str, truth: float, found: float, relative: float, false_alarm: float) -> Check:
    margin = relative * abs(truth)
    return Check(name, truth, found, found - margin, found + margin, false_alarm)


def _proportion(name: str, truth: float, held: int) -> Check:
    """With the exact (Clopper-Pearson) interval of a proportion."""
    low, high = stats.binomtest(held, COVERAGE_SETS).proportion_ci(CONFIDENCE)
    return Check(name, truth, held / COVERAGE_SETS, float(low), float(high), 1 - CONFIDENCE)


def show(result: SelftestResult, console: Console | None = None) -> None:
    """Print the table and the verdict."""
    table = Table("", "truth", "found", "interval", "verdict")
    for check in result.checks:
        interval = f"{check.low:,.4g} to {check.high:,.4g}"
        verdict = "pass" if check.passed else "FAIL"
        table.add_row(check.name, f"{check.truth:,.4g}", f"{check.found:,.4g}", interval, verdict)
    console = console or Console()
    console.print(table)
    failed = sum(not check.passed for check in result.checks)
    words = f"{failed} of {len(result.checks)} failed" if failed else f"all {len(result.checks)} passed"
    alarms = f"for random seeds a healthy instrument would fail at most {result.false_alarm:.1%} of the time"
    seconds = f"{result.seconds:.0f} s, {result.cpu_seconds:.0f} s of CPU"
    console.print(f"{words}, {seconds}; seeds are fixed ({alarms})", soft_wrap=True, highlight=False)
