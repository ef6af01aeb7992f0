"""Small real runs for the tests: real worlds, real learners, seconds."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import torch

from rl_gns.config import RunConfig
from rl_gns.config_file import from_table
from rl_gns.learn.learner import Learner
from rl_gns.records import UpdateRecord, to_json
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import checked, make_learner
from rl_gns.trainer import Trainer

CARTPOLE = {
    "env": "CartPole",
    "total_env_steps": 1500,
    "return_episodes": 10,
    "batch": {"size": 128, "segment_steps": 16, "minibatches": 2, "epochs": 2},
    "rollout": {"columns_per_collector": 4, "scatter_env_steps": 20, "burn_in_env_steps": 0},
    "learner": {"network": "mlp", "learning_rate": 1e-3, "threads": 1, "normaliser_env_steps": 1000},
    "noise": {"every": 1, "groups": 8},
}
PONG = {
    "env": "Pong",
    "total_env_steps": 700,
    "atari": {"frame_size": 42, "max_episode_frames": 160},
    "batch": {"size": 128, "segment_steps": 16, "minibatches": 2, "epochs": 1},
    "rollout": {"columns_per_collector": 4, "scatter_env_steps": 10, "burn_in_env_steps": 0},
    "learner": {"network": "small", "learning_rate": 1e-3, "threads": 1},
    "noise": {"every": 1, "groups": 8},
}
BANDIT = {
    "env": "Bandit",
    "total_env_steps": 20_000,
    "batch": {"size": 512, "segment_steps": 16, "minibatches": 1, "epochs": 1},
    "rollout": {"columns_per_collector": 8, "scatter_env_steps": 0, "burn_in_env_steps": 0},
    "learner": {
        "network": "linear",
        "normaliser": "none",
        "gamma": 0.0,
        "gae_lambda": 0.0,
        "clip_range": 0.0,
        "entropy_coef": 0.0,
        "threads": 1,
    },
    "noise": {"every": 1, "groups": 16},
}
CHAIN = {
    "env": "Chain",
    "batch": {"size": 4096, "segment_steps": 8, "minibatches": 1, "epochs": 1},
    "rollout": {"columns_per_collector": 64, "scatter_env_steps": 20, "burn_in_env_steps": 100},
    "learner": {**BANDIT["learner"], "gamma": 0.9, "gae_lambda": 0.8, "micro_batch": 4096},
    "noise": {"every": 1, "groups": 32},
}


def config(base: dict[str, Any], changes: dict[str, Any] | None = None) -> RunConfig:
    """The base settings with some replaced, nested as in a TOML file."""
    return checked(from_table(changes or {}, from_table(base, RunConfig())))


def trainer(settings: RunConfig) -> Trainer:
    """A trainer whose collectors live in this process."""
    return Trainer(settings, make_learner(settings), LocalSource(settings))


def finished(settings: RunConfig) -> tuple[Trainer, list[UpdateRecord]]:
    """A trainer after its whole run, and the records that it gave."""
    run = trainer(settings)
    return run, list(run.run())


def fingerprint(learner: Learner) -> str:
    """A hash of every weight's bits."""
    digest = hashlib.sha256()
    for name, value in sorted(learner.weights().items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def numbers(record: UpdateRecord | dict[str, Any]) -> dict[str, Any]:
    """A record without its wall-clock fields, at any depth."""
    plain = record if isinstance(record, dict) else to_json(record)
    kept = {k: v for k, v in plain.items() if not k.endswith("seconds")}
    return {k: numbers(v) if isinstance(v, dict) else v for k, v in kept.items()}


def replaced(settings: RunConfig, **changes: Any) -> RunConfig:
    """`dataclasses.replace`, spelt shorter."""
    return dataclasses.replace(settings, **changes)


def with_policy(settings, logits, value):
    """A trainer's state whose linear network gives the d one-hot observations `logits` [d, A] and `value` [d]."""
    run = trainer(settings)
    with torch.no_grad():
        run.learner.network.policy_head.weight.copy_(torch.tensor(logits).T)
        run.learner.network.value_head.weight.copy_(torch.tensor(value)[None])
    return run.state()


def bandit_with_policy(settings, logits, value):
    """`with_policy` for the bandits' one observation: two logits, one value."""
    return with_policy(settings, [logits], [value])
