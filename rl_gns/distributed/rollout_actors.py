"""Collectors hosted by Ray actors. Import this only inside a session (`session.start`), which sets Ray's environment.

    driver                                   actor k of K (one CPU, one thread)
    publish: one ray.put of the weights
    collect: for each collector c:
             call collect(c, weights)  --->  c's Collector loads the weights, steps T env steps
             waits for ALL blocks      <---  one SegmentBlock (arrays go through the object store)
             looks at each block; what its actor owes again, where it fails, is `crew`'s matter
             copies it to its place and lets it go
    combine by wave, then by collector id

Taking the fastest actors first is never done: it would bias the batch. Which actor hosts a collector changes no number.
With inference actors (see there) what is passed on is not the weights but who has them.
"""

from __future__ import annotations

import os
from typing import Any

import ray
import torch

from rl_gns.config import RunConfig
from rl_gns.distributed.crew import Ask, Costs, Crew
from rl_gns.distributed.inference_actors import InferenceActors, RemotePolicy, Served
from rl_gns.distributed.strikes import struck
from rl_gns.learn.model import Weights
from rl_gns.records import Fault
from rl_gns.rollout.assembly import Assembly, Collected
from rl_gns.rollout.blocks import Asked, layout, wrong
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.generations import Generations
from rl_gns.segments import SegmentBlock

State = dict[str, Any]

INTERLEAVED = 4
"""Collectors that a rollout actor without weights steps at once, each in a thread: one steps its world while others
wait for their answers (a guess)."""


class CollectorHost:
    """Hosts some of the collectors, on one thread: what runs inside an actor."""

    def __init__(self, config: RunConfig):
        torch.set_num_threads(1)
        self._config = config
        self._collectors: dict[int, Collector] = {}

    def ready(self) -> tuple[str, str]:
        """Where it runs: process and node in words, and the node's id."""
        words = f"the actor of pid {os.getpid()} on {ray.util.get_node_ip_address()}"
        return words, ray.get_runtime_context().get_node_id()

    def collect(
        self,
        collector_id: int,
        generation: int,
        saved: State | None,
        weights: Weights | Served,
        version: int,
        segment_steps: int,
        wave: int,
    ) -> SegmentBlock:
        """One block of one collector, which is made at its first call and, where a state is given, goes on from it."""
        collector = self._collector(collector_id, generation, saved)
        collector.load(weights, version)
        return struck(collector.collect(segment_steps, wave), self._config)

    def state(self, collector_id: int, generation: int) -> State | None:
        """One collector's state."""
        return self._collector(collector_id, generation, None).state()

    def _collector(self, collector_id: int, generation: int, saved: State | None) -> Collector:
        known = self._collectors.get(collector_id)
        if known is None or known.generation != generation or saved is not None:
            policy = RemotePolicy() if self._config.rollout.inference_actors else None
            known = self._collectors[collector_id] = Collector(self._config, collector_id, generation, policy)
            if saved is not None:
                known.restore(saved)
        return known


RolloutActor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(CollectorHost)


def rollout_actor(config: RunConfig, at_once: int) -> Any:
    """One actor that answers so many calls at once, spread over the nodes, or in the placement group."""
    spread = {} if ray.util.get_current_placement_group() else {"scheduling_strategy": "SPREAD"}
    return RolloutActor.options(max_concurrency=at_once, **spread).remote(config)


class RaySource:
    """A SegmentSource whose collectors live on K actors, which are replaced when they fail."""

    def __init__(self, config: RunConfig, n_actors: int):
        rollout = config.rollout
        scatter, burn_in, segment = rollout.scatter_env_steps, rollout.burn_in_env_steps, config.batch.segment_steps
        steps = (segment, scatter + burn_in + segment, scatter // 2 + burn_in)
        costs = Costs(*(rollout.columns_per_collector * each for each in steps))
        self._layout, self._generations, self._waves = layout(config), Generations(), rollout.waves
        self._inference = InferenceActors(config) if rollout.inference_actors else None
        at_once = INTERLEAVED if self._inference else 1
        chaos = bool(config.chaos.asked())
        self._crew = Crew(lambda: rollout_actor(config, at_once), n_actors, self._generations, costs, at_once, chaos)
        self._begun = 0  # collectors that were ever asked for
        self._saved: dict[int, State] = {}  # states that no actor has been given yet
        self._version = -1
        self._weights: Any = None

    def publish(self, weights: Weights, version: int) -> None:
        """One put a version; the last version's object is freed with its reference."""
        self._weights, self._version = ray.put(weights), version

    def collect(self, n_collectors: int, segment_steps: int) -> Collected:
        """See SegmentSource; raises `crew.ActorsFail` where actors are lost faster than they can be replaced."""
        self._begun = max(self._begun, n_collectors)
        rollout = Assembly(n_collectors, self._waves, self._version, segment_steps)
        for wave in range(self._waves):
            self._collect_wave(wave, n_collectors, segment_steps, rollout)
        for late in self._crew.late():
            if isinstance(late, SegmentBlock):
                rollout.put(late)
        return rollout.collected(self._faults())

    def _collect_wave(self, wave: int, n_collectors: int, segment_steps: int, rollout: Assembly) -> None:
        def send(actor: Any, c: int) -> ray.ObjectRef:
            where, what = (c, self._generations.of(c)), (self._acting_on(c), self._version, segment_steps, wave)
            return actor.collect.remote(*where, self._saved.pop(c, None), *what)

        def judge(block: Any, c: int) -> str | None:
            return wrong(block, Asked(c, self._generations.of(c), self._version, segment_steps, wave), self._layout)

        self._crew.gather(range(n_collectors), Ask(send, judge, rollout.put))

    def _acting_on(self, collector_id: int) -> Any:
        """The weights, or who serves that collector."""
        if self._inference is None:
            return self._weights
        return self._inference.served(self._weights, self._version, collector_id)

    def _faults(self) -> list[Fault]:
        return self._crew.faults() + (self._inference.faults() if self._inference else [])

    def state(self) -> list[State] | None:
        """Of every collector that was ever asked for; None where the world cannot be saved. One that was seeded anew
        after it had answered, since its actor was lost for another's state, is asked again."""
        ask = Ask(lambda actor, c: actor.state.remote(c, self._generations.of(c)), plays=False)
        states, wanted = dict(self._saved), [c for c in range(self._begun) if c not in self._saved]
        while wanted:
            states |= zip(wanted, self._crew.gather(wanted, ask), strict=True)
            wanted = [c for c in wanted if states[c] and states[c]["generation"] != self._generations.of(c)]
        return None if any(s is None for s in states.values()) else [states[c] for c in range(self._begun)]

    def restore(self, states: list[State] | None, generation: int) -> None:
        """The actors are given the states with what is next asked of them."""
        self._generations.restart(states, generation)
        self._crew.forget()
        self._begun, self._saved = len(states or []), dict(enumerate(states or []))

    def close(self) -> None:
        self._crew.close()
        if self._inference:
            self._inference.close()
