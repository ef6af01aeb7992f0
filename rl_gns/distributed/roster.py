"""Who hosts which collector, and who moves when nodes come and go.

Collector c starts at place c mod K. Between two rollouts, when nothing is asked of anybody, the roster looks at the
cluster (`supply`). Where a place is missing and a CPU is free, an actor is started on the side, and joins with its
share of the collectors once it is there. A node that is being drained (a spot node) is left: for actors that were
started on the side or, where there is no CPU for them or the deadline is near, for the places that stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray

from rl_gns.distributed import supply

Moved = tuple[str, list[int], str]
"""(what, the collectors that had begun where they were, why), as a Fault has it."""


@dataclass(eq=False)
class Place:
    """One actor, and what it is busy with."""

    actor: Any
    ready: ray.ObjectRef | None
    """Unanswered while the actor starts; nothing is asked of it before."""
    since: float
    """When it began on what it is busy with, seconds of the watch's clock."""
    where: str = "a new actor"
    node: str = ""
    """Ray's id of the node that it runs on; empty before it is ready."""
    todo: list[int] = field(default_factory=list)
    calls: dict[ray.ObjectRef, tuple[int, bool]] = field(default_factory=dict)
    """Call -> (collector id, whether it is its first on this actor), oldest first."""
    begun: set[int] = field(default_factory=set)
    """Collectors that this actor was asked for a block of, since they were last seeded or given a state."""
    named: bool = False
    """It was called silent since it last answered."""
    replaced: int = 0
    """Actors lost here since the last answer, or since the rollout began."""

    def owns(self, call: ray.ObjectRef) -> bool:
        return call == self.ready or call in self.calls

    def awaited(self) -> list[ray.ObjectRef]:
        return [self.ready] if self.ready is not None else list(self.calls)

    def unanswered(self) -> list[int]:
        return [collector_id for collector_id, _ in self.calls.values()] + self.todo


class Roster:
    """K places, fewer while the cluster has no CPU for them, and the actors that are started on the side."""

    def __init__(self, start: Callable[[], Place], n_actors: int):
        self._start, self._wanted = start, n_actors
        self.places = [start() for _ in range(n_actors)]
        self.spares: list[Place] = []
        self._home: dict[int, Place] = {}
        self._looked = time.monotonic()

    def home(self, collector_id: int) -> Place:
        """The place that hosts it."""
        return self._home.setdefault(collector_id, self.places[collector_id % len(self.places)])

    def hosted(self, place: Place) -> list[int]:
        """The collectors that live there."""
        return sorted(c for c, home in self._home.items() if home is place)

    def move(self, collectors: list[int], to: list[Place]) -> None:
        """Each goes to the one of `to` that hosts the fewest."""
        for c in collectors:
            hosts = list(self._home.values())
            self._home[c] = min(to, key=hosts.count)

    def drop(self, spare: Place) -> None:
        """Give up an actor that was started on the side; it hosts nothing yet."""
        ray.kill(spare.actor)
        self.spares.remove(spare)

    def relocate(self) -> list[Moved]:
        """Take in who is there, start who is missing, leave the nodes that are to go; at most once a second."""
        if time.monotonic() - self._looked < supply.LOOK_SECONDS:
            return []
        self._looked, leaving = time.monotonic(), supply.leaving()
        there = [spare for spare in self.spares if spare.ready is None]
        for fresh in there:
            self.spares.remove(fresh)
            self.places.append(fresh)
        going = [place for place in self.places if place.node in leaving]
        staying = [place for place in self.places if place not in going]
        moved = [self._take_in(fresh, staying, going) for fresh in there if fresh in staying]
        missing = self._wanted - len(staying) - len(self.spares)
        if missing > 0:
            self.spares += [self._start() for _ in range(min(missing, supply.free_cpus(leaving)))]
        late = [p for k, p in enumerate(going) if k >= len(self.spares) or leaving[p.node] < supply.LEAVE_SECONDS]
        return moved + [self._leave(place, staying) for place in late if staying]

    def _take_in(self, fresh: Place, staying: list[Place], going: list[Place]) -> Moved:
        """Give it all that a place on a node that is to go hosts; or, where there is none, its share of what all do."""
        if going:
            return self._leave(going.pop(0), [fresh])
        begun: list[int] = []
        while len(self.hosted(fresh)) < len(self._home) // len(staying):
            fullest = max(staying, key=lambda place: len(self.hosted(place)))
            begun += self._hand_over(fullest, self.hosted(fullest)[-1:], [fresh])
        return "moved", begun, f"{fresh.where} joined"

    def _leave(self, place: Place, to: list[Place]) -> Moved:
        ray.kill(place.actor)
        self.places.remove(place)
        begun = self._hand_over(place, self.hosted(place), to)
        return "draining", begun, f"the node of {place.where} is being drained, and was left in time"

    def _hand_over(self, place: Place, collectors: list[int], to: list[Place]) -> list[int]:
        begun = sorted(place.begun.intersection(collectors))
        place.begun.difference_update(begun)
        self.move(collectors, to)
        return begun
