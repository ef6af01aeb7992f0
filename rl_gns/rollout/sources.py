"""Where segments come from: the protocol that the trainer knows, and the source that needs no other process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch

import envs
from rl_gns.config import RunConfig
from rl_gns.learn.model import Weights, one_thread
from rl_gns.rollout.assembly import Assembly, Collected
from rl_gns.rollout.blocks import Asked, layout, wrong
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.generations import Generations


class BadBlock(RuntimeError):
    """A collector of this process gave something else than the block that was asked for."""


class SegmentSource(Protocol):
    """Gives rollouts of whole segments under the last published policy. It never sees a gradient."""

    def publish(self, weights: Weights, version: int) -> None:
        """Make every collector act on these weights from its next block on."""

    def collect(self, n_collectors: int, segment_steps: int) -> Collected:
        """`rollout.waves` segments of T = segment_steps env steps of every column of collectors 0 .. n_collectors - 1;
        waits for all of them."""

    def state(self) -> list[dict[str, Any]] | None:
        """A state a collector, or None where the world cannot be saved."""

    def restore(self, states: list[dict[str, Any]] | None, generation: int) -> None:
        """Go on from `state()`; from None, start every collector anew in this generation."""

    def close(self) -> None:
        """Free what the source holds."""


def local_threads(env: str) -> int:
    """Threads that host the collectors of this world in one process: a core each for pixels (where OMP_NUM_THREADS is
    set, as Ray does in its tasks, so many), else one.

    Emulators free the interpreter lock while they work; on tiny vector worlds a second thread only waits for it
    (measured, 2 Zen 4 cores: Pong 1.4k to 2.9k env steps/s with 2 threads, CartPole 24k to 14k).
    """
    cores = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    return cores if envs.spec(env).kind == "pixels" else 1


class LocalSource:
    """All collectors in this process, each on one thread at a time."""

    def __init__(self, config: RunConfig):
        self._config = config
        self._collectors: list[Collector] = []
        self._generations, self._layout = Generations(), layout(config)
        self._version = -1
        self._weights: Weights = {}
        self._pool = ThreadPoolExecutor(local_threads(config.env), initializer=torch.set_num_threads, initargs=(1,))

    def publish(self, weights: Weights, version: int) -> None:
        self._weights, self._version = weights, version

    def collect(self, n_collectors: int, segment_steps: int) -> Collected:
        with one_thread():
            while len(self._collectors) < n_collectors:
                c = len(self._collectors)
                self._collectors.append(Collector(self._config, c, self._generations.of(c)))
            rollout = Assembly(n_collectors, self._config.rollout.waves, self._version, segment_steps)
            list(self._pool.map(lambda c: self._put_blocks(c, segment_steps, rollout), self._collectors[:n_collectors]))
        return rollout.collected()

    def _put_blocks(self, collector: Collector, segment_steps: int, rollout: Assembly) -> None:
        """All waves of one collector."""
        collector.load(self._weights, self._version)
        for wave in range(self._config.rollout.waves):
            block = collector.collect(segment_steps, wave)
            asked = Asked(collector.collector_id, collector.generation, self._version, segment_steps, wave)
            if (reason := wrong(block, asked, self._layout)) is not None:
                raise BadBlock(f"collector {collector.collector_id} returned {reason}")
            rollout.put(block)
            del block  # before the next one is made

    def state(self) -> list[dict[str, Any]] | None:
        states = [collector.state() for collector in self._collectors]
        return None if any(s is None for s in states) else states

    def restore(self, states: list[dict[str, Any]] | None, generation: int) -> None:
        self._generations.restart(states, generation)
        self._collectors = []
        for collector_id, state in enumerate(states or []):
            collector = Collector(self._config, collector_id, state["generation"])
            collector.restore(state)
            self._collectors.append(collector)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
