"""A checkpoint to fork: which one, a copy that outlives its run's pruning, and the state that branches start from.

Copied alike into every branch: weights, optimizer moments, advantage statistics and the learner's random stream, bit
for bit. Not copied: columns. Branches of different batch sizes need different numbers of them, Atari's cannot be saved,
and seeds that shared their columns would not be independent; so all branches get new ones, the reference too, scattered
by the run's rule and burnt in with the forked policy for the same env steps: the law of a column's age is the same in
each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_gns.chaos import ChaosConfig
from rl_gns.checkpoint import read_checkpoint
from rl_gns.config import ConfigError, RunConfig, config_id
from rl_gns.noise.controller import learning_rate
from rl_gns.noise.pooling import Pool
from rl_gns.on_disk import understood
from rl_gns.rundir import RunDir
from rl_gns.study.train import Origin
from rl_gns.trainer import COUNTERS

COPY = "fork"
"""In the directory of branches: the checkpoint that they start from."""


@dataclass(frozen=True)
class Fork:
    """A run at one of its checkpoints."""

    run: Path
    config: RunConfig
    state: dict[str, Any]
    """Its trainer's."""
    digest: str
    """SHA-256 of the checkpoint's files."""

    @property
    def env_steps(self) -> int:
        """E of the run there."""
        return self.state["counters"]["env_steps"]

    @property
    def batch_size(self) -> int:
        """B in use there, env steps."""
        return self.state["control"]["batch_size"]

    @property
    def learning_rate(self) -> float:
        """In use there; branches keep it, whatever the run's schedule."""
        return learning_rate(self.config, self.batch_size, self.env_steps)

    def origin(self, config: RunConfig) -> Origin:
        """Where the branch of that configuration starts: no update yet, its own batch size, new columns."""
        state = {
            "counters": dict.fromkeys(COUNTERS, 0),
            "finished": [],
            "pool": Pool(config.noise.window_env_steps, config.noise.confidence).state(),
            "across": None,
            "control": {"batch_size": config.batch.size},
            "learner": self.state["learner"],
            "source": None,
        }
        return Origin(state, {"forked_from": self.provenance()})

    def provenance(self) -> dict[str, Any]:
        """What the checkpoint is, for those who reproduce a branch."""
        where = {"run": str(self.run), "config_id": config_id(self.config), "checkpoint_sha256": self.digest}
        return {**where, **{name: self.state["counters"][name] for name in ("update", "env_steps", "optimizer_steps")}}


def find_checkpoint(run: Path, at: int, copied_in: Iterable[Path] = ()) -> Path:
    """The newest checkpoint that the run had written by env step `at` (0: of all), its own or one that was copied into
    one of those directories of branches.

    One that the rollout wrote which passed `at` counts as at it. ConfigError, naming the nearest, where there is none.
    """
    config = RunDir(run).config()
    copies = [p for d in copied_in for p in d.glob(f"{COPY}/{config_id(config)}-[0-9]*")]
    there = {int(path.name.rpartition("-")[2]): path for path in (*RunDir(run).checkpoints(), *copies)}
    if not there:
        raise ConfigError(f"{run}: no checkpoint there yet; train it first")
    latest = at + config.batch.rollout_env_steps - 1 if at else max(there)
    if (fitting := [steps for steps in there if steps <= latest]) == []:
        raise ConfigError(
            f"--at: {at:,}: {run} has no checkpoint at or before that; there are {_listed(sorted(there))} "
            "(a run with --checkpoint.keep keeps those that it is told)"
        )
    return there[max(fitting)]


def _listed(steps: list[int]) -> str:
    return ", ".join(f"{each:,}" for each in steps[:4])


def keep_copy(run: Path, checkpoint: Path, directory: Path) -> Path:
    """A copy of the checkpoint in the directory of branches, since a run that goes on deletes its own."""
    final = directory / COPY / f"{config_id(RunDir(run).config())}-{checkpoint.name.rpartition('-')[2]}"
    if final.exists():
        return final
    draft = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        shutil.copytree(checkpoint, draft)
    except (FileNotFoundError, shutil.Error):
        raise ConfigError(f"{checkpoint}: its run deleted it meanwhile; run the same command again") from None
    os.replace(draft, final)
    return final


def read_fork(run: Path, checkpoint: Path) -> Fork:
    """The run as it was when it wrote that checkpoint."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint.iterdir()):
        digest.update(path.read_bytes())
    with understood(checkpoint):
        return Fork(run, RunDir(run).config(), read_checkpoint(checkpoint), digest.hexdigest())


def branch_seed(config: RunConfig, k: int) -> int:
    """The seed of the k-th set of branches: its streams are neither the run's nor another set's."""
    return int(np.random.SeedSequence(config.seed, spawn_key=(6, k)).generate_state(1)[0])


def branch_base(fork: Fork, k: int) -> RunConfig:
    """The run's settings at the fork, of the k-th set of branches: what moves by itself stands still, nothing is
    probed (the weights are the same bits), nothing fails on purpose, no goal ends it, and one learner trains it."""
    config = fork.config
    return dataclasses.replace(
        config,
        seed=branch_seed(config, k),
        goals=(),
        stop_at_goal=False,
        learners=1,
        learner=dataclasses.replace(config.learner, schedule="constant", threads=config.learner.threads or 1),
        noise=dataclasses.replace(config.noise, every=0, across_env_steps=0),
        control=dataclasses.replace(config.control, policy="fixed", learning_rate_rule="none"),
        checkpoint=dataclasses.replace(config.checkpoint, keep=()),
        chaos=ChaosConfig(),
    )
