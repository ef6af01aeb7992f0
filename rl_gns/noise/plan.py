"""How many more env steps an interval needs, and under which law it narrows.

Let h be the half width of the interval of |G|^2 after n env steps. Averaged over training, h falls as 1/sqrt(n). Where
group sums are held (on a frozen policy, or across the rollouts of a window) their products have a variance of
2 tr(Sigma^2) / n^2 + 4 G' Sigma G / n. With the noise along G as strong as it is along itself, G' Sigma G / |G|^2 =
tr(Sigma^2) / tr(Sigma), and with the first term doubled, as by the delete-one-group jackknife where noise dominates
(Efron and Stein 1981), h^2 is proportional to phi^2 + phi with phi = B_simple / n: h falls as 1/n while noise dominates
and as 1/sqrt(n) once n exceeds B_simple. The trace is known much better than the signal, so the interval of B_simple is
about [B / (1 + delta), B / (1 - delta)], delta = h / |G|^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rl_gns.records import NoiseScale

POOLED_LAW = "1/sqrt(n)"
SUMS_LAW = "1/n while n < B_simple, then 1/sqrt(n)"


@dataclass(frozen=True)
class Plan:
    """What an interval of a stated precision still takes."""

    env_steps: int | None
    """Env steps still to be probed (not: to be trained through, where only some rollouts are probed); 0 where the
    interval is narrow enough; None where nothing can be said: no spread, or a signal far below zero."""
    law: str
    """How the half width of the signal's interval falls with n env steps."""


def plan(scale: NoiseScale, precision: float = math.inf) -> Plan:
    """Env steps still needed until half the width of the interval is `precision` x B_simple (inf: until it resolves).

    It takes signal and trace so far for the truth, so it is as uncertain as they are; a signal at or below zero is
    replaced by the upper end of its interval (an optimistic bound). What stands in the way besides the signal (too few
    groups, too few blocks) is `scale.reason`'s matter.
    """
    if not precision > 0:
        raise ValueError(f"precision must be positive, got {precision}")
    law = SUMS_LAW if scale.pooling != "updates" else POOLED_LAW
    if scale.low <= 0:
        return Plan(None, law)
    half_width = scale.noise_trace / scale.low - max(scale.signal_sq, 0.0)
    needed = more_env_steps(
        scale.signal_sq, scale.noise_trace, half_width, scale.env_steps, scale.pooling != "updates", precision
    )
    return Plan(None if needed is None else math.ceil(needed), law)


def more_env_steps(
    signal_sq: float,
    noise_trace: float,
    half_width: float,
    env_steps: float,
    sums_held: bool,
    precision: float = math.inf,
) -> float | None:
    """More env steps until h / |G|^2 is `signal_precision(precision)`, for h = `half_width` after `env_steps` now.

    `sums_held`: products of group sums over all n, not a mean over rollouts. A signal at or below zero counts as
    signal_sq + half_width. None where that is not positive, or nothing is known.
    """
    signal = signal_sq if signal_sq > 0 else signal_sq + half_width
    if signal <= 0 or not math.isfinite(half_width) or noise_trace <= 0:
        return None
    shrink = half_width / (signal * signal_precision(precision))
    if not sums_held:
        return max(0.0, env_steps * (shrink**2 - 1))
    b_simple = noise_trace / signal
    phi = b_simple / env_steps
    wanted = (math.sqrt(1 + 4 * (phi**2 + phi) / shrink**2) - 1) / 2 if shrink else math.inf
    return max(0.0, b_simple / wanted - env_steps)


def signal_precision(precision: float) -> float:
    """delta = h / |G|^2 at which half the width of [1 / (1 + delta), 1 / (1 - delta)] is `precision`; 1 for inf."""
    return 1.0 if math.isinf(precision) else (math.sqrt(1 + 4 * precision**2) - 1) / (2 * precision)
