"""Several learners: one actor a rank (`learn.rank_learner`), driven as one learner. Import this inside a session alone.

    driver                                          rank r of R (one CPU, and one GPU where there are any)
    prepare: blocks split by columns, a put a rank  --->  its columns as a batch; statistics are reduced
    probe                                           --->  its groups' gradients; norms and dots  ---> rank 0's answer
    update                                          --->  its rows of every minibatch; gradients are reduced
    weights, state                                  <---  of rank 0 (the others' are the same bits)

The ranks meet on the loopback interface where they are on one node, else each on its own node's. A rank that dies or
stands still ends the run: the others wait for it (the driver, where it is asked alone) for `ranks.stall_seconds`, and
the last checkpoint is everybody's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rl_gns.config import ConfigError, RunConfig
from rl_gns.distributed import supply
from rl_gns.distributed.crew import last_words
from rl_gns.learn.batch import Batch
from rl_gns.learn.learner import NonFiniteGradient
from rl_gns.learn.model import Weights
from rl_gns.learn.rank_learner import RankLearner, Share, share_of
from rl_gns.learn.ranks import Ranks, listener, stall_seconds
from rl_gns.learn.update_stats import UpdateStats
from rl_gns.records import GroupMoments
from rl_gns.segments import SegmentBlock

PLACE_SECONDS = 120.0
"""For the cluster to find room for all learners at once, and then for one more of them to start (a guess)."""
DEATH_SECONDS = 5.0
"""So long an error waits for word of a death that would explain it (Ray tells of one in well under a second)."""
LOOPBACK = "127.0.0.1"
GO_ON = "the same command goes on from the last checkpoint"

World = tuple[tuple[int, ...], int, int, str]
"""frame_shape, frame_stack, n_actions, env_protocol."""


class LearnersFail(RuntimeError):
    """A learner died, stood still or failed; the others cannot go on without it."""


class RankHost:
    """What runs inside an actor."""

    def __init__(self, config: RunConfig, rank: int, world: World):
        self._config, self._rank, self._world = config, rank, world
        self._listening: Any = None
        self._share: Share | None = None

    def where(self) -> tuple[str, int]:
        """(IP of its node, process id)."""
        return ray.util.get_node_ip_address(), os.getpid()

    def listen(self, host: str) -> int:
        """Rank 0 opens the door; its port."""
        self._listening = listener(host)
        return self._listening.getsockname()[1]

    def join(self, host: str, port: int, stall_seconds: float) -> dict[str, Any]:
        """Meet the other ranks; what `auto` settings came to."""
        device, own_host = self._config.learner.device, LOOPBACK if host == LOOPBACK else self.where()[0]
        n_ranks, listening = self._config.learners, self._listening
        ranks = Ranks(self._rank, n_ranks, host, port, own_host, stall_seconds, device, listening)
        self._learner = RankLearner(ranks, self._config, *self._world)
        return {name: getattr(self._learner, name) for name in ("device", "precision", "threads")}

    def prepare(self, blocks: list[SegmentBlock], valid: np.ndarray) -> Batch:
        """The whole rollout without its rows."""
        self._share = self._learner.prepare(blocks, valid)
        return self._share.whole

    def probe(self) -> GroupMoments:
        return self._learner.probe(self._share)

    def update(self, learning_rate: float) -> tuple[UpdateStats, int, int]:
        """(statistics, version, skipped steps so far); the rollout is let go."""
        share, self._share = self._share, None
        stats = self._learner.update(share, learning_rate)
        return stats, self._learner.version, self._learner.skipped_steps

    def bad_rows(self) -> dict[str, np.ndarray] | None:
        return self._learner.bad_rows

    def weights(self) -> Weights:
        return self._learner.weights()

    def state(self) -> dict[str, Any]:
        return self._learner.state()

    def restore(self, state: dict[str, Any]) -> tuple[int, int]:
        """(version, skipped steps so far)."""
        self._learner.restore(state)
        return self._learner.version, self._learner.skipped_steps


RankActor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(RankHost)


class LearnerGroup:
    """R learners that the trainer sees as one (`learn.learner.Learner`), without the groups' gradients."""

    def __init__(self, config: RunConfig, world: World, threads: int):
        """`threads` of the machine, shared by the learners where learner.threads is 0. ConfigError where the cluster
        has not enough GPUs; LearnersFail where they find no room or do not meet."""
        self.version = self.skipped_steps = 0
        self.bad_rows: dict[str, np.ndarray] | None = None
        self._n, self._actors, self._where = config.learners, [], [""] * config.learners
        self._stall_seconds = stall_seconds(config.batch_cap * config.batch.minibatches // config.learners)
        device = _device(config)
        each = config.learner.threads or max(1, threads // self._n)
        config = replace(config, learner=replace(config.learner, device=device, threads=each))
        gpus = float(device == "cuda")
        bundles = [{"CPU": 1.0, **({"GPU": gpus} if gpus else {})}] * self._n
        self._room = placement_group(bundles, strategy="PACK", name=supply.own_room())
        try:
            self._start(config, world, gpus)
        except BaseException:
            self.close()
            raise

    def _start(self, config: RunConfig, world: World, gpus: float) -> None:
        if not self._room.wait(PLACE_SECONDS):
            raise LearnersFail(f"no room for {self._n} learners in {PLACE_SECONDS:.0f} s: {_free()} are free")
        for rank in range(self._n):
            bundle = PlacementGroupSchedulingStrategy(self._room, placement_group_bundle_index=rank)
            options = RankActor.options(num_gpus=gpus, scheduling_strategy=bundle)
            self._actors.append(options.remote(config, rank, world))
        places = self._answers([actor.where.remote() for actor in self._actors], PLACE_SECONDS)
        self._where = [f"pid {pid} on {ip}" for ip, pid in places]
        host = LOOPBACK if len({ip for ip, _ in places}) == 1 else places[0][0]
        port = self._alone(self._actors[:1], "listen", host)[0]
        resolved = self._all("join", host, port, self._stall_seconds)[0]
        self.device, self.precision, self.threads = (resolved[name] for name in ("device", "precision", "threads"))

    def weights(self) -> Weights:
        """Of rank 0."""
        return self._alone(self._actors[:1], "weights")[0]

    def prepare(self, blocks: Sequence[SegmentBlock]) -> Batch:
        """Send every rank its columns; the whole rollout without its rows."""
        valid = ray.put(np.concatenate([block.valid for block in blocks], axis=1))
        calls = []
        for rank, actor in enumerate(self._actors):  # one rank's copy at a time
            calls.append(actor.prepare.remote([share_of(block, rank, self._n) for block in blocks], valid))
        return self._answers(calls)[0]

    def probe(self, batch: Batch) -> GroupMoments:
        """Of the rollout that was prepared last."""
        return self._all("probe")[0]

    def update(self, batch: Batch, learning_rate: float) -> UpdateStats:
        """All epochs over the rollout that was prepared last."""
        stats, self.version, self.skipped_steps = self._all("update", learning_rate)[0]
        if self.skipped_steps and self.bad_rows is None:
            self._catch_bad_rows()
        return stats

    def state(self) -> dict[str, Any]:
        """Of rank 0: any number of learners can go on from it."""
        return self._alone(self._actors[:1], "state")[0]

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`, all of them."""
        self.version, self.skipped_steps = self._alone(self._actors, "restore", ray.put(state))[0]

    def close(self) -> None:
        """Kill the actors, and give their room back."""
        for actor in self._actors:
            ray.kill(actor)
        remove_placement_group(self._room)

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """The ranks wait for each other in it, and tell of one that stands still."""
        return self._answers([getattr(actor, method).remote(*arguments) for actor in self._actors])

    def _alone(self, actors: Sequence[Any], method: str, *arguments: Any) -> list[Any]:
        """They do not: the driver watches."""
        return self._answers([getattr(actor, method).remote(*arguments) for actor in actors], self._stall_seconds)

    def _answers(self, calls: list[ray.ObjectRef], seconds: float | None = None) -> list[Any]:
        """One of each of the first len(calls) ranks; the first that fails, or `seconds` without an answer, ends the
        wait for the others. None: the first takes as long as it takes, since ranks wait for each other."""
        waiting, errors = list(calls), {}
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=DEATH_SECONDS if errors else seconds)
            if not done:
                break
            seconds = seconds or self._stall_seconds
            errors |= {calls.index(call): error for call in done if (error := _error(call)) is not None}
        silent = " and ".join(self._who(calls.index(call)) for call in waiting)
        if errors:
            raise self._explained(errors, silent)
        if waiting:
            raise LearnersFail(f"{silent} gave no answer in {seconds:.0f} s; {GO_ON}")
        return ray.get(calls)

    def _explained(self, errors: dict[int, RayError], silent: str) -> Exception:
        """What to tell the user: a death before what the others said of it, and who said nothing. Its cause is the
        learner's own exception."""
        rank = min(errors, key=lambda r: (isinstance(errors[r], RayTaskError), r))
        error = errors[rank]
        if isinstance(error, RayTaskError):
            if isinstance(error.cause, NonFiniteGradient):
                self._catch_bad_rows()
                return error.cause
            what = f"failed: {type(error.cause).__name__}: {error.cause}".splitlines()[0]
        else:
            what = f"died: {last_words(error)}"
        unheard = f"; {silent} gave no answer" if silent else ""
        failure = LearnersFail(f"{self._who(rank)} {what}{unheard}; {GO_ON}")
        failure.__cause__ = getattr(error, "cause", error)
        return failure

    def _who(self, rank: int) -> str:
        where = f" ({self._where[rank]})" if self._where[rank] else ""
        return f"learner {rank} of {self._n}{where}"

    def _catch_bad_rows(self) -> None:
        parts = [part for part in self._alone(self._actors, "bad_rows") if part is not None]
        if parts:
            self.bad_rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _error(call: ray.ObjectRef) -> RayError | None:
    try:
        ray.get(call)
    except RayError as error:
        return error
    return None


def _device(config: RunConfig) -> str:
    """`auto` is cuda where the cluster has GPUs; then each learner needs one."""
    there = int(ray.cluster_resources().get("GPU", 0))
    wanted = config.learner.device
    if wanted == "cpu" or (wanted == "auto" and not there):
        return "cpu"
    if there < config.learners:
        fits = f"{there} fits" if there else "the nearest is --learner.device cpu"
        raise ConfigError(f"--learners: {config.learners} need a GPU each, and the cluster has {there}; {fits}")
    return "cuda"


def _free() -> str:
    free = ray.available_resources()
    return f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs"
