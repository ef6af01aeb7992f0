"""From a configuration to running parts: the learner, and the source of segments in this process or on Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
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
from rl_gns.study.machine_limits import memory_bytes

if TYPE_CHECKING:
    from rl_gns.distributed.learner_actors import LearnerGroup

STORE_BLOCKS = 5
"""Blocks an actor that the object store holds: one being made, two returned (`crew.IN_FLIGHT`), one being copied, one
of slack. Each is let go once it has been copied to its place."""
NUMBERS_BYTES = 192
"""An env step's numbers beside its frame: 60 in its block, 65 in the batch, and what it is made from meanwhile."""
COLUMN_BYTES = 1.1e6
"""A running Atari game (measured: 8,192 columns took 9 GB)."""
PROCESS_BYTES = 0.5e9
"""A driver, actor or learner with torch, and its part of Ray (measured: 1.5 GB for a driver and two actors)."""


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
    """What this machine holds of a rollout, its processes, and its columns must fit; the learners, columns and trainer
    of a cluster may be on other nodes."""
    on_cluster, several = session.named() is not None, config.learners > 1
    elsewhere = on_cluster and config.actors > 0
    copies = 0.0 if elsewhere and not several else copies_held(config.learners) - (several and on_cluster)
    columns = config.collectors(config.batch_cap) * config.rollout.columns_per_collector
    alive = 0.0 if elsewhere else columns * COLUMN_BYTES
    programs = (1 if on_cluster else 1 + config.actor_cpus + several * config.learners) * PROCESS_BYTES
    rollouts, memory = copies * rollout_bytes(config), memory_bytes()
    if rollouts + programs + alive > memory:
        held = f" ({copies:.3g} copies with {config.learners} learners)" if several else ""
        data = f"rollouts of {rollout_bytes(config) / 2**30:,.0f} GiB{held} on {columns:,} columns of "
        data, of_programs = data + f"{alive / 2**30:,.0f} GiB", f"{programs / 2**30:,.1f} GiB of programs"
        advice = "" if rollouts + programs > memory else "; a larger --rollout.waves keeps fewer columns alive"
        cause = f"--{_cap_key(config)}: {config.batch_cap} makes {data} beside {of_programs}"
        if programs > max(PROCESS_BYTES, rollouts + alive):
            cause = f"{_most_processes(config)} makes {of_programs} beside {data}"
        raise ConfigError(f"{cause}, and this machine allows {memory / 2**30:,.1f}{advice}")


def _most_processes(config: RunConfig) -> str:
    """The flag that asks for the most, with its value."""
    asked = {
        "actors": config.actors,
        "learners": config.learners,
        "rollout.inference-actors": config.rollout.inference_actors,
    }
    name = max(asked, key=lambda each: asked[each])
    return f"--{name}: {asked[name]}"


def copies_held(learners: int) -> float:
    """Of a rollout on one machine: one learner's batch is where the blocks were put. R > 1 have their own, the driver
    has its own, the object store holds what is on its way, and the driver one rank's share of it once more (measured:
    3.5 with 2 learners)."""
    return 1.0 if learners == 1 else 3 + 1 / learners


def idle_actors(config: RunConfig) -> str | None:
    """A line where there are more rollout actors than collectors, even at the largest batch; else None."""
    size, actors = config.batch_cap, config.actors
    if actors <= (collectors := config.collectors(size)):
        return None
    enough = math.ceil(actors * size / (collectors * config.batch_unit)) * config.batch_unit
    made = f"{collectors} collector{'s' * (collectors > 1)}"
    return (
        f"--actors: of {actors} only {collectors} can work, since --{_cap_key(config)} {size} makes {made} of "
        f"{config.rollout.columns_per_collector} columns; the nearest is {collectors}, or a batch of {enough}"
    )


def _cap_key(config: RunConfig) -> str:
    return "batch.size" if config.batch_cap == config.batch.size else "control.max-batch-size"


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
    with session.start(config.actor_cpus + config.learners, object_store_bytes(config)):
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
    if idle := idle_actors(config):
        logging.getLogger(__name__).warning("%s", idle)
    with session.start(config.actor_cpus, object_store_bytes(config)):
        from rl_gns.distributed.rollout_actors import RaySource

        remote = RaySource(config, config.actors)
        try:
            yield remote
        finally:
            remote.close()


def object_store_bytes(config: RunConfig) -> int:
    """What is in flight: a few blocks an actor, however large the rollout, and the weights of two versions; with
    several learners also the shares of a whole rollout, sent to all of them at once, twice for slack."""
    block = rollout_bytes(config) // (config.collectors(config.batch_cap) * config.rollout.waves)
    shares = 2 * rollout_bytes(config) if config.learners > 1 else 0
    return STORE_BLOCKS * max(config.actors, 1) * block + shares + 2 * (8 << 20)


def rollout_bytes(config: RunConfig) -> int:
    """Bytes of the largest rollout of single frames, with the rows' own numbers."""
    rows, segment = config.batch_cap * config.batch.minibatches, config.batch.segment_steps
    return rows * (config.atari.frame_size**2 + NUMBERS_BYTES) * (segment + 4) // segment
