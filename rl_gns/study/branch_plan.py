"""What `rl-gns branch` runs: which batch sizes, rates and seeds, and the configuration of every branch."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

from rl_gns.config import ConfigError, RunConfig, config_id
from rl_gns.noise.branching import MIN_SEEDS
from rl_gns.noise.controller import RATE_POWERS
from rl_gns.study.build import checked
from rl_gns.study.forks import Fork, branch_base
from rl_gns.study.grid import columns_per_collector
from rl_gns.study.measure import BURN_IN_ENV_STEPS

ROLLOUTS = 8
"""Rollouts of the largest batch where no env steps are given (a guess: its policy has to move)."""
CHECKPOINTS = 4
"""A killed branch loses at most this part of its env steps, or what its run would lose."""


@dataclass(frozen=True)
class Plan:
    """What is asked for; 0 and () are filled in from the fork by `settled`."""

    batch_sizes: tuple[int, ...]
    reference: int = 0
    env_steps: int = 0
    seeds: int = 5
    learning_rate_rules: tuple[str, ...] = ()
    tolerance: float = 0.25
    evaluation_episodes: int = 0
    burn_in_env_steps: int = BURN_IN_ENV_STEPS
    actors: int = 0


def settled(plan: Plan, fork: Fork) -> Plan:
    """The plan with its gaps filled in; ConfigError for what cannot be."""
    reference = plan.reference or fork.batch_size
    sizes = tuple(sorted({*plan.batch_sizes, reference}))
    power = "sqrt" if fork.config.learner.optimizer == "adam" else "linear"
    rollout = sizes[-1] * fork.config.batch.minibatches
    full = dataclasses.replace(
        plan,
        batch_sizes=sizes,
        reference=reference,
        env_steps=plan.env_steps or ROLLOUTS * rollout,
        learning_rate_rules=plan.learning_rate_rules or ("none", power),
        evaluation_episodes=plan.evaluation_episodes or fork.config.evaluation_episodes,
    )
    _check(full, fork, rollout)
    return full


def _check(plan: Plan, fork: Fork, rollout: int) -> None:
    if len(plan.batch_sizes) < 2:
        raise ConfigError(f"--batch-sizes: at least one other than the reference, {plan.reference:,}, is needed")
    if plan.seeds < 2:
        raise ConfigError(f"--seeds: {plan.seeds} gives no interval; the least is 2, and {MIN_SEEDS} for a verdict")
    if not 0 < plan.tolerance < 1:
        raise ConfigError(
            f"--tolerance: {plan.tolerance:g} is not inside (0, 1), of the reference's gain; 0.25 is usual"
        )
    if len(set(plan.learning_rate_rules)) < len(plan.learning_rate_rules):
        raise ConfigError(f"--learning-rate-rules: {' '.join(plan.learning_rate_rules)}: each once")
    if plan.env_steps < rollout:
        raise ConfigError(
            f"--env-steps: {plan.env_steps:,} are less than a rollout of B = {plan.batch_sizes[-1]:,}, which is "
            f"{rollout:,}"
        )
    branch_configs(fork, plan)  # names what no run can have


@dataclass(frozen=True)
class Branch:
    """One branch: where it lies, and what it runs."""

    name: str
    seed: int
    """Its index."""
    config: RunConfig


def branch_configs(fork: Fork, plan: Plan) -> list[Branch]:
    """Every branch once: all batch sizes of one seed before the next, the large ones first. Rules that give the same
    rate share a branch, as they do at the reference."""
    found = {}
    for k in range(plan.seeds):
        for size in sorted(plan.batch_sizes, reverse=True):
            for rule in plan.learning_rate_rules:
                each = branch_of(fork, plan, size, rule, k)
                found[each.name] = each
    return list(found.values())


def branch_of(fork: Fork, plan: Plan, size: int, rule: str, k: int) -> Branch:
    """That branch: it stops with the rollout whose end is nearest to the env steps asked for."""
    base = dataclasses.replace(branch_base(fork, k), actors=plan.actors, evaluation_episodes=plan.evaluation_episodes)
    every = min(base.checkpoint.every_env_steps, max(1, plan.env_steps // CHECKPOINTS))
    config = dataclasses.replace(
        base,
        total_env_steps=max(1, plan.env_steps - size * base.batch.minibatches // 2),
        batch=dataclasses.replace(base.batch, size=size),
        rollout=dataclasses.replace(
            base.rollout,
            columns_per_collector=columns_per_collector(base, size),
            burn_in_env_steps=plan.burn_in_env_steps,
        ),
        learner=dataclasses.replace(base.learner, learning_rate=rate(fork, plan, size, rule)),
        checkpoint=dataclasses.replace(base.checkpoint, every_env_steps=every),
    )
    try:
        checked(config)
    except ConfigError as error:
        raise ConfigError(str(error).replace("--batch.size:", "--batch-sizes:")) from None
    address = hashlib.sha256(f"{config_id(config)} {config.total_env_steps} {fork.digest}".encode()).hexdigest()[:8]
    return Branch(f"B{size}-lr{config.learner.learning_rate:g}-s{k}-{address}", k, config)


def rate(fork: Fork, plan: Plan, size: int, rule: str) -> float:
    """The rate in use at the fork times (B / reference) to the rule's power; at the reference it is just that."""
    factor = (size / plan.reference) ** RATE_POWERS[rule]
    return fork.learning_rate if factor == 1 else float(f"{fork.learning_rate * factor:.3g}")


def columns_words(fork: Fork, plan: Plan) -> str:
    """How columns were treated, alike in every branch."""
    scatter = fork.config.rollout.scatter_env_steps
    return (
        "new in every branch, the reference's too (the batch sizes need different numbers of columns, and seeds that "
        f"shared theirs would not be independent): scattered over up to {scatter:,} random env steps, then "
        f"{plan.burn_in_env_steps:,} env steps under the forked policy before any counts"
    )
