"""The learner: weights, optimizer, advantage statistics; `prepare` a rollout, `probe` it, `update` on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rl_gns.config import RunConfig
from rl_gns.control_channel import ControlMoments, control_law
from rl_gns.learn.batch import Batch, Rows
from rl_gns.learn.gradients import (
    GroupGradients,
    column_groups,
    grams,
    group_gradients,
    micro_batches,
    rows_by_column,
    rows_shuffled,
)
from rl_gns.learn.model import Weights, autocast, get_weights, make_network, resolve_precision
from rl_gns.learn.optimizer import make_optimizer, optimizer_state, restore_optimizer
from rl_gns.learn.ppo import LossSums, loss_sums, rest
from rl_gns.learn.returns import EwmaStatistics
from rl_gns.learn.update_stats import UpdateStats, row_sums, update_stats
from rl_gns.records import GroupMoments, MomentsKey
from rl_gns.segments import SegmentBlock

MOST_BAD_ROWS = 4096
"""Rows of a bad minibatch that are kept: 116 MB of 84 x 84 stacks (a choice)."""


class NonFiniteGradient(RuntimeError):
    """Too many optimizer steps in a row had a gradient that is not finite; the run cannot go on."""


class Learner:
    """Owns everything that an optimizer step reads or writes; knows neither ray nor the disk."""

    def __init__(
        self,
        config: RunConfig,
        frame_shape: tuple[int, ...],
        frame_stack: int,
        n_actions: int,
        env_protocol: str,
    ):
        self.config, self._env_protocol = config, env_protocol
        settings = config.learner
        self.device = _device(settings.device)
        self.precision = resolve_precision(settings.precision, frame_shape, self.device)
        self.threads = settings.threads or int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
        network = make_network(settings.network, frame_shape, frame_stack, n_actions, config.seed)
        self.network = network.to(self.device)
        self.optimizer = make_optimizer(settings.optimizer, self.network, settings.learning_rate)
        self.statistics = EwmaStatistics(settings.normaliser_env_steps)
        self.version = 0
        self.skipped_steps = 0
        self.bad_rows: dict[str, np.ndarray] | None = None
        """Rows of the first minibatch whose gradient was not finite, for a post-mortem."""
        self._skipped_in_a_row = 0
        self._rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(1,)))

    def weights(self) -> Weights:
        """What the collectors need of this version; NonFiniteGradient where they have diverged."""
        weights = get_weights(self.network)
        if not all(np.isfinite(w).all() for w in weights.values()):
            rate = self.optimizer.param_groups[0]["lr"]
            raise NonFiniteGradient(f"the weights are no longer finite; learner.learning-rate is {rate:g}")
        return weights

    def prepare(self, blocks: Sequence[SegmentBlock]) -> Batch:
        """One rollout as a batch whose advantage statistics are frozen before anything is differentiated."""
        settings = self.config.learner
        torch.set_num_threads(self.threads)
        batch = Batch.from_blocks(blocks, settings.gamma, settings.gae_lambda, self.device)
        name, mean, std = self._normaliser(batch)
        return batch.scaled(name, mean, std)

    def _normaliser(self, batch: Batch) -> tuple[str, float, float]:
        """(name, mean, std). Before the first rollout the ewma is empty: that rollout scales itself, as `rollout`."""
        wanted = self.config.learner.normaliser
        if wanted == "none":
            return wanted, 0.0, 1.0
        if wanted == "ewma" and (known := self.statistics.mean_std()) is not None:
            return wanted, *known
        return "rollout", *self._advantage_mean_std(batch)

    def _advantage_mean_std(self, batch: Batch) -> tuple[float, float]:
        """Of the unscaled advantages of the whole rollout."""
        advantages = batch.advantages().astype(np.float64)
        return float(advantages.mean()), float(advantages.std())

    def probe(self, batch: Batch) -> GroupMoments:
        """The moments of the groups' gradients at the collecting weights; changes nothing."""
        return self.moments(batch, self.group_gradients(batch))

    def group_gradients(self, batch: Batch) -> GroupGradients:
        """The groups' mean gradients themselves, for measurements that keep their sums."""
        return self._gradients_of(batch, rows_by_column(batch, self.config.noise.groups))

    def shuffled_gradients(self, batch: Batch, rng: np.random.Generator) -> GroupGradients:
        """Those of as many groups of shuffled transitions, which read too little noise: for the design effect."""
        return self._gradients_of(batch, rows_shuffled(batch, self.config.noise.groups, rng))

    def _gradients_of(self, batch: Batch, groups: list[np.ndarray]) -> GroupGradients:
        return group_gradients(self.network, batch, groups, self.config.learner, self.precision)

    def moments(self, batch: Batch, gradients: GroupGradients) -> GroupMoments:
        """Those gradients' dot products, with the key that says what they may be pooled with."""
        return self._moments(batch, gradients, grams(gradients), {})

    def _moments(
        self,
        batch: Batch,
        gradients: GroupGradients,
        gram: dict[str, np.ndarray],
        norms_dots: dict[str, np.ndarray],
    ) -> GroupMoments:
        return GroupMoments(
            gram=gram,
            env_steps=gradients.env_steps,
            key=self._key(batch),
            policy_version=self.version,
            max_ratio_error=gradients.max_ratio_error,
            batch_size=len(batch.valid) // self.config.batch.minibatches,
            control=self._control(batch, gradients),
            norms_dots=norms_dots,
        )

    def _control(self, batch: Batch, gradients: GroupGradients) -> ControlMoments | None:
        """What was found beside what is known of whole columns, whatever the rows were grouped by."""
        law = control_law(self.config)
        if law is None or not gradients.control.size:
            return None
        groups = column_groups(batch.n_columns, self.config.noise.groups)
        return ControlMoments(
            gradients.control @ gradients.control.T, law.group_variance(batch.column_env_steps, groups)
        )

    def _key(self, batch: Batch) -> MomentsKey:
        settings, sizes = self.config.learner, self.config.batch
        return MomentsKey(
            env=self._env_protocol,
            segment_steps=batch.segment_steps,
            waves=batch.waves,
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
            normaliser=batch.normaliser,
            epochs=sizes.epochs,
            minibatches=sizes.minibatches,
            minibatch_by=sizes.minibatch_by,
            value_coef=settings.value_coef,
            entropy_coef=settings.entropy_coef,
            network=settings.network,
            precision=self.precision,
        )

    def update(self, batch: Batch, learning_rate: float) -> UpdateStats:
        """All epochs over a rollout; afterwards the rollout joins the advantage statistics."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        steps = [
            self._step(batch, index) for _ in range(self.config.batch.epochs) for index in self._minibatches(batch)
        ]
        self._join_statistics(batch)
        self.version += 1
        return update_stats([s for s in steps if s is not None], self._explained_variance(batch))

    def _join_statistics(self, batch: Batch) -> None:
        self.statistics.add(batch.advantages())

    def _explained_variance(self, batch: Batch) -> float | None:
        target = batch.columns["target"].cpu().numpy()[batch.valid]
        spread = float(target.var())
        return 1 - float(batch.advantages().var()) / spread if spread > 0 else None

    def _minibatches(self, batch: Batch) -> list[np.ndarray]:
        pieces = self.config.batch.minibatches
        if self.config.batch.minibatch_by == "columns":
            order = self._rng.permutation(batch.n_columns)
            return [batch.rows_of_columns(columns) for columns in np.array_split(order, pieces)]
        return np.array_split(self._rng.permutation(batch.valid_rows()), pieces)

    def _step(self, batch: Batch, index: np.ndarray) -> dict[str, float] | None:
        """One optimizer step on the mean gradient of those rows; None where it had to be skipped."""
        self.optimizer.zero_grad(set_to_none=True)
        sums = self._backward(batch, index, len(index))
        limit = self.config.learner.max_grad_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        if not np.isfinite(norm):
            return self._skip(batch, index[:MOST_BAD_ROWS])
        self._skipped_in_a_row = 0
        self.optimizer.step()
        means = {name: value / len(index) for name, value in sums.items()}
        return means | {"rows": len(index), "grad_norm": norm, "grad_clipped": float(norm > limit)}

    def _backward(self, batch: Batch, index: np.ndarray, minibatch_rows: int) -> dict[str, float]:
        """Leave the minibatch's gradient in `.grad`; the loss terms summed over its rows."""
        pieces = micro_batches(batch, index, self.config.learner.micro_batch)
        return row_sums([self._accumulate(rows, minibatch_rows) for rows in pieces])

    def _accumulate(self, rows: Rows, minibatch_rows: int) -> LossSums:
        with autocast(self.precision, self.device):
            logits, value = self.network(rows.observation)
        sums = loss_sums(logits, value, rows, self.config.learner)
        ((sums.policy + rest(sums, self.config.learner)) / minibatch_rows).backward()
        return LossSums(**{name: term.detach() for name, term in vars(sums).items()})  # the graph goes

    def _skip(self, batch: Batch, index: np.ndarray) -> None:
        self.skipped_steps += 1
        self._skipped_in_a_row += 1
        if self.bad_rows is None:
            rows = batch.rows(index)
            self.bad_rows = {name: getattr(rows, name).cpu().numpy() for name in Rows.__dataclass_fields__}
        if self._skipped_in_a_row >= self.config.learner.max_skipped_steps:
            raise NonFiniteGradient(
                f"{self._skipped_in_a_row} optimizer steps in a row had a gradient that is not finite "
                f"(learner.max-skipped-steps); learner.learning-rate is {self.optimizer.param_groups[0]['lr']:g}"
            )

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs: arrays and plain JSON values."""
        return {
            "network": self.weights(),
            "optimizer": optimizer_state(self.optimizer),
            "statistics": self.statistics.state(),
            "version": self.version,
            "skipped_steps": self.skipped_steps,
            "skipped_in_a_row": self._skipped_in_a_row,
            "rng": self._rng.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.load_policy(state)
        restore_optimizer(self.optimizer, state["optimizer"])
        self.skipped_steps, self._skipped_in_a_row = state["skipped_steps"], state["skipped_in_a_row"]
        self._rng.bit_generator.state = state["rng"]

    def load_policy(self, state: dict[str, Any]) -> None:
        """The weights and the advantage statistics of `state()`, without the optimizer: enough to measure. ValueError
        where the weights are another network's."""
        weights = {k: torch.from_numpy(np.array(v)) for k, v in state["network"].items()}
        there, here = ({k: tuple(v.shape) for k, v in each.items()} for each in (weights, self.network.state_dict()))
        if other := dict(there.items() ^ here.items()):
            raise ValueError(f"weights of another network: {', '.join(sorted(other))}")
        self.network.load_state_dict(weights)
        self.statistics.restore(state["statistics"])
        self.version = state["version"]


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("learner.device: 'cuda' is not here (torch sees no GPU); the nearest is cpu")
    return wanted
