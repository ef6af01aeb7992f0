"""The rules that a configuration must obey, each with the line that a user reads when it does not."""

from __future__ import annotations

import math
from typing import Any

from rl_gns.config import FLOOR_COLUMNS, ConfigError, RunConfig


def validate(config: RunConfig) -> RunConfig:
    """Cross-field rules; returns the config, or raises ConfigError naming key, value and the nearest right one."""
    rules = (check_least, _check_batch, _check_fractions, _check_control)
    for rule in (*rules, _check_inference, _check_learners, _check_chaos):
        rule(config)
    return config


LEAST = {
    "seed": 0,
    "actors": 0,
    "learners": 1,
    "total-env-steps": 1,
    "return-episodes": 1,
    "evaluation-episodes": 1,
    "atari.frame-size": 36,  # the smallest that three convolutions of the Nature CNN leave a pixel of
    "atari.frame-stack": 1,
    "atari.frameskip": 1,
    "atari.noop-max": 0,
    "batch.size": 1,
    "batch.segment-steps": 1,
    "batch.minibatches": 1,
    "batch.epochs": 1,
    "rollout.columns-per-collector": 1,
    "rollout.scatter-env-steps": 0,
    "rollout.burn-in-env-steps": 0,
    "rollout.inference-actors": 0,
    "rollout.waves": 1,
    "learner.micro-batch": 1,
    "learner.max-skipped-steps": 1,
    "learner.normaliser-env-steps": 1,
    "learner.threads": 0,
    "learner.clip-range": 0,
    "learner.max-grad-norm": 0,
    "noise.every": 0,
    "noise.groups": 2,
    "noise.window-env-steps": 1,
    "noise.across-env-steps": 0,
    "control.max-batch-size": 1,
    "control.hysteresis": 1,
    "checkpoint.every-env-steps": 1,
}


def check_least(config: RunConfig) -> None:
    """Each setting by itself: nothing that others divide by is 0."""
    for key, least in LEAST.items():
        if not (value := _value(config, key)) >= least:
            raise ConfigError(f"--{key}: {value} is too small; the least is {least}")
    if not all(math.isfinite(goal) for goal in config.goals) or len(set(config.goals)) < len(config.goals):
        raise ConfigError(f"--goals: {list(config.goals)}: finite returns, each once, are wanted")
    if config.checkpoint.keep and min(config.checkpoint.keep) < 1:
        raise ConfigError(f"--checkpoint.keep: {min(config.checkpoint.keep)} is too small; the least is 1")
    if config.seed >= 1 << 63:
        raise ConfigError(f"--seed: {config.seed} is too large; the greatest is {(1 << 63) - 1}")
    if config.learner.threads > 256:
        raise ConfigError(f"--learner.threads: {config.learner.threads} is too large; 0 takes the cores there are")
    if not 0 < config.learner.learning_rate < float("inf"):
        raise ConfigError(f"--learner.learning-rate: {config.learner.learning_rate} is no rate; 2.5e-4 is usual")


def _value(config: RunConfig, key: str) -> Any:
    value: Any = config
    for name in key.replace("-", "_").split("."):
        value = getattr(value, name)
    return value


def _check_batch(config: RunConfig) -> None:
    batch, per_collector, waves = config.batch, config.rollout.columns_per_collector, config.rollout.waves
    if batch.size % config.batch_unit:
        nearest = max(1, round(batch.size / config.batch_unit)) * config.batch_unit
        raise ConfigError(
            f"--batch.size: {batch.size} x {batch.minibatches} minibatches is no multiple of {batch.segment_steps} "
            f"segment steps x {per_collector} columns a collector{f' x {waves} waves' if waves > 1 else ''}; "
            f"the nearest that fits is {nearest}"
        )
    if config.columns < 2 and config.noise.every > 0:
        raise ConfigError("--noise.every: one column has no noise scale; give more columns, or 0 for no probe")


def _check_fractions(config: RunConfig) -> None:
    fractions = {
        "learner.gamma": config.learner.gamma,
        "learner.gae-lambda": config.learner.gae_lambda,
        "noise.confidence": config.noise.confidence,
        "atari.sticky-action-probability": config.atari.sticky_action_probability,
    }
    for key, value in fractions.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"--{key}: {value} is not in [0, 1]; the nearest is {min(max(value, 0.0), 1.0):g}")
    if not 0 < config.noise.confidence < 1:
        raise ConfigError(f"--noise.confidence: {config.noise.confidence} is not inside (0, 1); usual is 0.95")


def _check_control(config: RunConfig) -> None:
    control, batch = config.control, config.batch
    if not 0 < control.kappa < float("inf"):
        raise ConfigError(f"--control.kappa: {control.kappa} is no factor; 1 is usual")
    if control.policy != "follow":
        return
    if batch.size < config.batch_floor:
        raise ConfigError(
            f"--batch.size: {batch.size} is too small for --control.policy follow, which keeps {FLOOR_COLUMNS} columns "
            f"a minibatch; the least is {config.batch_floor}"
        )
    if control.max_batch_size < batch.size:
        raise ConfigError(f"--control.max-batch-size: {control.max_batch_size} is below batch.size; {batch.size} fits")
    if config.noise.every == 0:
        raise ConfigError("--noise.every: 0 leaves --control.policy follow nothing to follow; 1 or more is needed")
    if control.estimator == "across" and config.noise.across_env_steps == 0:
        raise ConfigError("--noise.across-env-steps: 0 leaves --control.estimator across nothing; 250000 is usual")


def _check_inference(config: RunConfig) -> None:
    n = config.rollout.inference_actors
    if n and not config.actors:
        raise ConfigError(f"--rollout.inference-actors: {n} have no rollout actors to serve; 0, or --actors 1 or more")


def _check_learners(config: RunConfig) -> None:
    """A group's columns are on one learner."""
    learners, noise, batch = config.learners, config.noise, config.batch
    if learners == 1:
        return
    if noise.across_env_steps:
        raise ConfigError(
            f"--noise.across-env-steps: {noise.across_env_steps} keeps gradients, which {learners} learners never "
            "send; the nearest is 0"
        )
    if noise.groups % learners:
        nearest = max(1, round(noise.groups / learners)) * learners
        raise ConfigError(f"--noise.groups: {noise.groups} do not split over {learners} learners; {nearest} do")
    unit, least = _columns(config, config.batch_unit), _columns(config, batch.size)
    if config.control.policy == "follow":
        least = min(least, _columns(config, config.batch_floor))
    if least < noise.groups and (least % learners or (config.control.policy == "follow" and unit % learners)):
        step = math.lcm(unit, learners) // unit * config.batch_unit
        nearest = max(1, round(batch.size / step)) * step
        raise ConfigError(
            f"--batch.size: {batch.size} makes {least} columns, a group each, which do not split over {learners} "
            f"learners; the nearest that fits is {nearest}"
        )


def _columns(config: RunConfig, batch_size: int) -> int:
    return config.collectors(batch_size) * config.rollout.columns_per_collector


def _check_chaos(config: RunConfig) -> None:
    if config.chaos.asked() and config.actors == 0:
        raise ConfigError(f"--chaos: strikes rollout actors ({config.chaos}), and there are none; add --actors 2")
