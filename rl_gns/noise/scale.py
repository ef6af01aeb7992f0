"""B_simple = tr(Sigma) / |G|^2 (McCandlish et al. 2018, eq. 2.9) with an interval, or with the reason for having none.

Signal and trace are averaged apart, with the same weights, and divided once: the mean of ratios is biased, and so
is a signal clamped at zero before it is averaged. The ratio of the means is the |G|^2-weighted mean of B_simple.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rl_gns.noise.blocks import MIN_BLOCKS, block_spread
from rl_gns.noise.interval import fieller, jackknife_covariance, student_quantile
from rl_gns.noise.moments import signal_and_trace, without_each
from rl_gns.noise.plan import more_env_steps
from rl_gns.records import PARTS, GroupMoments, NoiseScale, Part

MIN_GROUPS = 8
FEW_GROUPS = f"groups: at least {MIN_GROUPS} are needed"
COUPLED = "groups are coupled by the rollout's own advantage statistics"
OFF_POLICY = "the probe was off-policy"


def pool_series(
    signal_sq: np.ndarray,
    noise_trace: np.ndarray,
    env_steps: np.ndarray,
    *,
    n_groups: int,
    batch_size: np.ndarray | None = None,
    part: Part = "policy",
    confidence: float = 0.95,
    coupled: bool = False,
    first_version: int = 0,
    last_version: int = 0,
    key_id: str | None = None,
) -> NoiseScale:
    """Noise scale over training from the signal, trace and valid env steps of n rollouts under one key ([n] each).

    Means with weights env_steps; Fieller's interval with the covariance between blocks of consecutive rollouts of one
    `batch_size` ([n]; None: one for all), each at least 3 autocorrelation times long, a linear trend taken out
    (`block_spread`). Below 8 blocks the interval is provisional.
    """
    values = np.stack([np.asarray(signal_sq, np.float64), np.asarray(noise_trace, np.float64)], axis=1)
    weights = np.asarray(env_steps, np.float64)
    _check_series(values, weights, batch_size)
    unit = _unit(values)
    values = values / unit
    n, total = len(values), float(weights.sum())
    spread = block_spread(values, weights, batch_size)
    few = spread.n_blocks < MIN_BLOCKS
    missing = max(1, MIN_BLOCKS * spread.block_rollouts - n) * total / n if few else 0.0
    return noise_scale(
        part,
        mean=weights @ values / total,
        cov=spread.cov,
        dof=spread.dof,
        confidence=confidence,
        hopeless=hopeless_reasons(n_groups, coupled),
        shortage=[f"{spread.n_blocks} blocks: at least {MIN_BLOCKS} are needed"] if few else [],
        missing_env_steps=missing,
        unit=unit,
        n_groups=n_groups,
        env_steps=round(total),
        **_newest_batch(weights, batch_size),
        n_rollouts=n,
        first_version=first_version,
        last_version=last_version,
        pooling="updates",
        key_id=key_id,
    )


def pool(
    history: Sequence[GroupMoments],
    part: Part | None = None,
    confidence: float = 0.95,
    window_env_steps: float | None = None,
) -> NoiseScale:
    """`pool_series` over the moments of successive rollouts, oldest first, all of one key.

    `part` None means the only one that the moments have, and `policy` where they have several. Off-policy moments are
    left out. The window keeps the newest rollouts within `window_env_steps` valid env steps (the newest always stays).
    ValueError where nothing is left, keys differ, a part is missing, or confidence is not between 0 and 1.
    """
    kept = [moments for moments in history if not moments.off_policy]
    if not kept:
        raise ValueError("nothing to pool: no rollout, or all of them off-policy")
    if any(moments.key != kept[0].key for moments in kept):
        raise ValueError("moments of different keys are never pooled: start a new window where the key changes")
    part = _part(kept, part)
    sizes = [int(moments.env_steps.sum()) for moments in kept]
    start = window_start(sizes, window_env_steps)
    kept = kept[start:]
    signal_sq, noise_trace = np.transpose([signal_and_trace(moments, part) for moments in kept])
    return pool_series(
        signal_sq,
        noise_trace,
        np.array(sizes[start:]),
        n_groups=min(moments.n_groups for moments in kept),
        batch_size=batch_sizes([moments.batch_size for moments in kept]),
        part=part,
        confidence=confidence,
        coupled=kept[0].coupled,
        first_version=kept[0].policy_version,
        last_version=kept[-1].policy_version,
        key_id=kept[0].key_id,
    )


def batch_sizes(sizes: Sequence[int | None]) -> np.ndarray | None:
    """B of each rollout; None where one of them is not known."""
    return None if None in sizes else np.array(sizes)


def _part(history: Sequence[GroupMoments], wanted: Part | None) -> Part:
    there = [part for part in PARTS if all(part in (moments.gram or moments.norms_dots) for moments in history)]
    part = wanted or (there[0] if there else None)
    if part not in there:
        raise ValueError(f"no part {part!r} in all moments; there is {', '.join(there) or 'none that all share'}")
    return part


def window_start(env_steps: Sequence[float], window_env_steps: float | None) -> int:
    """Index of the oldest rollout that still lies in a window of so many env steps ending at the newest."""
    if window_env_steps is None:
        return 0
    held = np.cumsum(np.asarray(env_steps)[::-1])
    return len(env_steps) - max(1, int(np.searchsorted(held, window_env_steps, side="right")))


def single(moments: GroupMoments, part: Part | None = None, confidence: float = 0.95) -> NoiseScale:
    """Noise scale of one rollout alone: delete-one-group jackknife, Fieller with t of J - 1 degrees of freedom.

    The jackknife is wide where noise dominates (signal_sq is then a degenerate U-statistic). Two groups give a number
    without an interval.
    """
    part, cov = _part([moments], part), None
    if moments.n_groups > 2:
        cov = jackknife_covariance(without_each(moments, part))
    return noise_scale(
        part,
        mean=np.array(signal_and_trace(moments, part)),
        cov=cov,
        dof=moments.n_groups - 1,
        confidence=confidence,
        hopeless=hopeless_reasons(moments.n_groups, moments.coupled, moments.off_policy),
        n_groups=moments.n_groups,
        env_steps=int(moments.env_steps.sum()),
        **_newest_batch(np.array([moments.env_steps.sum()]), batch_sizes([moments.batch_size])),
        n_rollouts=1,
        first_version=moments.policy_version,
        last_version=moments.policy_version,
        pooling="updates",
        key_id=moments.key_id,
    )


def noise_scale(
    part: Part,
    mean: np.ndarray,
    cov: np.ndarray | None,
    dof: int,
    confidence: float,
    hopeless: list[str],
    shortage: Sequence[str] = (),
    missing_env_steps: float = 0.0,
    unit: float = 1.0,
    **facts: Any,
) -> NoiseScale:
    """The record of mean [2] (signal, trace) and its covariance [2, 2], both in units of `unit` gradient^2.

    `hopeless`: reasons that more env steps do not mend; `shortage`: reasons that they do.
    """
    signal_sq, noise_trace = float(mean[0]), float(mean[1])
    low, high, excludes_zero, needed = 0.0, math.inf, False, None
    quantile = student_quantile(confidence, max(dof, MIN_BLOCKS - 2))
    if cov is not None:
        low, high, excludes_zero = fieller(signal_sq, noise_trace, cov, student_quantile(confidence, dof))
        half_width, sums_held = quantile * math.sqrt(cov[0, 0]), facts["pooling"] != "updates"
        needed = more_env_steps(signal_sq, noise_trace, half_width, facts["env_steps"], sums_held)
    reasons = [*hopeless, *shortage, *([] if excludes_zero else [_signal_reason(signal_sq, cov)])]
    if hopeless or needed is None:
        needed = None
    elif reasons:
        needed = max(1, math.ceil(max(needed, missing_env_steps)))
    return NoiseScale(
        part=part,
        signal_sq=signal_sq * unit,
        noise_trace=noise_trace * unit,
        b_simple=noise_trace / signal_sq if signal_sq > 0 else math.inf,
        low=low,
        high=high,
        confidence=confidence,
        resolved=not reasons,
        reason="; ".join(reasons) or None,
        env_steps_needed=needed if reasons else 0,
        **facts,
    )


def _signal_reason(signal_sq: float, cov: np.ndarray | None) -> str:
    if cov is None:
        return "too few rollouts or groups to judge the spread"
    return "signal's interval touches zero" if signal_sq > 0 else "signal's estimate is not above zero"


def hopeless_reasons(n_groups: int, coupled: bool, off_policy: bool = False) -> list[str]:
    """Why no number of env steps would resolve this."""
    few = [f"{n_groups} {FEW_GROUPS}"] if n_groups < MIN_GROUPS else []
    return few + ([COUPLED] if coupled else []) + ([OFF_POLICY] if off_policy else [])


def hopeless_of(reason: str | None) -> tuple[str, ...]:
    """Those of a record's reasons that `hopeless_reasons` gave."""
    return tuple(each for each in (reason or "").split("; ") if each.endswith((FEW_GROUPS, COUPLED, OFF_POLICY)))


def _newest_batch(env_steps: np.ndarray, batch_size: np.ndarray | None) -> dict[str, int]:
    """B of the newest rollout, and the env steps and rollouts since it was last changed; nothing where not known."""
    if batch_size is None:
        return {}
    changes = np.flatnonzero(np.diff(batch_size)) + 1
    newest = env_steps[changes[-1] if len(changes) else 0 :]
    return {
        "batch_size": int(batch_size[-1]),
        "batch_size_env_steps": round(float(newest.sum())),
        "batch_size_rollouts": len(newest),
    }


def _unit(values: np.ndarray) -> float:
    """The power of two at the largest of `values`: dividing by it is exact, and then their fourth powers, which the
    interval needs, neither overflow nor vanish."""
    largest = float(np.abs(values).max())
    return math.ldexp(1.0, max(math.frexp(largest)[1], -1000)) if largest else 1.0


def _check_series(values: np.ndarray, weights: np.ndarray, batch_size: np.ndarray | None) -> None:
    same = batch_size is None or np.shape(batch_size) == weights.shape
    if values.ndim != 2 or weights.shape != (len(values),) or not len(values) or not same:
        raise ValueError("signal_sq, noise_trace, env_steps and batch_size must be arrays [n] of one length n >= 1")
    if not np.isfinite(values).all():
        raise ValueError("signal_sq and noise_trace must be finite: leave such rollouts out and count them")
    if not (weights > 0).all():
        raise ValueError("env_steps must be positive")
