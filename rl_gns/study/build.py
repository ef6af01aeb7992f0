"""From a configuration to running parts: the learner, and the source of segments in this process or on Ray."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator

import envs
from envs import quadratic
from rl_gns.config import ConfigError, RunConfig
from rl_gns.config_rules import validate
from rl_gns.learn.learner import Learner
from rl_gns.learn.quadratic import QuadraticLearner
from rl_gns.rollout.generations import MEASURED_ON
from rl_gns.rollout.sources import LocalSource, SegmentSource

STORE_ROLLOUTS = 3
"""Rollouts' worth of bytes that the object store holds: one arriving, one being copied, one of slack."""


def checked(config: RunConfig) -> RunConfig:
    """The configuration, if a run can be built from it; ConfigError in one line otherwise."""
    validate(config)
    try:
        envs.spec(config.env)
    except envs.UnknownWorld as error:
        raise ConfigError(f"--env: {error}") from None
    if config.goals:
        check_scored(config.env)
    if envs.spec(config.env).kind == "pixels":
        wanted = rollout_bytes(config)
        if 2 * wanted > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
            key = "batch.size" if config.batch_cap == config.batch.size else "control.max-batch-size"
            raise ConfigError(
                f"--{key}: {config.batch_cap} makes rollouts of {wanted / 2**30:,.0f} GiB, more than fits twice"
            )
        if config.checkpoint.exact_resume:
            _check_generations(config)
    return config


def check_scored(env: str) -> None:
    """ConfigError for a world without returns."""
    if envs.spec(env).endless:
        raise ConfigError(f"--env: episodes of {env} never end, so it has no return; EpisodicBandit and Chain have")


def _check_generations(config: RunConfig) -> None:
    total, every, most = config.total_env_steps, config.checkpoint.every_env_steps, MEASURED_ON - 2
    if total // every > most:
        raise ConfigError(
            f"--checkpoint.every-env-steps: {every} makes {total // every:,} checkpoints, and exact-resume seeds the "
            f"columns anew at each, {most} times at most; the least is {math.ceil(total / most)}"
        )


def make_learner(config: RunConfig) -> Learner:
    """The learner for that world; ConfigError where network, device and world do not fit."""
    world = envs.make_vec(config.env, 1, config.atari, [0])
    shape = (world.frame_shape, world.frame_stack, world.n_actions)
    world.close()
    protocol = envs.protocol(config.env, config.atari)
    try:
        if config.env == "Quadratic":
            return QuadraticLearner(config, quadratic.CURVATURE, quadratic.pushed_minimum, protocol)
        return Learner(config, *shape, env_protocol=protocol)
    except ValueError as error:
        raise ConfigError(f"--{error}") from None


@contextlib.contextmanager
def source(config: RunConfig) -> Iterator[SegmentSource]:
    """`actors` Ray actors in a session of their own (or the cluster that RAY_ADDRESS names); 0: this process."""
    if config.actors == 0:
        local = LocalSource(config)
        try:
            yield local
        finally:
            local.close()
        return
    from rl_gns.distributed import session

    with session.start(config.actors, object_store_bytes(config)):
        from rl_gns.distributed.rollout_actors import RaySource

        remote = RaySource(config, config.actors)
        try:
            yield remote
        finally:
            remote.close()


def object_store_bytes(config: RunConfig) -> int:
    """What is in flight: the frames of a few rollouts and the weights of two versions."""
    return STORE_ROLLOUTS * rollout_bytes(config) + 2 * (8 << 20)


def rollout_bytes(config: RunConfig) -> int:
    """Bytes of the largest rollout of single frames, with the rows' own numbers (about 40 bytes each)."""
    rows, segment = config.batch_cap * config.batch.minibatches, config.batch.segment_steps
    return rows * (config.atari.frame_size**2 + 40) * (segment + 4) // segment
