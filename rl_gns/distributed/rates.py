"""How fast this machine hosts collectors on Ray, and how fast one driver handles what they send.

Import this only inside a session. The driver is timed on its own `Crew` of K places, all of which are one actor that
answers at once: what a place costs does not depend on whether a process stands behind each.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from rl_gns.config import RunConfig
from rl_gns.distributed.crew import Ask, Costs, Crew
from rl_gns.distributed.rollout_actors import CollectorHost
from rl_gns.learn.model import Weights
from rl_gns.rollout.assembly import Assembly
from rl_gns.rollout.blocks import Asked, layout, wrong
from rl_gns.rollout.generations import Generations
from rl_gns.segments import SegmentBlock

LEAST_BLOCKS = 8
"""Of each actor, however long they take: fewer say nothing about scatter."""
PLACES = (8, 1024)
"""Actors of the crew at which the driver is timed; between and beyond, a straight line."""
LEAST_ANSWERS = 512
PUTS = 10


@dataclass(frozen=True)
class Hosting:
    """What was measured; the names are those of `study.capacity.Rates`."""

    emulation: float
    inference: float
    block_seconds: float
    block_seconds_alone: float
    block_scatter: float
    put_bytes_per_second: float
    handling_seconds: float
    handling_seconds_per_actor: float
    copying_seconds: float
    publish_seconds: float
    actor_bytes: int


class TimedHost(CollectorHost):
    """A host that times its own work, by the CPU's clock: its one thread never waits, so that is what the work takes on
    a core of its own, whatever else runs here; what neighbouring cores cost it is in it."""

    def blocks(self, collector_id: int, weights: Weights, segment_steps: int, seconds: float) -> list[float]:
        """Seconds of each block, for about so long; the first, with scatter and burn-in, is not told."""
        took: list[float] = []
        self.collect(collector_id, 0, None, weights, 0, segment_steps, 0)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or len(took) < LEAST_BLOCKS:
            start = time.process_time()
            self.collect(collector_id, 0, None, weights, 0, segment_steps, 0)
            took.append(time.process_time() - start)
        return took

    def parts(self, collector_id: int, segment_steps: int, seconds: float) -> tuple[float, float]:
        """(rows a second of the world alone under random actions, rows a second of the policy alone)."""
        collector = self._collector(collector_id, 0, None)
        world, rng = collector.world, np.random.default_rng(collector_id)

        def step() -> None:
            world.step(rng.integers(world.n_actions, size=world.n_columns))

        def infer() -> None:
            collector._policy.infer(collector._observation)

        return tuple(_rate(work, segment_steps, seconds / 2) * world.n_columns for work in (step, infer))

    def echo(self, collector_id: int) -> int:
        return collector_id

    def memory(self) -> int:
        """Bytes of this process that it shares with no other."""
        fields = Path("/proc/self/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * 4096


def _rate(work: Any, chunk: int, seconds: float) -> float:
    """Calls a second of the CPU's clock, in chunks, for about so long."""
    start, calls = time.process_time(), 0
    while (took := time.process_time() - start) < seconds or not calls:
        for _ in range(chunk):
            work()
        calls += chunk
    return calls / took


def measure(
    config: RunConfig, weights: Weights, block: SegmentBlock, n_bytes: int, cores: int, seconds: float
) -> Hosting:
    """On `cores` actors for about so many seconds; `block` is one that a collector gave, of `n_bytes` in the store."""
    host = ray.remote(num_cpus=1, max_restarts=0)(TimedHost)
    actors, steps, share = [host.remote(config) for _ in range(cores)], config.batch.segment_steps, seconds / 4
    actor_bytes = max(ray.get([actor.memory.remote() for actor in actors]))
    publish_seconds, ref = _published(weights)
    alone = ray.get(actors[0].blocks.remote(0, ref, steps, share))
    together = ray.get([actor.blocks.remote(c, ref, steps, 2 * share) for c, actor in enumerate(actors)])
    parts = ray.get([actor.parts.remote(c, steps, share) for c, actor in enumerate(actors)])
    took = [t for blocks in together for t in blocks]
    base, slope = _handling(actors[0])
    hosting = Hosting(
        emulation=float(np.mean([p[0] for p in parts])),
        inference=float(np.mean([p[1] for p in parts])),
        block_seconds=float(np.mean(took)),
        block_seconds_alone=float(np.mean(alone)),
        block_scatter=float(np.std(took, ddof=1) / np.mean(took)),
        put_bytes_per_second=n_bytes / _median_seconds(lambda: ray.put(block)),
        handling_seconds=base + _receiving(config, block),
        handling_seconds_per_actor=slope,
        copying_seconds=copying(block),
        publish_seconds=publish_seconds,
        actor_bytes=actor_bytes,
    )
    for actor in actors:
        ray.kill(actor)
    return hosting


def handling(actor: Any, places: int) -> float:
    """Seconds of the driver for one answer of a crew of so many places."""
    crew = Crew(lambda: actor, places, Generations(), Costs(1, 1, 1))
    asked: Sequence[int] = range(places * max(1, LEAST_ANSWERS // places))

    def gather() -> None:
        crew.gather(asked, Ask(lambda to, c: to.echo.remote(c), lambda answer, c: None if answer == c else "another"))

    gather()
    start = time.perf_counter()
    gather()
    return (time.perf_counter() - start) / len(asked)


def _handling(actor: Any) -> tuple[float, float]:
    few, many = (handling(actor, places) for places in PLACES)
    slope = max(0.0, (many - few) / (PLACES[1] - PLACES[0]))
    return max(0.0, few - slope * PLACES[0]), slope


def _receiving(config: RunConfig, block: SegmentBlock) -> float:
    """Seconds of the driver to get a block out of the store and to look at it."""
    ref, known = ray.put(block), layout(config)
    asked = Asked(block.collector_id, block.generation, block.policy_version, len(block.action))
    return _median_seconds(lambda: wrong(ray.get(ref), asked, known))


def copying(block: SegmentBlock) -> float:
    """Seconds of the driver to copy a block out of the store to its place in a rollout, where memory is new."""
    rollout, took = Assembly(PUTS, 1, block.policy_version, len(block.action)), []
    for c in range(PUTS):
        came = dataclasses.replace(ray.get(ray.put(block)), collector_id=c)
        start = time.perf_counter()
        rollout.put(came)
        took.append(time.perf_counter() - start)
    rollout.collected()  # ShortBatch, were one of them not copied
    return float(np.median(took))


def _published(weights: Weights) -> tuple[float, Any]:
    return _median_seconds(lambda: ray.put(weights)), ray.put(weights)


def _median_seconds(work: Any) -> float:
    took = []
    for _ in range(PUTS):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return float(np.median(took))
