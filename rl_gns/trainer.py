"""The training loop on one screen: publish, collect, probe, update, estimate, control, record.

The trainer knows no terminal, no disk and no ray: it is given a source of segments and yields UpdateRecords. What a
resumed run needs is in `state()`; whoever drains the loop decides when to ask for it.
"""

from __future__ import annotations

import dataclasses
import operator
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_gns.config import RunConfig
from rl_gns.learn.learner import Learner
from rl_gns.noise.across import Across
from rl_gns.noise.controller import Observation, decide, initial
from rl_gns.noise.moments import signal_and_trace
from rl_gns.noise.pooling import Pool
from rl_gns.records import PARTS, GroupMoments, NoiseScale, UpdateRecord

if TYPE_CHECKING:
    from rl_gns.learn.batch import Batch
    from rl_gns.learn.update_stats import UpdateStats
    from rl_gns.rollout.sources import Collected, SegmentSource

CONTROL = ("batch_size",)
Estimates = dict[str, dict[str, NoiseScale] | None]
"""Estimator (`updates`, `across`) -> part -> noise scale; None where there is none yet."""
COUNTERS = ("update", "env_steps", "optimizer_steps", "episodes", "generation", "reseeded_columns")


class Trainer:
    """One run: a learner, a source, the pooled noise scale, and the counters S and E."""

    def __init__(self, config: RunConfig, learner: Learner, source: SegmentSource):
        self.config, self.learner, self._source = config, learner, source
        self.update = self.env_steps = self.optimizer_steps = self.episodes = self.generation = 0
        self.reseeded_columns = 0
        self._pool = Pool(config.noise.window_env_steps, config.noise.confidence)
        across = config.noise.across_env_steps
        self._across = Across(across, config.noise.confidence, config.seed) if across else None
        self._control = initial(config)
        self._update_seconds: float | None = None
        self._finished: deque[tuple[float, int]] = deque(maxlen=config.return_episodes)

    def run(self) -> Iterator[UpdateRecord]:
        """Train until the budget is spent, one record a rollout; whoever drains the loop may stop earlier."""
        noise = self._noise_scales()
        while not self.over():
            clock = Clock()
            self._control, batch_size, learning_rate = decide(self._control, self._observe(noise))
            self._source.publish(self.learner.weights(), self.learner.version)
            collected = self._source.collect(self.config.collectors(batch_size), self.config.batch.segment_steps)
            batch = self.learner.prepare(collected.blocks)
            clock.lap("collect")
            moments = self._probe(batch) if self._probe_is_due() else None
            clock.lap("probe")
            stats = self.learner.update(batch, learning_rate)
            clock.lap("update")
            self._update_seconds = clock.seconds()["update_seconds"] / max(stats.optimizer_steps, 1)
            self._count(batch, collected, stats)
            noise = self._estimate(moments)
            record = self._record(learning_rate, batch, collected, moments, noise, stats, clock)
            del batch, collected  # before the next rollout: the frames of one at a time
            yield record

    def over(self) -> bool:
        """The budget is spent."""
        return self.env_steps >= self.config.total_env_steps

    def return_mean(self) -> float | None:
        """Mean raw return of the last `return_episodes` finished episodes."""
        return float(np.mean([r for r, _ in self._finished])) if self._finished else None

    def _probe_is_due(self) -> bool:
        return self.config.noise.every > 0 and self.update % self.config.noise.every == 0

    def _probe(self, batch: Batch) -> GroupMoments:
        """Moments for the pool; the gradients, 2 x J x P numbers, enter the sums across rollouts and are let go."""
        if not self._across:
            return self.learner.probe(batch)
        gradients = self.learner.group_gradients(batch)
        moments = self.learner.moments(batch, gradients)
        self._across.add(gradients.parts(), moments, self.env_steps + batch.env_steps)
        return moments

    def _estimate(self, moments: GroupMoments | None) -> Estimates:
        if moments is not None:
            self._pool.add(moments, self.env_steps)
        return self._noise_scales()

    def _noise_scales(self) -> Estimates:
        across = self._across.noise_scales() if self._across else None
        return {"updates": self._pool.noise_scales(), "across": across}

    def _observe(self, noise: Estimates) -> Observation:
        followed = noise[self.config.control.estimator]
        part = followed[self.config.control.part] if followed else None
        return Observation(part, self.env_steps, self.optimizer_steps, self.return_mean(), self._update_seconds)

    def _count(self, batch: Batch, collected: Collected, stats: UpdateStats) -> None:
        for block in collected.blocks:
            self.episodes += len(block.episode_returns)
            self.generation = max(self.generation, block.generation)
            self._finished.extend(zip(block.episode_returns.tolist(), block.episode_lengths.tolist(), strict=True))
        self.env_steps += batch.env_steps
        self.optimizer_steps += stats.optimizer_steps
        self.update += 1

    def _record(
        self,
        learning_rate: float,
        batch: Batch,
        collected: Collected,
        moments: GroupMoments | None,
        noise: Estimates,
        stats: UpdateStats,
        clock: Clock,
    ) -> UpdateRecord:
        rows = len(batch.valid)
        signal, trace = single_rollout(moments)
        return UpdateRecord(
            **vars(stats) | {"optimizer_steps": self.optimizer_steps},
            update=self.update - 1,
            env_steps=self.env_steps,
            batch_size=self._control.batch_size,
            columns=batch.n_columns,
            requested_env_steps=self._control.batch_size * self.config.batch.minibatches,
            collected_env_steps=rows,
            masked_env_steps=rows - batch.env_steps,
            burn_in_env_steps=sum(b.burn_in_env_steps for b in collected.blocks),
            used_env_steps=batch.env_steps,
            late_blocks=collected.late_blocks,
            refused_blocks=collected.refused_blocks,
            replaced_actors=collected.replaced_actors,
            faults=list(collected.faults),
            generation=max(b.generation for b in collected.blocks),
            learning_rate=learning_rate,
            decision=self._control.decision,
            return_mean=self.return_mean(),
            return_episodes=len(self._finished),
            episodes=self.episodes,
            reseeded_columns=self.reseeded_columns,
            exact_resume=self.config.checkpoint.exact_resume,
            episode_length_mean=float(np.mean([n for _, n in self._finished])) if self._finished else None,
            advantage_mean=batch.mean,
            advantage_std=batch.std,
            skipped_steps=self.learner.skipped_steps,
            probe_max_ratio_error=moments.max_ratio_error if moments else None,
            probe_signal_sq=signal,
            probe_noise_trace=trace,
            probe_groups=moments.n_groups if moments else None,
            probes_left_out=sum(self._pool.skipped.values()),
            noise=noise["updates"],
            noise_across=noise["across"],
            **vars(self._pool.control()),
            evaluation_return=None,
            evaluation_env_steps=None,
            **clock.seconds(),
        )

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, between two rollouts: arrays and plain JSON values."""
        counters = {name: getattr(self, name) for name in COUNTERS}
        return {
            "counters": counters,
            "finished": [list(pair) for pair in self._finished],
            "pool": self._pool.state(),
            "across": self._across.state() if self._across else None,
            "control": {name: getattr(self._control, name) for name in CONTROL},
            "learner": self.learner.state(),
            "source": self._source.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`; worlds that cannot be saved start anew, in a generation after all that were used. What
        no `state()` holds raises what Python does where it is met: here, as far as it can be seen."""
        for name in COUNTERS:
            setattr(self, name, operator.index(state["counters"][name]))
        self._finished.extend((r, n) for r, n in state["finished"])
        self._pool = Pool.from_state(state["pool"])
        self._across = Across.from_state(state["across"]) if state["across"] else None
        self._control = dataclasses.replace(self._control, **state["control"])
        if not 0 < operator.index(self._control.batch_size) <= self.config.batch_cap:
            raise ValueError(f"a batch size of {self._control.batch_size}")
        self._noise_scales()
        self.learner.restore(state["learner"])
        if state["source"] is None:
            self.reseed()
        else:
            self._source.restore(state["source"], generation=self.generation + 1)

    def reseed(self) -> None:
        """Start every column anew, in a generation after all that were used. Episodes under way end there: segments end
        at a rollout's end anyway, with the value of their last observation, and no return counts the rest."""
        collectors = self.config.collectors(self._control.batch_size)
        self.reseeded_columns += collectors * self.config.rollout.columns_per_collector
        self._source.restore(None, generation=self.generation + 1)


def single_rollout(moments: GroupMoments | None) -> tuple[dict[str, float] | None, dict[str, float] | None]:
    """(part -> signal_sq, part -> noise_trace) of one probe; None where there was none or it was not finite."""
    if moments is None or not (moments.env_steps > 0).all() or moments.n_groups < 2:
        return None, None
    if not moments.finite:
        return None, None
    pairs = {part: signal_and_trace(moments, part) for part in PARTS}
    return {part: p[0] for part, p in pairs.items()}, {part: p[1] for part, p in pairs.items()}


class Clock:
    """Seconds of one rollout, lap by lap."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """The time since the last lap was spent on `name`."""
        now = time.perf_counter()
        self._laps[f"{name}_seconds"] = now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """The laps, and the whole."""
        return self._laps | {"seconds": time.perf_counter() - self._start}
