"""Named jobs, each a generator that runs elsewhere: as Ray tasks, or in turn in this process. Both tell the same.

    in_turn, as_tasks -> (name, Item(value)) ... (name, Ended()) or (name, Failed(traceback))

A job is `work(*arguments(name))`. An exception of its own ends it, and no other: `Failed` carries the traceback as it
was where it happened. A job whose process died (killed, out of memory, its node gone) is `Lost` and starts again, with
what `arguments(name)` then says, at most `RETRIES` times. Items come in order and are never told twice by one try.

A task asks Ray for a share of CPUs; one whose work starts actors of its own gets a placement group of one bundle for
itself and one for each of them, so that two jobs never wait for each other's CPUs.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import math
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rl_gns.config import ConfigError
from rl_gns.distributed import supply

RETRIES = 2
"""How often a job that lost its process starts again (a guess: chance does not strike one job three times)."""
LOOK_SECONDS = 1.0
"""The driver wakes this often while it waits."""
LEAST_CPUS = 0.01


@dataclass(frozen=True)
class Item:
    value: Any
    """What the generator gave."""


@dataclass(frozen=True)
class Ended:
    """The generator is exhausted."""


@dataclass(frozen=True)
class Failed:
    traceback: str
    """Ends in the error's own line."""


@dataclass(frozen=True)
class Lost:
    reason: str
    """Why the process is gone; the job starts again."""


Told = tuple[str, Item | Ended | Failed | Lost]
Work = Callable[..., Iterator[Any]]
Arguments = Callable[[str], tuple[Any, ...]]


AHEAD = 2
"""Where as many jobs run as there is room for, so many times as many are asked for: an autoscaler adds nodes only for
what waits, and doubles a cluster at most (its `upscaling_speed` of 1)."""


@dataclass(frozen=True)
class Shape:
    """How jobs share the CPUs."""

    cpus: float
    """Of a task itself."""
    actors: int
    """One CPU each, of actors that a task starts."""
    at_once: int
    """Jobs that run at once."""
    grows: bool = False
    """More run at once where the cluster has become larger."""

    def asked(self) -> int:
        """Jobs that Ray is to have now, to run or to wait for a node."""
        if not self.grows:
            return self.at_once
        return AHEAD * max(1, int(sum(node_cpus()) // (self.cpus + self.actors)))


def shape(nodes: Sequence[float], threads: int, actors: int, at_once: int) -> Shape:
    """`at_once` jobs (0: as many as there is room for, now and later) of `threads` threads and `actors` actors each, on
    nodes of so many CPUs.

    Where there are more jobs than CPUs, each asks for a fraction of one. ConfigError where not even that fits, or where
    a job's own process, which runs on one node, fits on none; where later nodes count, a warning.
    """
    if at_once == 0:
        return _growing(nodes, threads, actors)
    cpus = sum(nodes)
    share = min(float(threads), cpus / at_once - actors)
    share = float(int(share)) if share >= 1 else math.floor(share / LEAST_CPUS) * LEAST_CPUS
    if share < LEAST_CPUS:
        raise ConfigError(
            f"--cells-at-once: {at_once} x (1 + {actors} actors) need more than the {cpus:g} CPUs of the cluster; "
            f"the most is {int(cpus // (1 + actors))}"
        )
    if share > (largest := max(nodes)):
        raise ConfigError(
            f"learner.threads: {threads} take {share:g} CPUs of one node, and the largest has {largest:g}; the nearest "
            f"is {max(1, int(largest))}"
        )
    return Shape(share, actors, at_once)


def _growing(nodes: Sequence[float], threads: int, actors: int) -> Shape:
    """Of all the CPUs that it wants: an autoscaler starts nodes for what waits."""
    if words := why_none_fits_yet(nodes, threads, actors):
        _LOG.warning(words)
    return Shape(float(threads), actors, max(1, int(sum(nodes) // (threads + actors))), grows=True)


def why_none_fits_yet(nodes: Sequence[float], threads: int, actors: int) -> str | None:
    """Why no job has room on nodes of so many CPUs before others come."""
    if threads <= max(nodes) and threads + actors <= sum(nodes):
        return None
    return (
        f"a cell wants {threads} CPUs of one node and {actors} more for its actors; the largest node of the cluster "
        f"has {max(nodes):g}, all together have {sum(nodes):g}: cells wait until others come"
    )


def node_cpus() -> list[float]:
    """CPUs of each node of the session that this process is in."""
    import ray

    return [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]


def makespan(durations: Iterable[float], at_once: int) -> float:
    """Seconds until the last job has ended, each begun in its turn as soon as a place is free."""
    places = [0.0] * at_once
    for duration in durations:
        heapq.heapreplace(places, places[0] + duration)
    return max(places)


def in_turn(names: Sequence[str], work: Work, arguments: Arguments) -> Iterator[Told]:
    """One job after the other, in this process."""
    for name in names:
        for told in _telling(lambda name=name: work(*arguments(name))):
            yield name, told


def _telling(start: Callable[[], Iterator[Any]]) -> Iterator[Item | Ended | Failed]:
    """What a job gives, and how it ended."""
    try:
        for value in start():
            yield Item(value)
    except Exception:
        yield Failed(traceback.format_exc())
    else:
        yield Ended()


def as_tasks(names: Sequence[str], work: Work, arguments: Arguments, shape: Shape) -> Iterator[Told]:
    """All jobs as tasks of the Ray session that this process is in, as many at a time as `shape` asks for."""
    waiting, running, losses, asked = deque(names), list[_Task](), Counter[str](), _Asked(shape)
    try:
        while waiting or running:
            while waiting and len(running) < asked():
                name = waiting.popleft()
                try:
                    running.append(_Task(name, work, arguments(name), shape))
                except Exception:
                    yield name, Failed(traceback.format_exc())
            for task in _ready(running):
                told = task.next()
                if isinstance(told, Lost):
                    losses[task.name] += 1
                    if losses[task.name] > RETRIES:
                        told = Failed(f"its process was lost {RETRIES + 1} times: {told.reason}")
                    else:
                        waiting.appendleft(task.name)
                if not isinstance(told, Item):
                    running.remove(task)
                    task.release()
                yield task.name, told
    finally:
        for task in running:
            task.stop()


class _Asked:
    """`Shape.asked`; the cluster is looked at once in `supply.LOOK_SECONDS` at most, however much is told meanwhile."""

    def __init__(self, shape: Shape):
        self._shape, self._looked, self._said = shape, -math.inf, 0

    def __call__(self) -> int:
        if time.monotonic() - self._looked >= supply.LOOK_SECONDS:
            self._looked, self._said = time.monotonic(), self._shape.asked()
        return self._said


def _ready(running: list[_Task]) -> list[_Task]:
    import ray

    if not running:
        return []
    done, _ = ray.wait([task.stream for task in running], num_returns=1, timeout=LOOK_SECONDS)
    return [task for task in running if any(task.stream is stream for stream in done)]


@dataclass(eq=False)
class _Task:
    """One try of a job."""

    name: str
    work: Work
    given: tuple[Any, ...]
    shape: Shape
    stream: Any = field(init=False)
    _group: Any = None

    def __post_init__(self) -> None:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        options: dict[str, Any] = {"num_cpus": self.shape.cpus, "max_retries": 0, "num_returns": "streaming"}
        if self.shape.actors:
            bundles = [{"CPU": self.shape.cpus}, *({"CPU": 1.0} for _ in range(self.shape.actors))]
            self._group = placement_group(bundles, strategy="PACK")
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
            )
        self.stream = ray.remote(_job).options(name=self.name, **options).remote(self.work, self.given)

    def next(self) -> Item | Ended | Failed | Lost:
        """The next thing told; waits for it."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return ray.get(next(self.stream))
        except StopIteration:
            return Lost("its stream broke off")
        except RayTaskError as error:
            return Failed(str(error))
        except RayError as error:
            return Lost(_last_words(error))

    def stop(self) -> None:
        """Kill the process that runs it. One that has ended must not be: its process is the next task's."""
        import ray
        from ray.exceptions import RayError

        with contextlib.suppress(RayError):
            ray.cancel(self.stream, force=True)
        self.release()

    def release(self) -> None:
        """Give back the CPUs that were kept for it."""
        from ray.util.placement_group import remove_placement_group

        if self._group is not None:
            remove_placement_group(self._group)


def _job(work: Work, given: tuple[Any, ...]) -> Iterator[Item | Ended | Failed]:
    """What runs inside the task."""
    yield from _telling(lambda: work(*given))


def _last_words(error: Exception) -> str:
    from rl_gns.distributed.crew import last_words

    return last_words(error)


_LOG = logging.getLogger(__name__)
