"""Worlds whose noise scale is known, and the real pipeline on them under a policy that stands still."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from envs import bandits
from rl_gns.config import RunConfig
from rl_gns.config_file import from_table
from rl_gns.learn.learner import Learner
from rl_gns.records import NoiseScale
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import checked, make_learner
from rl_gns.study.measure import measure
from rl_gns.trainer import Trainer

FROZEN_ENV_STEPS, POOLED_ENV_STEPS = 60_000, 40_000
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
    """[actions, observations]: of the softmax policy."""
    value: list[float]
    """[observations]: of the critic."""
    truth: Callable[[], tuple[float, float]]
    settings: dict[str, Any] = field(default_factory=dict)
    """On top of SETTINGS."""


def _bandit(env: str, logits: tuple[float, float], value: float) -> KnownWorld:
    truth = partial(bandits.true_noise_scale, np.array(logits), value)
    return KnownWorld(f"{env} at {logits}, V = {value:g}", env, [[x] for x in logits], [value], truth)


WORLDS: tuple[KnownWorld, ...] = (_bandit("Bandit", (0.0, 0.0), 0.0), _bandit("EpisodicBandit", (0.5, -0.5), 0.5))


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


def _config(world: KnownWorld, confidence: float) -> RunConfig:
    own = {"env": world.env, "total_env_steps": POOLED_ENV_STEPS, "noise": {"confidence": confidence}}
    config = RunConfig()
    for table in (SETTINGS, own, world.settings):
        config = from_table(table, config)
    return checked(config)


def _learner(config: RunConfig, world: KnownWorld) -> Learner:
    learner = make_learner(config)
    with torch.no_grad():
        learner.network.policy_head.weight.copy_(torch.tensor(world.logits))
        learner.network.value_head.weight.copy_(torch.tensor([world.value]))
    return learner
