"""The policy on actors of its own, which rollout actors without weights ask at every step.

    rollout actor, a thread a collector            inference actor (one CPU, or a share of a GPU)
    infer(observation [N, ...], stamp)      --->   gathers what waits, up to MAX_ROWS rows or WAIT_SECONDS long
    waits, while other threads step                one forward pass of all of it
    (stamp, logits [N, A], value [N])       <---   split

A stamp names a publication: the policy's version and the object its weights are in. An actor that is asked under a
stamp which it does not hold says so, is told to fetch that object, and is asked again; so a new version and an actor
that has lost its memory take the same way, and no weights go through a rollout actor. A rollout is collected under one
stamp, an answer under another ends the run, and so no block mixes versions.

The draws stay in the collector, whose stream is the same. Logits depend on what is inferred together by rounding alone:
an action differs from that of a policy in the collector's process only where its uniform draw lies within the rounding
of a boundary between two actions. From there on that column is another one.

An inference actor keeps nothing that a block depends on, so Ray itself restarts one that died, and sends it again
what it had not answered; no collector is seeded anew. One that stays silent is killed by who asks it. Both are faults
of the rollout. Answers that are not finite end the run as they do elsewhere: the weights have diverged.

What it costs: a call for every step of a collector, and up with it 4 x 84 x 84 bytes a column: 28 kB an env step on top
of the 7.3 kB that it takes in its block, and 226 kB a call of 8 columns, which is more than Ray sends along with a call
(100 kB), so it goes through the object store. Ray needs 1 to 2 ms a call, however fast the answer is. Where the policy
is on CPUs all of that is loss; it can pay where a GPU infers for more collectors than their own CPUs could.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import GetTimeoutError, RayTaskError

from rl_gns.config import RunConfig
from rl_gns.distributed import session, watch
from rl_gns.distributed.crew import ActorsFail
from rl_gns.learn.model import Weights, one_thread
from rl_gns.records import Fault
from rl_gns.rollout.policy import finite, policy_without_world

MAX_ROWS = 1024
"""Of one forward pass (a guess: a GPU is busy with so many)."""
WAIT_SECONDS = 0.001
"""That the first request of a forward pass waits for others (a guess: about as long as Ray takes for a call)."""
SILENT_SECONDS = 20.0
"""Who waits for an answer so long kills the actor, once (a guess: many forward passes, and below what `watch` grants a
rollout actor)."""
GPU_SHARE = 0.1
"""Of a GPU that an actor asks Ray for (a guess); its memory is what it takes."""

Stamp = tuple[int, str]
"""(policy version, id of the object with its weights)."""


@dataclass(frozen=True)
class Answer:
    """Of one forward pass, for one request."""

    stamp: Stamp
    logits: np.ndarray
    """[N, A] float32."""
    value: np.ndarray
    """[N] float32."""


@dataclass(eq=False)
class _Request:
    observation: np.ndarray
    stamp: Stamp
    answer: asyncio.Future


class InferenceHost:
    """What runs inside an inference actor, all of it on one event loop: nothing interrupts a forward pass."""

    def __init__(self, config: RunConfig, device: str):
        torch.backends.cudnn.allow_tf32 = False  # its ten bits of mantissa would be no fp32
        self._policy = policy_without_world(config, device)
        self._stamp: Stamp | None = None
        self._waiting: list[_Request] = []
        self._serving: asyncio.Future | None = None

    async def where(self) -> str:
        """Process and node."""
        return f"the inference actor of pid {os.getpid()} on {ray.util.get_node_ip_address()}"

    async def load(self, weights: Weights, stamp: Stamp) -> None:
        """Answer under this stamp from now on."""
        if stamp != self._stamp:
            self._policy.load(weights)
            self._stamp = stamp

    async def infer(self, observation: np.ndarray, stamp: Stamp) -> Answer | None:
        """The policy's answer for `observation` [N, ...]; None where that stamp is not held."""
        request = _Request(observation, stamp, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.ensure_future(self._serve())
        return await request.answer

    async def _serve(self) -> None:
        while self._waiting:
            if sum(len(request.observation) for request in self._waiting) < MAX_ROWS:
                await asyncio.sleep(WAIT_SECONDS)
            self._answer(self._next_batch())

    def _next_batch(self) -> list[_Request]:
        """The oldest requests under our stamp, MAX_ROWS rows at most or one request; the others' are answered here."""
        for request in self._waiting:
            if request.stamp != self._stamp:
                request.answer.set_result(None)
        self._waiting = [request for request in self._waiting if request.stamp == self._stamp]
        rows = np.cumsum([len(request.observation) for request in self._waiting])
        n = max(1, int((rows <= MAX_ROWS).sum()))
        batch, self._waiting = self._waiting[:n], self._waiting[n:]
        return batch

    def _answer(self, batch: list[_Request]) -> None:
        if not batch:
            return
        try:
            with one_thread():
                logits, value = self._policy.forward(np.concatenate([request.observation for request in batch]))
        except Exception as error:
            for request in batch:
                request.answer.set_exception(error)
            return
        ends = np.cumsum([len(request.observation) for request in batch])[:-1]
        for request, *rows in zip(batch, np.split(logits, ends), np.split(value, ends), strict=True):
            request.answer.set_result(Answer(request.stamp, *rows))


InferenceActor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(InferenceHost)


@dataclass(frozen=True)
class Served:
    """Who infers for a collector, and under what; goes where weights go otherwise."""

    actor: Any
    weights: tuple[ray.ObjectRef]
    """In a tuple: Ray would fetch the object itself."""
    stamp: Stamp
    silent_seconds: float
    """What is waited for it, before it is killed."""


class RemotePolicy:
    """A Policy whose weights are elsewhere."""

    def load(self, served: Served) -> None:
        """See Policy."""
        self._served = served

    def infer(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Policy; RuntimeError where the answer is another version's."""
        served = self._served
        while (answer := self._ask(served.actor.infer.remote(observation, served.stamp))) is None:
            self._ask(served.actor.load.remote(served.weights[0], served.stamp))
        if answer.stamp != served.stamp:
            raise RuntimeError(f"an inference actor answered under {answer.stamp}, and {served.stamp} was asked for")
        return finite(answer.logits, answer.value)

    def _ask(self, call: ray.ObjectRef) -> Any:
        try:
            if not ray.wait([call], timeout=self._served.silent_seconds)[0]:
                ray.kill(self._served.actor, no_restart=False)
            return ray.get(call)
        except RayTaskError as error:
            raise RuntimeError(f"an inference actor failed: {session.reason(error)}") from None


class InferenceActors:
    """The driver's side: starts them, tells who serves whom, and what became of them."""

    def __init__(self, config: RunConfig):
        n = config.rollout.inference_actors
        device = device_of(config)
        make = InferenceActor.options(num_gpus=GPU_SHARE if device == "cuda" else 0)
        self._actors = [make.remote(config, device) for _ in range(n)]
        self._asked: dict[int, ray.ObjectRef] = {}
        self._where: list[str] = []

    def served(self, weights: ray.ObjectRef, version: int, collector_id: int) -> Served:
        """Collector c is served by actor c mod their number."""
        if not self._where:
            self._wait_for_all()
        actor = self._actors[collector_id % len(self._actors)]
        return Served(actor, (weights,), (version, weights.hex()), SILENT_SECONDS)

    def _wait_for_all(self) -> None:
        try:
            self._where = ray.get([actor.where.remote() for actor in self._actors], timeout=watch.START_SECONDS)
        except GetTimeoutError:
            words = f"no CPU for {len(self._actors)} inference actors in {watch.START_SECONDS:.0f} s"
            raise ActorsFail(f"{words}; fewer --rollout.inference-actors, or fewer --actors") from None

    def faults(self) -> list[Fault]:
        """Actors that have another process than when they were last looked at."""
        for k, actor in enumerate(self._actors):
            self._asked.setdefault(k, actor.where.remote())
        calls = list(self._asked.values())
        answered, _ = ray.wait(calls, num_returns=len(calls), timeout=watch.LOOK_SECONDS)
        found = []
        for k in [k for k, call in self._asked.items() if call in answered]:  # the others are being restarted
            before, self._where[k] = self._where[k], ray.get(self._asked.pop(k))
            if before != self._where[k]:
                reason = f"{before} died or was silent; {self._where[k]} took its place"
                found.append(Fault("died", [], [], reason, 0))
        return found

    def close(self) -> None:
        """Kill them."""
        for actor in self._actors:
            ray.kill(actor)


def device_of(config: RunConfig) -> str:
    """`cuda` where the learner is on a GPU and the cluster has a share of one free for each actor, else `cpu`."""
    if config.learner.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    free = ray.available_resources().get("GPU", 0.0)
    return "cuda" if free >= GPU_SHARE * config.rollout.inference_actors else "cpu"
