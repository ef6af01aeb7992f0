"""What the next rollout asks for: a pure function of the configuration and of what was observed.

Here the batch size is fixed and the learning rate follows its schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

from rl_gns.config import RunConfig
from rl_gns.records import NoiseScale


@dataclass(frozen=True)
class Observation:
    """What a controller may look at, after a rollout."""

    noise: dict[str, NoiseScale] | None
    """part -> pooled noise scale; None before the first probe."""
    env_steps: int
    """E so far."""
    optimizer_steps: int
    """S so far."""
    return_mean: float | None
    """Smoothed training return; None before the first episode has finished."""


@dataclass(frozen=True)
class Plan:
    """The next rollout."""

    batch_size: int
    """B, env steps an optimizer step."""
    collectors: int
    """Collectors that the rollout needs: B x minibatches / (T x columns a collector)."""
    learning_rate: float
    """Of its optimizer steps."""


def decide(config: RunConfig, observation: Observation) -> Plan:
    """The configured batch size; a constant rate, or one that falls linearly to 0 at total_env_steps."""
    left = 1.0
    if config.learner.schedule == "linear":
        left = max(0.0, 1 - observation.env_steps / config.total_env_steps)
    return Plan(
        batch_size=config.batch.size,
        collectors=config.batch.columns // config.rollout.columns_per_collector,
        learning_rate=config.learner.learning_rate * left,
    )
