"""Collectors hosted by Ray actors. Import this only inside a session (`session.start`), which sets Ray's environment.

    driver                                   actor k of K (one CPU, one thread)
    publish: one ray.put of the weights
    collect: for each collector c:
             call collect(c, weights)  --->  c's Collector loads the weights, steps T env steps
             waits for ALL blocks      <---  one SegmentBlock (arrays go through the object store)
    combine by collector id

Collector c lives on actor c mod K, at most two calls are in flight an actor, and taking the fastest actors first is
never done: it would bias the batch. Which actor hosts a collector changes no number.
"""

from __future__ import annotations

from typing import Any

import ray
import torch

from rl_gns.config import RunConfig
from rl_gns.learn.model import Weights
from rl_gns.records import SegmentBlock
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.sources import Collected, combine

IN_FLIGHT = 2
"""Calls queued on one actor: the next block starts while the last one travels."""


@ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)
class RolloutActor:
    """Hosts some of the collectors, on one thread."""

    def __init__(self, config: RunConfig):
        torch.set_num_threads(1)
        self._config = config
        self._collectors: dict[int, Collector] = {}

    def collect(
        self, collector_id: int, generation: int, weights: Weights, version: int, segment_steps: int
    ) -> SegmentBlock:
        """One block of one collector, which is made at its first call."""
        collector = self._collector(collector_id, generation)
        collector.load(weights, version)
        return collector.collect(segment_steps)

    def _collector(self, collector_id: int, generation: int) -> Collector:
        if collector_id not in self._collectors:
            self._collectors[collector_id] = Collector(self._config, collector_id, generation)
        return self._collectors[collector_id]

    def states(self) -> dict[int, dict[str, Any] | None]:
        """Collector id -> state."""
        return {c: collector.state() for c, collector in self._collectors.items()}

    def restore(self, collector_id: int, generation: int, state: dict[str, Any]) -> None:
        """Let one collector go on from its state."""
        self._collector(collector_id, generation).restore(state)

    def forget(self) -> None:
        """Drop all collectors."""
        self._collectors.clear()


class RaySource:
    """A SegmentSource whose collectors live on K actors."""

    def __init__(self, config: RunConfig, n_actors: int):
        self._actors = [RolloutActor.remote(config) for _ in range(n_actors)]
        self._generation = 0
        self._version = -1
        self._weights: Any = None

    def publish(self, weights: Weights, version: int) -> None:
        """One put a version; the last version's object is freed with its reference."""
        self._weights, self._version = ray.put(weights), version

    def collect(self, n_collectors: int, segment_steps: int) -> Collected:
        waiting = {k: list(range(k, n_collectors, len(self._actors)))[::-1] for k in range(len(self._actors))}
        calls = {}
        for actor, queue in waiting.items():
            for _ in range(min(IN_FLIGHT, len(queue))):
                calls[self._call(queue.pop(), segment_steps)] = actor
        blocks = []
        while calls:
            (done,), _ = ray.wait(list(calls), num_returns=1)
            actor = calls.pop(done)
            blocks.append(ray.get(done))
            if waiting[actor]:
                calls[self._call(waiting[actor].pop(), segment_steps)] = actor
        return combine(blocks, n_collectors, self._version, segment_steps)

    def _call(self, collector_id: int, segment_steps: int) -> ray.ObjectRef:
        actor = self._actors[collector_id % len(self._actors)]
        return actor.collect.remote(collector_id, self._generation, self._weights, self._version, segment_steps)

    def state(self) -> list[dict[str, Any]] | None:
        hosted = ray.get([actor.states.remote() for actor in self._actors])
        states = {c: state for states in hosted for c, state in states.items()}
        return None if any(s is None for s in states.values()) else [states[c] for c in sorted(states)]

    def restore(self, states: list[dict[str, Any]] | None, generation: int) -> None:
        self._generation = states[0]["generation"] if states else generation
        ray.get([actor.forget.remote() for actor in self._actors])
        calls = []
        for c, state in enumerate(states or []):
            calls.append(self._actors[c % len(self._actors)].restore.remote(c, self._generation, state))
        ray.get(calls)

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
