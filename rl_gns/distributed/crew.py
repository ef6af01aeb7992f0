"""The actors that host collectors, and what becomes of them when they fail.

Each of K places holds one actor. Collector c lives at place c mod K; at most `IN_FLIGHT` calls are queued at a place
(more where an actor works on several at once).
An actor that dies, stalls or returns a block that was not asked for is killed, and a new one takes its place: every
collector that it had begun moves to a generation of its own, with unused seeds, and what was asked of it is asked
again. What other actors have returned is kept. A call of the killed actor is never awaited again, so nothing is
collected twice in one generation; a block that arrives all the same is late, and dropped.

Where a new actor finds no CPU (a node is gone), its place is given up, and the collectors go to the others, until a CPU
is free again. A node that is being drained is left before it dies: `roster`.

An exception that our own code raised inside an actor is no fault of the actor (a policy that diverged, say): it ends
the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from rl_gns.distributed import watch
from rl_gns.distributed.roster import Place, Roster
from rl_gns.records import Fault
from rl_gns.rollout.generations import Generations

IN_FLIGHT = 2
"""Calls queued on one actor: the next block starts while the last one travels."""
MAX_REPLACEMENTS = 3
"""How often one place may need a new actor in a row, without an answer in between; then the run ends (a guess: chance
does not strike one place four times in a row, a broken machine does)."""


class ActorsFail(RuntimeError):
    """Actors are lost faster than they can be replaced."""


@dataclass(frozen=True)
class Ask:
    """What is asked of every collector."""

    send: Callable[[Any, int], ray.ObjectRef]
    """(actor, collector id) -> the call."""
    judge: Callable[[Any, int], str | None] = lambda answer, collector_id: None
    """(answer, collector id) -> what is wrong with it, or None."""
    keep: Callable[[Any], Any] = lambda answer: answer
    """A good answer -> what to hold of it."""
    plays: bool = True
    """A block: with its first one a collector has begun, its time is what blocks take, and env steps are lost with
    it. A state is none of that."""


@dataclass(frozen=True)
class Costs:
    """Env steps over the columns of one collector."""

    block: int
    """Of one block."""
    first: int
    """At most, of a collector's first block, with scatter and burn-in."""
    seeding: int
    """Scatter, at its mean, and burn-in of a collector that is seeded anew."""


class Crew:
    """K places with an actor each."""

    def __init__(
        self,
        make_actor: Callable[[], Any],
        n_actors: int,
        generations: Generations,
        costs: Costs,
        at_once: int = 1,
        chaos: bool = False,
    ):
        """`at_once`: calls that an actor works on at a time."""
        self._at_once, self._in_flight = at_once, IN_FLIGHT - 1 + at_once
        self._make, self._generations, self._costs = make_actor, generations, costs
        self._clock, self._patience = watch.Clock(), watch.Patience(costs.first, chaos)
        self._roster = Roster(self._filled, n_actors)
        self._places, self._spares = self._roster.places, self._roster.spares
        self._abandoned: list[ray.ObjectRef] = []
        self._faults: list[Fault] = []

    def forget(self) -> None:
        """Every collector starts anew, or from a state: none has begun where it lives, and its next block there is a
        first one. Between two gatherings."""
        for place in self._places:
            place.begun.clear()

    def gather(self, collector_ids: Sequence[int], ask: Ask) -> list[Any]:
        """What `ask.keep` made of one answer a collector, in the order of `collector_ids`, all of them judged good; the
        answers themselves are let go as they come. ActorsFail where there is none."""
        answers: dict[int, Any] = {}
        self._clock.look()
        for what, begun, reason in self._roster.relocate():
            self._reseed(what, begun, reason)
        for place in self._places:
            place.replaced = 0
        for c in collector_ids:
            self._roster.home(c).todo.append(c)
        while len(answers) < len(collector_ids):
            self._send(ask)
            self._hear(ask, answers)
            self._look(ask)
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
        for place in self._places + self._spares:
            ray.kill(place.actor)

    def _filled(self) -> Place:
        actor = self._make()
        return Place(actor, actor.ready.remote(), self._clock.seconds)

    def _send(self, ask: Ask) -> None:
        for place in self._places:
            while place.ready is None and place.todo and len(place.calls) < self._in_flight:
                c = place.todo.pop(0)
                if not place.calls:
                    place.since = self._clock.seconds
                place.calls[ask.send(place.actor, c)] = c, c not in place.begun
                if ask.plays:
                    place.begun.add(c)

    def _hear(self, ask: Ask, answers: dict[int, Any]) -> None:
        """Wait for one answer, or for `LOOK_SECONDS`."""
        places = self._places + self._spares
        awaited = [call for place in places for call in place.awaited()]
        done, _ = ray.wait(awaited, num_returns=1, timeout=watch.LOOK_SECONDS)
        self._clock.look()
        for call in done:
            place = next(place for place in places if place.owns(call))
            try:
                answer = ray.get(call)
            except RayTaskError:
                raise
            except RayError as error:
                if "creation task" in str(error):
                    raise
                if place in self._spares:
                    self._roster.drop(place)
                    continue
                self._replace(place, call, "died", f"{place.where} died: {last_words(error)}", ask)
            else:
                self._take(place, call, answer, ask, answers)

    def _take(self, place: Place, call: ray.ObjectRef, answer: Any, ask: Ask, answers: dict[int, Any]) -> None:
        if call == place.ready:
            place.ready, (place.where, place.node) = None, answer
        else:
            c, first = place.calls[call]
            if (reason := ask.judge(answer, c)) is not None:
                self._replace(place, call, "refused", f"{place.where} returned, for collector {c}, {reason}", ask)
                return
            answers[c] = ask.keep(answer)
            del place.calls[call]
            place.replaced = 0
            if ask.plays and not first:
                self._patience.took(self._clock.seconds - place.since)
        place.since, place.named = self._clock.seconds, False

    def _look(self, ask: Ask) -> None:
        """Name who is silent, and give up who is silent too long."""
        for spare in [spare for spare in self._spares if spare.awaited()]:
            if self._clock.seconds - spare.since > watch.UNPLACED_SECONDS:
                self._roster.drop(spare)
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
                    what = "block" if ask.plays else "state"
                    reason = f"{place.where} gave no {what} of collector {c} in {silent:.0f} s"
                    self._replace(place, None, "stalled", reason, ask)
                    continue
            if silent > limit / 2 and not place.named:
                place.named = True
                _LOG.warning("waiting for %s, silent for %.0f s; given up after %.0f s", waits_for, silent, limit)

    def _start_seconds(self, silent: float) -> float:
        short = silent > watch.UNPLACED_SECONDS / 2 and ray.available_resources().get("CPU", 0) < 1
        others = any(place.ready is None for place in self._places)
        return watch.UNPLACED_SECONDS if short and others else watch.START_SECONDS

    def _replace(self, place: Place, answered: ray.ObjectRef | None, what: str, reason: str, ask: Ask) -> None:
        ray.kill(place.actor)
        self._abandoned += [call for call in place.calls if call != answered]
        asked, replaced = place.unanswered(), place.replaced + 1
        # one that died or stalled had not begun on the call after; one that was refused had
        in_the_making = len(place.calls) if what == "refused" else min(len(place.calls), self._at_once)
        self._reseed(what, sorted(place.begun), reason, in_the_making if ask.plays else 0)
        if replaced > MAX_REPLACEMENTS:
            whose = f"collector {asked[0]}" if asked else "no collector"
            raise ActorsFail(
                f"{whose}: its actor was replaced {MAX_REPLACEMENTS} times in a row and failed again; {reason}"
            )
        fresh = self._filled()
        fresh.todo, fresh.replaced = asked, replaced
        self._roster.move(self._roster.hosted(place), [fresh])
        self._places[self._places.index(place)] = fresh

    def _give_up(self, place: Place, reason: str) -> None:
        ray.kill(place.actor)
        self._places.remove(place)
        if not self._places:
            raise ActorsFail(f"no rollout actor can be started: {reason}")
        moved = self._roster.hosted(place)
        self._roster.move(moved, self._places)
        for c in place.todo:
            self._roster.home(c).todo.append(c)
        self._note(
            "not placed", moved, [self._generations.of(c) for c in moved], f"{reason}; the others take its work", 0
        )

    def _reseed(self, what: str, collectors: list[int], reason: str, blocks: int = 0) -> None:
        """Collectors begin anew elsewhere; `blocks` of theirs were in the making."""
        cost = self._costs.block * blocks + self._costs.seeding * len(collectors)
        self._note(what, collectors, [self._generations.advance(c) for c in collectors], reason, cost)

    def _note(self, what: str, collectors: list[int], generations: list[int], reason: str, cost: int) -> None:
        self._faults.append(Fault(what, collectors, generations, reason, cost))
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
