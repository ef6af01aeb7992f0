"""Worlds whose noise scale is known, and the real pipeline on them under a policy that stands still."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from envs import bandits, chain_truth
from rl_gns.config import RunConfig
from rl_gns.config_file import from_table
from rl_gns.learn.learner import Learner
from rl_gns.noise.pooling import Pool
from rl_gns.records import NoiseScale
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import checked, make_learner
from rl_gns.study.measure import measure
from rl_gns.trainer import Trainer

FROZEN_ENV_STEPS, POOLED_ENV_STEPS = 60_000, 40_000
SHUFFLED_ROLLOUTS = 60
SETTINGS = {
    "batch": {"size": 512, "segment_steps": 16, "minibatches": 1, "epochs": 1},
    "rollout": {"columns_per_collector": 8, "scatter_env_steps": 0, "burn_in_env_steps": 0},
    "learner": {
        "network": "linear",
        "normaliser": "none",
        "gamma": 0.0,
        "gae_lambda": 0.0,
        "clip_range": 0.0,
        "entropy_coef": 0.0,
        "learning_rate": 1e-12,
        "threads": 1,
    },
    "noise": {"every": 1, "groups": 16},
}
"""Tabular: a linear network without bias on one-hot observations has the parameters of the closed forms."""


@dataclass(frozen=True)
class KnownWorld:
    """A world, a policy on it, and what its gradient's signal_sq and noise_trace (per env step) are."""

    name: str
    env: str
    logits: list[list[float]]
    """[observations, actions]: of the softmax policy."""
    value: list[float]
    """[observations]: of the critic."""
    truth: Callable[[], tuple[float, float]]
    settings: dict[str, Any] = field(default_factory=dict)
    """On top of SETTINGS."""


def _bandit(env: str, logits: tuple[float, float], value: float) -> KnownWorld:
    truth = partial(bandits.true_noise_scale, np.array(logits), value, bandits.ARMS[env])
    return KnownWorld(f"{env} at {logits}, V = {value:g}", env, [list(logits)], [value], truth)


CHAIN_LOGITS = [[0.5, 0.0, -0.5], [-0.6, 0.2, 0.4], [0.8, -0.3, 0.1], [0.0, 0.7, -0.9]]
CHAIN_VALUE = [0.9, -0.4, 0.2, 1.0]
"""A critic that is off, so that the bias of generalised advantages is part of the truth."""
CHAIN_SETTINGS = {
    "batch": {"size": 1024, "segment_steps": 8},
    "rollout": {"columns_per_collector": 64, "scatter_env_steps": 20, "burn_in_env_steps": 100},
    "learner": {"gamma": 0.9, "gae_lambda": 0.8, "micro_batch": 1024},
}
"""Segments shorter than an episode (at most 12 env steps), columns spread over it."""


def _chain_truth() -> tuple[float, float]:
    learner, batch = CHAIN_SETTINGS["learner"], CHAIN_SETTINGS["batch"]
    horizon = (learner["gamma"], learner["gae_lambda"], batch["segment_steps"])
    known = chain_truth.true_noise_scale(np.array(CHAIN_LOGITS), np.array(CHAIN_VALUE), *horizon)
    return known.signal_sq, known.noise_trace


ECHOED = _bandit("EchoedBandit", (0.0, 0.0), 0.0)
WORLDS: tuple[KnownWorld, ...] = (
    _bandit("Bandit", (0.0, 0.0), 0.0),
    _bandit("EpisodicBandit", (0.5, -0.5), 0.5),
    ECHOED,
    KnownWorld("Chain", "Chain", CHAIN_LOGITS, CHAIN_VALUE, _chain_truth, CHAIN_SETTINGS),
)


def frozen_scale_of(world: KnownWorld, confidence: float) -> NoiseScale:
    """The policy part of `measure` on that policy."""
    config = _config(world, confidence)
    state = {"learner": _learner(config, world).state(), "counters": {"env_steps": 0, "update": 0}}
    return measure(config, FROZEN_ENV_STEPS, precision=0.0, state=state).noise["policy"]


def pooled_scale_of(world: KnownWorld, confidence: float) -> NoiseScale:
    """The policy part of the pool of a training run whose learning rate moves nothing that can be seen."""
    config = _config(world, confidence)
    segments = LocalSource(config)
    try:
        *_, last = Trainer(config, _learner(config, world), segments).run()
    finally:
        segments.close()
    return last.noise["policy"]


def shuffled_scale_of(world: KnownWorld, confidence: float) -> NoiseScale:
    """What `pooled_scale_of` would read with groups of shuffled transitions: for the negative control."""
    config, rng = _config(world, confidence), np.random.default_rng(0)
    learner, segments, pooled = _learner(config, world), LocalSource(config), Pool(None, confidence)
    segments.publish(learner.weights(), learner.version)
    try:
        for _ in range(SHUFFLED_ROLLOUTS):
            blocks = segments.collect(config.collectors(config.batch.size), config.batch.segment_steps).blocks
            batch = learner.prepare(blocks)
            pooled.add(learner.moments(batch, learner.shuffled_gradients(batch, rng)), 0)
    finally:
        segments.close()
    return pooled.noise_scales()["policy"]


def _config(world: KnownWorld, confidence: float) -> RunConfig:
    own = {"env": world.env, "total_env_steps": POOLED_ENV_STEPS, "noise": {"confidence": confidence}}
    config = RunConfig()
    for table in (SETTINGS, own, world.settings):
        config = from_table(table, config)
    return checked(config)


def _learner(config: RunConfig, world: KnownWorld) -> Learner:
    learner = make_learner(config)
    with torch.no_grad():
        learner.network.policy_head.weight.copy_(torch.tensor(world.logits).T)
        learner.network.value_head.weight.copy_(torch.tensor([world.value]))
    return learner
