"""The parts of a rollout, each measured alone: emulation, inference, the learner, and the bytes of a block.

All are per valid env step: the rows that autoresets take cost time and bytes, and no rate counts them.
"""

from __future__ import annotations

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from rl_gns.config import RunConfig
from rl_gns.learn.learner import Learner
from rl_gns.learn.model import one_thread
from rl_gns.rollout.assembly import Assembly
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.sources import local_threads
from rl_gns.segments import SegmentBlock
from rl_gns.study.build import make_learner


class Components:
    """Collectors and a learner of their own, and one real rollout of them, all in this process."""

    def __init__(self, config: RunConfig):
        self._config, self.learner = config, make_learner(config)
        self._steps = config.batch.segment_steps
        threads = config.actors or local_threads(config.env)
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self._rng = [np.random.default_rng(c) for c in range(config.columns)]
        with one_thread():
            self.collectors = [Collector(config, c) for c in range(config.collectors(config.batch.size))]
            self.blocks = list(self._pool.map(self._block, self.collectors))
        self.rollout = _assembled(self.blocks)
        self._state = self.learner.state()

    def _block(self, collector: Collector) -> SegmentBlock:
        collector.load(self.learner.weights(), self.learner.version)
        return collector.collect(self._steps)

    @property
    def env_steps(self) -> int:
        """Valid env steps of the collected rollout."""
        return sum(int(block.valid.sum()) for block in self.blocks)

    @property
    def valid_share(self) -> float:
        """Of the rollout's rows."""
        return self.env_steps / sum(block.valid.size for block in self.blocks)

    def emulation(self, rollouts: int) -> float:
        """Valid env steps a second of the worlds alone, under uniformly random legal actions."""
        return self._rate(self._walk, rollouts)

    def _walk(self, collector: Collector) -> int:
        world, rng = collector.world, self._rng[collector.collector_id]
        actions = rng.integers(world.n_actions, size=(self._steps, world.n_columns))
        return sum(int(world.step(action).valid.sum()) for action in actions)

    def inference(self, rollouts: int) -> float:
        """Valid env steps a second of the collectors' own forward pass: T of a block and one for its last value."""
        return self._rate(self._infer, rollouts) * self.valid_share

    def _infer(self, collector: Collector) -> int:
        """Rows; the very call that collecting makes: precision, layout and checks included."""
        for _ in range(self._steps + 1):
            collector._policy.infer(collector._observation)
        return self._steps * collector.world.n_columns

    def _rate(self, work: Any, rollouts: int) -> float:
        """Sum of what `work` counts over all collectors and rollouts, a second; a rollout waits for its slowest."""
        with one_thread():
            start = time.perf_counter()
            done = sum(sum(self._pool.map(work, self.collectors)) for _ in range(rollouts))
            return done / (time.perf_counter() - start)

    def learner_epochs(self, rollouts: int) -> float:
        """Valid rows a second of one epoch: epochs x valid env steps over the seconds of `prepare` and `update`.
        Copying the blocks into one array is the source's work, and not in it.

        Each update starts from the same weights, so that all do the same work.
        """
        seconds = sum(self._update_seconds(self.learner) for _ in range(rollouts))
        return self._config.batch.epochs * self.env_steps * rollouts / seconds

    def _update_seconds(self, learner: Learner) -> float:
        learner.restore(self._state)
        start = time.perf_counter()
        learner.update(learner.prepare(self.rollout), self._config.learner.learning_rate)
        return time.perf_counter() - start

    def bytes_per_env_step(self) -> float:
        """Bytes of the rollout's blocks as they are put into an object store, over its valid env steps.

        The published weights are not in it: they travel once a rollout, whatever its size.
        """
        return sum(map(serialised_bytes, self.blocks)) / self.env_steps

    def close(self) -> None:
        """End the threads and the worlds."""
        self._pool.shutdown()
        for collector in self.collectors:
            collector.world.close()


def _assembled(blocks: list[SegmentBlock]) -> list[SegmentBlock]:
    """The blocks as a source hands them over: copied to their places in one array."""
    rollout = Assembly(len(blocks), 1, blocks[0].policy_version, len(blocks[0].action))
    for block in blocks:
        rollout.put(block)
    return rollout.collected().blocks


def serialised_bytes(block: SegmentBlock) -> int:
    """Pickle protocol 5, as Ray serialises: what stays in the stream, and the arrays beside it."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(block, protocol=5, buffer_callback=buffers.append)
    return len(stream) + sum(buffer.raw().nbytes for buffer in buffers)
