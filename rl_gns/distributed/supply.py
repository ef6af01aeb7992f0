"""What the cluster has for actors, asked of Ray's control service: nodes that are to go, what is free, what is kept.

A node is drained by `ray drain-node`, by an autoscaler that scales down, and by `ray start --block` at SIGTERM, as a
pod of KubeRay has it (Ray 2.60: 30 s). Ray then starts nothing more on it, and leaves what runs there to its owner:
to `crew`. The notices of EC2 and Compute Engine are heard by nobody: a spot VM that is taken back just dies.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Container
from typing import Any

LOOK_SECONDS = 1.0
"""The cluster is asked at most this often (a guess)."""
LEAVE_SECONDS = 30.0
"""A draining node is left this long before its deadline at the latest (a guess: an actor starts in 5 to 15 s)."""


def leaving() -> dict[str, float]:
    """Node id -> seconds until it goes, of the nodes that are being drained; inf where no deadline was told."""
    from ray._private.state import state

    now = time.time()
    return {node: at / 1000 - now if at else math.inf for node, at in state.get_draining_nodes().items()}


class Drained:
    """Whether this process's node is being drained, and another is there to go to; a call asks."""

    def __init__(self) -> None:
        self._looked, self._said = -math.inf, False

    def __call__(self) -> bool:
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            import ray

            self._looked, going = time.monotonic(), leaving()
            others = any(node["Alive"] and node["NodeID"] not in going for node in ray.nodes())
            self._said = others and ray.get_runtime_context().get_node_id() in going
        return self._said


def free_cpus(without: Container[str]) -> int:
    """Whole CPUs that an actor of this process could get on nodes not in `without`: of its placement group, if any."""
    import ray
    from ray._private.state import available_resources_per_node

    group = ray.util.get_current_placement_group()
    kind = f"CPU_group_{group.id.hex()}" if group else "CPU"
    per_node = available_resources_per_node()
    return sum(int(free.get(kind, 0)) for node, free in per_node.items() if node not in without)


def free(kind: str) -> dict[str, int]:
    """Node id -> whole ones of that resource that nobody holds; of a node that holds all it may be missing."""
    from ray._private.state import available_resources_per_node

    return {node: int(has.get(kind, 0)) for node, has in available_resources_per_node().items()}


def own_room() -> str:
    """Name of the placement group that this process's learners share; empty where it is no actor's."""
    import ray

    return _room(id) if (id := ray.get_runtime_context().get_actor_id()) else ""


def give_back_room(actor: Any) -> None:
    """Remove what an actor has left under its `own_room`: one whose process is lost keeps it until its job ends."""
    from ray.util.placement_group import get_placement_group, remove_placement_group

    with contextlib.suppress(ValueError):  # there is none
        remove_placement_group(get_placement_group(_room(actor._actor_id.hex())))


def _room(actor_id: str) -> str:
    return f"learners of {actor_id}"
