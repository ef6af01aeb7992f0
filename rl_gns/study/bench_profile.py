"""`rl-gns bench --profile`: where the seconds of a rollout go, by timers around the calls that do the work.

Each timer counts its own time less that of the timers inside it. Collectors work on several threads at once: their
thread seconds are scaled so that together they make up the wall-clock seconds of collecting.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch

import envs
from rl_gns.config import ConfigError, RunConfig
from rl_gns.learn import batch as batch_module
from rl_gns.learn.batch import Batch
from rl_gns.learn.learner import Learner
from rl_gns.rollout import collector as collector_module
from rl_gns.rollout.assembly import Assembly
from rl_gns.rollout.collector import Collector
from rl_gns.rollout.policy import ActingPolicy
from rl_gns.rollout.sources import SegmentSource
from rl_gns.study.bench import Loop
from rl_gns.study.build import checked, make_learner, source

ON_COLLECTORS = ("emulation", "inference", "sampling", "blocks and bookkeeping", "loading weights")
COLLECTING = "waiting for the collectors"


class Timers:
    """Seconds a label, added up over all threads; time inside another timer counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inclusive: dict[str, float] = defaultdict(float)
        self._lock, self._here = threading.Lock(), threading.local()

    def timed(self, work: Callable[..., Any], label: str) -> Callable[..., Any]:
        """The same function, timed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            inside, self._here.inside = getattr(self._here, "inside", 0.0), 0.0
            start = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                whole = time.perf_counter() - start
                with self._lock:
                    self.seconds[label] += whole - self._here.inside
                    self.inclusive[label] += whole
                self._here.inside = inside + whole

        return call

    @contextlib.contextmanager
    def around(self, owner: Any, name: str, label: str) -> Iterator[None]:
        """Time `owner.name` until the block ends."""
        before = vars(owner).get(name)
        work = getattr(owner, name)
        setattr(owner, name, self.timed(work, label))
        try:
            yield
        finally:
            if before is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


def profile(config: RunConfig, rollouts: int) -> dict[str, float]:
    """Label -> wall-clock seconds a rollout, the probe off, burn-in and warm-up left out; they add up to `in all`."""
    config = checked(config)
    if config.actors:
        raise ConfigError(f"--actors: {config.actors} are other processes, which --profile cannot see; leave it out")
    timers = Timers()
    with source(config) as segments, contextlib.ExitStack() as stack:
        learner = make_learner(config)
        loop = Loop(config, learner, segments)
        loop.piece(2, probe=False)
        for owner, name, label in _calls(config, learner, segments):
            stack.enter_context(timers.around(owner, name, label))
        _, seconds = loop.piece(rollouts, probe=False)
    return {label: total / rollouts for label, total in wall_seconds(timers, seconds).items()}


def _calls(config: RunConfig, learner: Learner, segments: SegmentSource) -> list[tuple[Any, str, str]]:
    """(owner, attribute, label) of every call that is timed."""
    world = envs.make_vec(config.env, 1, config.atari, [0])
    kind = type(world)
    world.close()
    return [
        (kind, "step", "emulation"),
        (ActingPolicy, "infer", "inference"),
        (Collector, "load", "loading weights"),
        (collector_module, "sample", "sampling"),
        (Collector, "collect", "blocks and bookkeeping"),
        (Assembly, "put", "blocks and bookkeeping"),
        (segments, "collect", COLLECTING),
        (learner, "weights", "publishing weights"),
        (batch_module, "gae", "gae"),
        (Batch, "from_blocks", "copying and stacking"),
        (Batch, "rows", "copying and stacking"),
        (learner.network, "forward", "forward"),
        (torch.Tensor, "backward", "backward"),
        (torch.nn.utils, "clip_grad_norm_", "optimizer"),
        (learner.optimizer, "step", "optimizer"),
        (learner.optimizer, "zero_grad", "optimizer"),
    ]


def wall_seconds(timers: Timers, whole: float) -> dict[str, float]:
    """Label -> seconds of the wall clock, the collectors' scaled to it; the last two are `rest` and `in all`."""
    own = dict(timers.seconds)
    own.pop(COLLECTING)
    scale = timers.inclusive[COLLECTING] / sum(own.get(label, 0.0) for label in ON_COLLECTORS)
    found = {label: own.pop(label, 0.0) * scale for label in ON_COLLECTORS} | own
    return found | {"rest": whole - sum(found.values()), "in all": whole}


def markdown(seconds: dict[str, float]) -> str:
    """The profile as a table for a page."""
    rows = [f"| {label} | {s:.4f} | {s / seconds['in all']:.1%} |" for label, s in seconds.items()]
    return "\n".join(["| where a rollout's time goes | seconds | share |", "|---|---|---|", *rows])
