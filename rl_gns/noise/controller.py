"""What the next rollout uses: a pure function of what was observed, so that a run resumes to the same decisions.

    state, batch_size, learning_rate = decide(state, observation)

`fixed` keeps the configured batch size. `follow` steers it to kappa x B_simple of one part, from the first resolved
interval on. The rollouts from before a move still count in the pool, so that one interval could move the batch size
twice: the next move waits until a quarter of the interval's env steps, and three of its probes, are of the size in use.

No chatter: a move is made only where the wanted size (after floor, cap and grid) is more than a factor `hysteresis`
from the size in use. Where all wanted sizes lie within a factor sqrt(hysteresis) <= 2 of one centre, the size moves in
one direction only, at most 2 + |log2(start / centre)| times, and then never again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rl_gns.config import RunConfig
from rl_gns.records import Decision, NoiseScale

LARGEST_STEP = 2.0
"""The batch size grows or shrinks at most by this factor a move: the policy that B_simple belongs to has to keep up."""
NEW_SHARE = 0.25
"""Least share of an interval's env steps that came after the last move (a guess: from 24 rollouts before a doubling, 4
after it). At 1 every move would need a pool of its own, 24 rollouts."""
NEW_ROLLOUTS = 3
"""Least number of probes after the last move: the shortest block."""
RATE_POWERS = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}
"""A learning rate goes with the batch size to this power: 1/2 is usual for Adam, 1 for SGD."""


@dataclass(frozen=True)
class Observation:
    """What a controller may look at, after a rollout."""

    noise: NoiseScale | None
    """Pooled noise scale of the part that is steered by; None before the first probe."""
    env_steps: int
    """E so far."""
    optimizer_steps: int
    """S so far."""
    return_mean: float | None = None
    """Smoothed training return; None before the first episode has finished."""
    update_seconds: float | None = None
    """Measured cost of one optimizer step. Recorded; `fixed` and `follow` do not read it, so clocks move no number."""


@dataclass(frozen=True)
class ControllerState:
    """The rules of a run, the batch size in use, and the decision that set it."""

    config: RunConfig
    batch_size: int
    """B in use, env steps an optimizer step."""
    decision: Decision | None = None
    """The last one; None before the first."""


def initial(config: RunConfig) -> ControllerState:
    """The state before the first decision."""
    return ControllerState(config, config.batch.size)


def decide(state: ControllerState, observation: Observation) -> tuple[ControllerState, int, float]:
    """(next state, B in env steps, learning rate); `next_state.decision` says what was seen, asked, got, and why."""
    target, wanted, reason = _wanted(state, observation)
    got = state.batch_size if wanted is None else _limited_step(state, wanted)
    rate = learning_rate(state.config, got, observation.env_steps)
    decision = Decision(
        policy=state.config.control.policy,
        **_seen(observation),
        target_batch_size=target,
        asked_batch_size=state.batch_size if wanted is None else wanted,
        got_batch_size=got,
        moved=got != state.batch_size,
        reason=reason,
    )
    return ControllerState(state.config, got, decision), got, rate


def _seen(observation: Observation) -> dict[str, Any]:
    noise = observation.noise
    return {
        "saw_b_simple": noise.b_simple if noise else None,
        "saw_low": noise.low if noise else None,
        "saw_high": noise.high if noise else None,
        "saw_resolved": bool(noise and noise.resolved),
        "saw_return_mean": observation.return_mean,
        "saw_update_seconds": observation.update_seconds,
    }


def _wanted(state: ControllerState, observation: Observation) -> tuple[float | None, int | None, str]:
    """(kappa x B_simple, the size on the grid that a move should reach, why); None where nothing is to move."""
    control, noise = state.config.control, observation.noise
    if control.policy == "fixed":
        return None, None, "fixed"
    if noise is None or noise.batch_size != state.batch_size:
        return None, None, "waits: no probe under this batch size yet"
    if noise.batch_size_env_steps < NEW_SHARE * noise.env_steps or noise.batch_size_rollouts < NEW_ROLLOUTS:
        return None, None, "waits: too little of the interval is under this batch size yet"
    if not noise.resolved:
        return None, None, f"waits: {noise.reason}"
    target = control.kappa * noise.b_simple
    wanted = on_grid(state.config, target)
    if not outside(wanted, state.batch_size, control.hysteresis):
        return target, None, f"stays: within a factor {control.hysteresis:g} of what is wanted"
    return target, wanted, f"follows {control.kappa:g} x B_simple ({control.part})"


def outside(wanted: float, batch_size: float, hysteresis: float) -> bool:
    """More than a factor `hysteresis` apart."""
    return max(wanted / batch_size, batch_size / wanted) > hysteresis


def _limited_step(state: ControllerState, wanted: int) -> int:
    """The way towards `wanted`, at most a factor `LARGEST_STEP`, on the grid."""
    units = state.batch_size // state.config.batch_unit
    least, most = math.ceil(units / LARGEST_STEP), math.floor(units * LARGEST_STEP)
    return min(max(wanted, least * state.config.batch_unit), most * state.config.batch_unit)


def on_grid(config: RunConfig, size: float) -> int:
    """The nearest batch size that a rollout can have, between floor and cap."""
    whole = max(1, round(size / config.batch_unit)) * config.batch_unit
    return min(max(whole, config.batch_floor), config.batch_cap)


def learning_rate(config: RunConfig, batch_size: int, env_steps: int) -> float:
    """The configured rate, as `RATE_POWERS` scales it with B / configured B, times what the schedule leaves."""
    power = RATE_POWERS[config.control.learning_rate_rule]
    left = 1.0
    if config.learner.schedule == "linear":
        left = max(0.0, 1 - env_steps / config.total_env_steps)
    return config.learner.learning_rate * (batch_size / config.batch.size) ** power * left
