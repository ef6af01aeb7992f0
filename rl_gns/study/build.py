"""From a configuration to running parts: the learner, and the source of segments in this process or on Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import envs
from envs import quadratic
from rl_gns.config import ConfigError, RunConfig
from rl_gns.config_rules import validate
from rl_gns.distributed import session
from rl_gns.learn.learner import Learner
from rl_gns.learn.quadratic import QuadraticLearner
from rl_gns.rollout.generations import MEASURED_ON
from rl_gns.rollout.sources import LocalSource, SegmentSource

if TYPE_CHECKING:
    from rl_gns.distributed.learner_actors import LearnerGroup

STORE_BLOCKS = 5
"""Blocks an actor that the object store holds: one being made, two returned (`crew.IN_FLIGHT`), one being copied, one
of slack. Each is let go once it has been copied to its place."""
NUMBERS_BYTES = 192
"""An env step's numbers beside its frame: 60 in its block, 65 in the batch, and what it is made from meanwhile."""
COLUMN_BYTES = 1.1e6
"""A running Atari game (measured: 8,192 columns took 9 GB)."""


def checked(config: RunConfig, several_learners: bool = False) -> RunConfig:
    """The configuration, if a run can be built from it; ConfigError in one line otherwise. `several_learners`: the verb
    can train with more than one."""
    validate(config)
    if config.learners > 1 and not several_learners:
        raise ConfigError(f"--learners: {config.learners} can only train; the nearest for this verb is 1")
    if config.learners > 1 and config.env == "Quadratic":
        raise ConfigError(f"--learners: {config.learners} do not fit the Quadratic, whose loss is its own; 1 fits")
    try:
        envs.spec(config.env)
    except envs.UnknownWorld as error:
        raise ConfigError(f"--env: {error}") from None
    if config.goals:
        check_scored(config.env)
    if envs.spec(config.env).kind == "pixels":
        _check_memory(config)
        if config.checkpoint.exact_resume:
            _check_generations(config)
    return config


def _check_memory(config: RunConfig) -> None:
    """One copy of the frames, and the columns unless they are on a cluster's other nodes, must fit on this machine."""
    key = "batch.size" if config.batch_cap == config.batch.size else "control.max-batch-size"
    columns = config.collectors(config.batch_cap) * config.rollout.columns_per_collector
    elsewhere = config.actors > 0 and session.named() is not None
    alive = 0.0 if elsewhere else columns * COLUMN_BYTES
    wanted, memory = rollout_bytes(config), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted + alive > memory:
        advice = "" if wanted > memory else "; a larger --rollout.waves keeps fewer columns alive"
        raise ConfigError(
            f"--{key}: {config.batch_cap} makes rollouts of {wanted / 2**30:,.0f} GiB on {columns:,} columns of "
            f"{alive / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f}{advice}"
        )


def check_scored(env: str) -> None:
    """ConfigError for a world without returns."""
    if envs.spec(env).endless:
        raise ConfigError(f"--env: episodes of {env} never end, so it has no return; EpisodicBandit and Chain have")


def _check_generations(config: RunConfig) -> None:
    total, every, most = config.total_env_steps, config.checkpoint.every_env_steps, MEASURED_ON - 2
    kept = len({at for at in config.checkpoint.keep if at <= total and at % every})
    if kept > most:
        raise ConfigError(f"--checkpoint.keep: {kept} checkpoints, and exact-resume has seeds for {most}; give fewer")
    if total // every + kept > most:
        beside = f" beside {kept} that are kept" if kept else ""
        raise ConfigError(
            f"--checkpoint.every-env-steps: {every} makes {total // every:,} checkpoints{beside}, and exact-resume "
            f"seeds the columns anew at each, {most} times at most; the least is {total // (most - kept + 1) + 1}"
        )


def make_learner(config: RunConfig) -> Learner:
    """The learner for that world (of several, one like them, on the CPU); ConfigError where network, device and world
    do not fit."""
    if config.learners > 1:
        config = dataclasses.replace(config, learner=dataclasses.replace(config.learner, device="cpu"))
    world = _world(config)
    try:
        if config.env == "Quadratic":
            return QuadraticLearner(config, quadratic.CURVATURE, quadratic.pushed_minimum, world[-1])
        return Learner(config, *world)
    except ValueError as error:
        raise ConfigError(f"--{error}") from None


def _world(config: RunConfig) -> tuple[tuple[int, ...], int, int, str]:
    """What a learner must know: frame_shape, frame_stack, n_actions, protocol."""
    world = envs.make_vec(config.env, 1, config.atari, [0])
    shape = (world.frame_shape, world.frame_stack, world.n_actions)
    world.close()
    return *shape, envs.protocol(config.env, config.atari)


@contextlib.contextmanager
def learners(config: RunConfig, one: Learner) -> Iterator[Learner | LearnerGroup]:
    """What trains: `one`, or `config.learners` Ray actors like it, in the session that the source shall use too."""
    if config.learners == 1:
        yield one
        return
    with session.start(config.actor_cpus + config.learners, object_store_bytes(config) + 2 * rollout_bytes(config)):
        from rl_gns.distributed.learner_actors import LearnerGroup

        group = LearnerGroup(config, _world(config), one.threads)
        try:
            yield group
        finally:
            group.close()


def on_cpu(config: RunConfig) -> RunConfig:
    """The same with its learner on the CPU: to be checked in a process that needs no GPU."""
    return dataclasses.replace(config, learner=dataclasses.replace(config.learner, device="cpu"))


@contextlib.contextmanager
def source(config: RunConfig) -> Iterator[SegmentSource]:
    """Ray actors in a session of their own (or the cluster that RAY_ADDRESS names); 0: this process."""
    if config.actors == 0:
        local = LocalSource(config)
        try:
            yield local
        finally:
            local.close()
        return
    with session.start(config.actor_cpus, object_store_bytes(config)):
        from rl_gns.distributed.rollout_actors import RaySource

        remote = RaySource(config, config.actors)
        try:
            yield remote
        finally:
            remote.close()


def object_store_bytes(config: RunConfig) -> int:
    """What is in flight: a few blocks an actor, however large the rollout, and the weights of two versions."""
    block = rollout_bytes(config) // (config.collectors(config.batch_cap) * config.rollout.waves)
    return STORE_BLOCKS * max(config.actors, 1) * block + 2 * (8 << 20)


def rollout_bytes(config: RunConfig) -> int:
    """Bytes of the largest rollout of single frames, with the rows' own numbers."""
    rows, segment = config.batch_cap * config.batch.minibatches, config.batch.segment_steps
    return rows * (config.atari.frame_size**2 + NUMBERS_BYTES) * (segment + 4) // segment
