"""The trainer as one Ray actor on the learner's node of a cluster; import this only inside a session.

    driver (terminal, run directory)       trainer actor (learner)              rollout actors (any node)
    events(work, given, wanted)    ------> work(*given): starts them    ------> collect
    keeps what comes               <------ items, what it has to say    <------ blocks

The learner's node is one with a GPU where the learner may use one (`auto`: if one is free, or no CPU is; `cuda` waits
for it), else the driver's own. The actor takes the CPUs of its threads there (one where it has learners of its own), as
far as they are free and leave one to every rollout actor: those are spread over what is left. It owns them: when it
ends, however it ends, they end. Where its process is lost (its node died), another trainer starts with what `given()`
then says, at most `tasks.RETRIES` times. An exception of its own is raised here as it was there. The last argument of
its work tells it when to end early: its node is being drained, or the driver says so.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rl_gns.config import ConfigError
from rl_gns.distributed import supply
from rl_gns.distributed.crew import last_words
from rl_gns.distributed.tasks import LOOK_SECONDS, RETRIES, Item, Lost, Work

END_SECONDS = 6.0
"""From the driver's word until it waits no longer (a guess: a notice is 10 s, and Ray ends in 1 to 2)."""
SLOW_START_SECONDS = 60.0
"""Then the driver says what it waits for; an actor starts in 5 to 15 s (measured on 2 cores)."""

FREE_SECONDS = 5.0
"""Free GPUs and CPUs are looked for so long: one that was just given back is free after a second or so (a guess)."""


class TrainerLost(RuntimeError):
    """The trainer's process was lost too often."""


@dataclass(frozen=True)
class Said:
    """A warning that the trainer's process logged."""

    words: str


@dataclass(frozen=True)
class Wanted:
    """What the trainer asks of the cluster."""

    device: str
    """`auto`, `cpu` or `cuda`."""
    threads: int
    """Of the learner; 0: as many as its node has CPUs."""
    actors: int
    """That the run will start, a CPU each."""
    learns: bool = True
    """False: learners of its own do, among `actors`, and it takes one CPU whatever their threads."""


class TrainerHost:
    """What runs inside the actor."""

    def __init__(self) -> None:
        self._told_to_end, self._drained = False, supply.Drained()

    def end(self) -> None:
        """The work is to end early."""
        self._told_to_end = True

    def _is_to_end(self) -> bool:
        return self._told_to_end or self._drained()

    def run(self, work: Work, given: tuple[Any, ...], threads: int) -> Iterator[Item | Said]:
        """What `work(*given, is_to_end)` gives, and what is said meanwhile; its exception, if it ends in one."""
        os.environ["OMP_NUM_THREADS"] = str(threads or _cpus(ray.get_runtime_context().get_node_id()))
        told: queue.SimpleQueue[Item | Said | Exception | None] = queue.SimpleQueue()
        logging.getLogger("rl_gns").addHandler(_Telling(told))
        threading.Thread(target=_work, args=(told, work, (*given, self._is_to_end)), daemon=True).start()
        while (what := told.get()) is not None:
            if isinstance(what, Exception):
                raise what
            yield what


def _work(told: queue.SimpleQueue, work: Work, given: tuple[Any, ...]) -> None:
    try:
        for value in work(*given):
            told.put(Item(value))
        told.put(None)
    except Exception as error:
        told.put(error)


class _Telling(logging.Handler):
    """Puts warnings among what is told: this process has no terminal."""

    def __init__(self, told: queue.SimpleQueue):
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.put(Said(record.getMessage()))


def events(
    work: Work, given: Callable[[], tuple[Any, ...]], wanted: Wanted, ends: Callable[[], bool]
) -> Iterator[Item | Said | Lost]:
    """Run it on the learner's node; TrainerLost where no retry is left, ConfigError where no node will do. Once `ends`
    says so the work has `END_SECONDS` left."""
    for _ in range(RETRIES + 1):
        options, threads = _place(wanted)
        host = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2)(TrainerHost)  # runs, and is told
        actor = host.options(**options).remote()
        try:
            yield from _stream(actor, actor.run.options(num_returns="streaming").remote(work, given(), threads), ends)
            return
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            lost = Lost(last_words(error))
        finally:
            ray.kill(actor)
            supply.give_back_room(actor)
        yield lost
    raise TrainerLost(f"the trainer's process was lost {RETRIES + 1} times; the last time: {lost.reason}")


def _stream(actor: Any, told: Any, ends: Callable[[], bool]) -> Iterator[Item | Said]:
    waited, until = 0.0, math.inf
    while time.monotonic() < until:
        if until == math.inf and ends():
            until = time.monotonic() + END_SECONDS
            actor.end.remote()
        done, _ = ray.wait([told], num_returns=1, timeout=LOOK_SECONDS)  # a signal is heard between two looks
        if not done:
            waited += LOOK_SECONDS
            if waited == SLOW_START_SECONDS:
                yield Said(f"no word of the trainer for {waited:.0f} s: its node has no CPU or GPU free, or is slow")
            continue
        try:
            answer = ray.get(next(told))
        except StopIteration:
            return
        waited = SLOW_START_SECONDS  # it is there; from now on `crew` says who is slow
        yield answer


def _place(wanted: Wanted) -> tuple[dict[str, Any], int]:
    """(options of the actor, threads of its learner; 0: of the node that it lands on)."""
    cpus, gpus = _nodes()
    here = ray.get_runtime_context().get_node_id()
    homes = [here] if cpus.get(here) else [id for id in cpus if cpus[id]]
    with_gpu = _with_gpu(gpus, wanted.device, homes)
    threads = wanted.threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
    options: dict[str, Any] = {"num_gpus": 1} if with_gpu else {}
    if not with_gpu and homes == [here]:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=True)
    most = min((cpus[id] for id in with_gpu or homes), default=0)
    asked = max(0, min((threads or most) if wanted.learns else 1, most, sum(cpus.values()) - wanted.actors))
    return options | {"num_cpus": _of_the_free(asked, with_gpu or homes, list(cpus), wanted.actors)}, threads


def _nodes() -> tuple[dict[str, int], dict[str, int]]:
    """Node id -> whole CPUs, and whole GPUs, that it has; without those that are to go, unless all are."""
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    leaving = supply.leaving()
    nodes = {id: has for id, has in alive.items() if id not in leaving} or alive
    return tuple({id: int(has.get(kind, 0)) for id, has in nodes.items()} for kind in ("CPU", "GPU"))


def _of_the_free(asked: int, homes: list[str], nodes: list[str], actors: int) -> int:
    """So many CPUs, or what one of `homes` has free and `nodes` leave to the actors; one at least, if any are asked."""
    until = time.monotonic() + FREE_SECONDS
    while asked > 1:
        free = supply.free("CPU")
        most = min((free[id] for id in homes if free.get(id)), default=0)
        found = max(1, min(asked, most, sum(free.get(id, 0) for id in nodes) - actors))
        if found == asked or time.monotonic() > until:
            return found
        time.sleep(0.2)
    return asked


def _with_gpu(gpus: dict[str, int], device: str, homes: list[str]) -> list[str]:
    """Nodes that such a learner may go to for a GPU; none where it goes to a CPU of `homes`. ConfigError where it must
    have a GPU and there is none."""
    found = [id for id in gpus if gpus[id]] if device != "cpu" else []
    if device == "cuda" and not found:
        raise ConfigError("--learner.device: 'cuda' is on no node of the cluster; the nearest is cpu")
    if device == "cuda" or not found:
        return found
    until = time.monotonic() + FREE_SECONDS
    while not (free := [id for id in found if supply.free("GPU").get(id)]) and time.monotonic() < until:
        time.sleep(0.2)
    if free or not any(supply.free("CPU").get(id) for id in homes):
        return free or found
    _LOG.warning("no GPU of the cluster is free, so the learner is on a CPU; --learner.device cuda waits for one")
    return []


def _cpus(node_id: str) -> int:
    return max(1, int(next(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["NodeID"] == node_id)))


_LOG = logging.getLogger(__name__)
