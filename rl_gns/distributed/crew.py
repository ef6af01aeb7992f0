"""The actors that host collectors, and what becomes of them when they fail.

Each of K places holds one actor. Collector c lives at place c mod K; at most `IN_FLIGHT` calls are queued at a place.
An actor that dies, stalls or returns a block that was not asked for is killed, and a new one takes its place: every
collector that it had begun moves to a generation of its own, with unused seeds, and what was asked of it is asked
again. What other actors have returned is kept. A call of the killed actor is never awaited again, so nothing is
collected twice in one generation; a block that arrives all the same is late, and dropped.

Where a new actor finds no CPU (a node is gone), its place is given up for this sitting, and the collectors go to the
others; the next sitting starts with all K again. An exception that our own code raised inside an actor is no fault of
the actor (a policy that diverged, say): it ends the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from rl_gns.distributed import watch
from rl_gns.records import Fault
from rl_gns.rollout.generations import Generations

IN_FLIGHT = 2
"""Calls queued on one actor: the next block starts while the last one travels."""
MAX_REPLACEMENTS = 3
"""How often one place may need a new actor within one rollout; then the run ends (a guess: chance does not strike
one place four times in a rollout, a broken machine does)."""

Send = Callable[[Any, int], ray.ObjectRef]
"""(actor, collector id) -> the call."""
Judge = Callable[[Any, int], str | None]
"""(answer, collector id) -> what is wrong with it, or None."""


class ActorsFail(RuntimeError):
    """Actors are lost faster than they can be replaced."""


@dataclass(eq=False)
class Place:
    """One actor, and what it is busy with."""

    actor: Any
    ready: ray.ObjectRef | None
    """Unanswered while the actor starts; nothing is asked of it before."""
    since: float
    """When it began on what it is busy with, seconds of the watch's clock."""
    where: str = "a new actor"
    todo: list[int] = field(default_factory=list)
    calls: dict[ray.ObjectRef, tuple[int, bool]] = field(default_factory=dict)
    """Call -> (collector id, whether it is its first on this actor), oldest first."""
    begun: set[int] = field(default_factory=set)
    """Collectors that this actor was ever asked for."""
    named: bool = False
    """It was called silent since it last answered."""
    replaced: int = 0
    """Actors lost here in this rollout."""

    def owns(self, call: ray.ObjectRef) -> bool:
        return call == self.ready or call in self.calls

    def awaited(self) -> list[ray.ObjectRef]:
        return [self.ready] if self.ready is not None else list(self.calls)

    def unanswered(self) -> list[int]:
        return [collector_id for collector_id, _ in self.calls.values()] + self.todo


class Crew:
    """K places with an actor each."""

    def __init__(self, make_actor: Callable[[], Any], n_actors: int, generations: Generations, first_env_steps: int):
        self._make, self._generations = make_actor, generations
        self._clock, self._patience = watch.Clock(), watch.Patience(first_env_steps)
        self._places = [self._filled() for _ in range(n_actors)]
        self._home: dict[int, Place] = {}
        self._abandoned: list[ray.ObjectRef] = []
        self._faults: list[Fault] = []

    def gather(self, collector_ids: Sequence[int], send: Send, judge: Judge) -> list[Any]:
        """One answer a collector, in the order of `collector_ids`, all of them judged good; ActorsFail otherwise."""
        answers: dict[int, Any] = {}
        self._clock.look()
        for place in self._places:
            place.replaced = 0
        for c in collector_ids:
            self._home.setdefault(c, self._places[c % len(self._places)]).todo.append(c)
        while len(answers) < len(collector_ids):
            self._send(send)
            self._hear(judge, answers)
            self._look()
        return [answers[c] for c in collector_ids]

    def late(self) -> list[Any]:
        """Answers that came from actors that were given up before; each is told once."""
        done, self._abandoned = (
            ray.wait(self._abandoned, num_returns=len(self._abandoned), timeout=0) if self._abandoned else ([], [])
        )
        return [answer for call in done if (answer := _or_none(call)) is not None]

    def faults(self) -> list[Fault]:
        """What went wrong since the last look."""
        found, self._faults = self._faults, []
        return found

    def close(self) -> None:
        """Kill the actors."""
        for place in self._places:
            ray.kill(place.actor)

    def _filled(self) -> Place:
        actor = self._make()
        return Place(actor, actor.ready.remote(), self._clock.seconds)

    def _send(self, send: Send) -> None:
        for place in self._places:
            while place.ready is None and place.todo and len(place.calls) < IN_FLIGHT:
                c = place.todo.pop(0)
                if not place.calls:
                    place.since = self._clock.seconds
                place.calls[send(place.actor, c)] = c, c not in place.begun
                place.begun.add(c)

    def _hear(self, judge: Judge, answers: dict[int, Any]) -> None:
        """Wait for one answer, or for `LOOK_SECONDS`."""
        awaited = [call for place in self._places for call in place.awaited()]
        done, _ = ray.wait(awaited, num_returns=1, timeout=watch.LOOK_SECONDS)
        self._clock.look()
        for call in done:
            place = next(place for place in self._places if place.owns(call))
            try:
                answer = ray.get(call)
            except RayTaskError:
                raise
            except RayError as error:
                if "creation task" in str(error):
                    raise
                self._replace(place, call, "died", f"{place.where} died: {last_words(error)}")
            else:
                self._take(place, call, answer, judge, answers)

    def _take(self, place: Place, call: ray.ObjectRef, answer: Any, judge: Judge, answers: dict[int, Any]) -> None:
        if call == place.ready:
            place.ready, place.where = None, answer
        else:
            c, first = place.calls[call]
            if (reason := judge(answer, c)) is not None:
                self._replace(place, call, "refused", f"{place.where} returned, for collector {c}, {reason}")
                return
            answers[c] = answer
            del place.calls[call]
            if not first:
                self._patience.took(self._clock.seconds - place.since)
        place.since, place.named = self._clock.seconds, False

    def _look(self) -> None:
        """Name who is silent, and give up who is silent too long."""
        for place in [place for place in self._places if place.awaited()]:
            silent = self._clock.seconds - place.since
            if place.ready is not None:
                if silent > (limit := self._start_seconds(silent)):
                    self._give_up(place, f"no CPU for an actor in {silent:.0f} s")
                    continue
                waits_for = "a rollout actor to start: the cluster has no CPU for it yet, or is slow"
            else:
                c, first = next(iter(place.calls.values()))
                limit = self._patience.seconds(first)
                waits_for = f"collector {c} on {place.where}"
                if silent > limit:
                    self._replace(
                        place, None, "stalled", f"{place.where} gave no block of collector {c} in {silent:.0f} s"
                    )
                    continue
            if silent > limit / 2 and not place.named:
                place.named = True
                _LOG.warning("waiting for %s, silent for %.0f s; given up after %.0f s", waits_for, silent, limit)

    def _start_seconds(self, silent: float) -> float:
        short = silent > watch.UNPLACED_SECONDS / 2 and ray.available_resources().get("CPU", 0) < 1
        others = any(place.ready is None for place in self._places)
        return watch.UNPLACED_SECONDS if short and others else watch.START_SECONDS

    def _replace(self, place: Place, answered: ray.ObjectRef | None, what: str, reason: str) -> None:
        ray.kill(place.actor)
        self._abandoned += [call for call in place.calls if call != answered]
        lost, asked, replaced = sorted(place.begun), place.unanswered(), place.replaced + 1
        self._note(what, lost, [self._generations.advance(c) for c in lost], reason)
        if replaced > MAX_REPLACEMENTS:
            whose = f"collector {asked[0]}" if asked else "no collector"
            raise ActorsFail(
                f"{whose}: its actor was replaced {MAX_REPLACEMENTS} times in one rollout and failed again; {reason}"
            )
        fresh = self._filled()
        fresh.todo, fresh.replaced = asked, replaced
        self._move(place, [fresh])
        self._places[self._places.index(place)] = fresh

    def _give_up(self, place: Place, reason: str) -> None:
        ray.kill(place.actor)
        self._places.remove(place)
        if not self._places:
            raise ActorsFail(f"no rollout actor can be started: {reason}")
        moved = [c for c, home in self._home.items() if home is place]
        self._move(place, self._places)
        for c in place.todo:
            self._home[c].todo.append(c)
        self._note("not placed", moved, [self._generations.of(c) for c in moved], f"{reason}; the others take its work")

    def _move(self, place: Place, places: list[Place]) -> None:
        """Its collectors go to the one of `places` that hosts the fewest."""
        for c in sorted(c for c, home in self._home.items() if home is place):
            hosts = list(self._home.values())
            self._home[c] = min(places, key=hosts.count)

    def _note(self, what: str, collectors: list[int], generations: list[int], reason: str) -> None:
        self._faults.append(Fault(what, collectors, generations, reason))
        _LOG.warning("rollout actor %s: %s", what, reason)


def last_words(error: RayError) -> str:
    """Ray's own reason of a death: the first sentence, and whether memory was short."""
    if isinstance(error, ActorUnavailableError):
        return "it cannot be reached, as when its node is gone"
    known = str(error).partition("Some common causes")[0]
    lines = [line.strip() for line in known.splitlines() if line.strip()] or [type(error).__name__]
    line = next((line for line in lines if "because " in line), lines[-1]).rpartition("because ")[2]
    short = " (out of memory)" if "memory" in known.lower() else ""
    return line.partition(". ")[0].rstrip(".")[:120] + short


def _or_none(call: ray.ObjectRef) -> Any:
    try:
        return ray.get(call)
    except RayError:
        return None


_LOG = logging.getLogger(__name__)
