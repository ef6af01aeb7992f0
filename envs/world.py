"""What every world offers, and the checks and the desynchronising walk that all of them share.

A world steps `n_columns` environment copies at once. It resets by the next-step rule: the observation that comes with
`terminated` or `truncated` is the true last one; at the following step that column ignores its action, gets reward 0,
returns the first observation of its next episode, and the row is marked `valid = False, episode_start = True`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

SEED_LIMIT = 2**31
"""Seeds are in [0, SEED_LIMIT): what ale-py's int32 holds."""


class Transition(NamedTuple):
    """What one env step of every column gave; arrays of length N, the number of columns, that no later step alters."""

    observation: np.ndarray
    """[N, frame_stack, H, W] uint8, oldest frame first, or [N, d] float32: what the agent sees next."""
    reward: np.ndarray
    """[N] float32: what the learner learns from (clipped where the protocol clips)."""
    raw_reward: np.ndarray
    """[N] float32: the world's own score."""
    terminated: np.ndarray
    """[N] bool: the episode ended (or a life did, where the protocol ends on it): no value beyond."""
    truncated: np.ndarray
    """[N] bool: a time limit cut the episode here; never together with `terminated`."""
    valid: np.ndarray
    """[N] bool: False on the autoreset row, whose action was ignored."""
    episode_start: np.ndarray
    """[N] bool: `observation` is the first of an episode; only autoreset rows have it."""


class World(Protocol):
    """N environment copies behind one door. Equal seeds and equal actions give bitwise equal streams."""

    n_columns: int
    """N, environment copies."""
    n_actions: int
    """Actions are 0 .. n_actions - 1."""
    frame_shape: tuple[int, ...]
    """Of one frame: (H, W) pixels, or (d,) for vectors."""
    frame_dtype: np.dtype
    """uint8 for pixels, float32 for vectors."""
    frame_stack: int
    """Frames in one observation; 1 for vectors, whose observation has no stack axis."""
    episode_start: np.ndarray
    """[N] bool: the current observation of each column is the first of its episode."""

    def reset(self) -> np.ndarray:
        """Start again from the seeds (so a second call repeats the first) and return the observation."""
        ...

    def step(self, action: np.ndarray) -> Transition:
        """Take `action` ([N] integers) in every column; a ValueError where it is not legal. Needs a reset before."""
        ...

    def scatter(self, rng: np.random.Generator, max_steps: int) -> tuple[np.ndarray, int]:
        """Reset, then put every column at its own phase; see `scatter`. A function of the seeds and `rng` alone."""
        ...

    def state(self) -> dict[str, Any] | None:
        """All that `restore` needs to go on bitwise, as JSON values and arrays; None where a world cannot be saved."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state()` returned, in a world made with the same arguments."""
        ...

    def close(self) -> None:
        """Give back threads and memory; the world cannot be used afterwards."""
        ...


def scatter(
    world: World, restart: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator, max_steps: int
) -> tuple[np.ndarray, int]:
    """Desynchronise the columns, and return the current observation and the env steps spent over all columns.

    Column n ends U{0 .. max_steps} uniformly random actions after its own restart. All columns step together, so
    the late ones play on until `restart(mask)` restarts them (and returns everyone's observation); those env steps
    count as spent. A short episode may have ended, and begun again, since the restart.
    """
    if max_steps < 0:
        raise ValueError(f"max_steps must be at least 0, got {max_steps}")
    observation = world.reset()
    steps_since_restart = rng.integers(0, max_steps + 1, size=world.n_columns)
    longest = int(steps_since_restart.max())
    for steps_left in range(longest, -1, -1):
        due = steps_since_restart == steps_left
        if steps_left < longest and due.any():
            observation = restart(due)
        if steps_left:
            observation = world.step(rng.integers(0, world.n_actions, size=world.n_columns)).observation
    return observation, longest * world.n_columns


def checked_actions(action: np.ndarray, n_columns: int, n_actions: int) -> np.ndarray:
    """`action` as contiguous [N] int64, or a ValueError: an illegal one would hang ale-py for ever."""
    action = np.asarray(action)
    if action.shape != (n_columns,) or action.dtype.kind not in "iu":
        raise ValueError(f"actions must be {n_columns} integers, got {action.dtype} of shape {action.shape}")
    if action.min() < 0 or action.max() >= n_actions:
        raise ValueError(f"actions must be in 0..{n_actions - 1}, got {action.min()}..{action.max()}")
    return np.ascontiguousarray(action, dtype=np.int64)


def checked_seeds(seeds: Sequence[int], n_columns: int) -> np.ndarray:
    """`seeds` as [N] int64, or a ValueError where they are not N distinct integers in [0, SEED_LIMIT)."""
    values = [int(seed) for seed in seeds]
    if n_columns < 1 or len(values) != n_columns:
        raise ValueError(f"one seed a column, at least one: got {len(values)} seeds for {n_columns} columns")
    if len(set(values)) != n_columns:
        raise ValueError(f"seeds must be distinct, got {n_columns - len(set(values))} repeated")
    if min(values) < 0 or max(values) >= SEED_LIMIT:
        raise ValueError(f"seeds must be in 0..{SEED_LIMIT - 1}, got {min(values)}..{max(values)}")
    return np.array(values, dtype=np.int64)
