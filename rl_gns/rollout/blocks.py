"""Is this block what was asked for? Every block is looked at when it arrives, before a number of it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import envs
from rl_gns.config import RunConfig
from rl_gns.control_channel import coordinates
from rl_gns.segments import SegmentBlock

ROWS = {
    "action": np.int64,
    "logp": np.float32,
    "value": np.float32,
    "reward": np.float32,
    "raw_reward": np.float32,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "valid": np.bool_,
}
"""Fields of shape [T, N], with their dtype."""
MAX_LOGP = 1e-3
"""A log-probability may be above 0 by rounding alone: float32 logits of order 1,000 round by 1e-4."""


@dataclass(frozen=True)
class Layout:
    """What all blocks of a configuration have in common."""

    n_columns: int
    frame_shape: tuple[int, ...]
    frame_stack: int
    frame_dtype: np.dtype
    n_actions: int
    control_coordinates: int


def layout(config: RunConfig) -> Layout:
    """From a world of one column, made and closed."""
    world = envs.make_vec(config.env, 1, config.atari, [0])
    world.close()
    columns = config.rollout.columns_per_collector
    frames = (tuple(world.frame_shape), world.frame_stack, np.dtype(world.frame_dtype))
    return Layout(columns, *frames, world.n_actions, coordinates(config))


@dataclass(frozen=True)
class Asked:
    """Which block was asked for."""

    collector_id: int
    generation: int
    policy_version: int
    segment_steps: int
    wave: int = 0


def wrong(block: Any, asked: Asked, layout: Layout) -> str | None:
    """Why `block` is not the block that was asked for, in a few words; None where nothing is wrong with it."""
    if not isinstance(block, SegmentBlock):
        return f"a {type(block).__name__} instead of a block"
    for name in ("collector_id", "generation", "policy_version", "wave"):
        if (got := getattr(block, name)) != (wanted := getattr(asked, name)):
            return f"{name} {got} instead of {wanted}"
    return _misshapen(block, asked.segment_steps, layout) or _not_finite(block) or _inconsistent(block, layout)


def _misshapen(block: SegmentBlock, steps: int, layout: Layout) -> str | None:
    n = layout.n_columns
    wanted: dict[str, tuple[tuple[int, ...], Any]] = {name: ((steps, n), dtype) for name, dtype in ROWS.items()}
    wanted["frames"] = ((steps + layout.frame_stack, n, *layout.frame_shape), layout.frame_dtype)
    wanted["episode_start"] = ((steps + 1, n), np.bool_)
    wanted["last_value"] = ((n,), np.float32)
    wanted["control"] = ((steps, n, layout.control_coordinates), np.float32)
    wanted["episode_returns"] = (np.shape(block.episode_returns), np.float32)
    wanted["episode_lengths"] = (np.shape(block.episode_returns), np.int64)
    for name, (shape, dtype) in wanted.items():
        array = getattr(block, name)
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            return f"{name} is {got} instead of {np.dtype(dtype)} {shape}"
    return None


def _not_finite(block: SegmentBlock) -> str | None:
    names = ("logp", "value", "reward", "raw_reward", "last_value", "episode_returns", "control", "frames")
    for array, name in ((getattr(block, name), name) for name in names):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"{name} has {int((~np.isfinite(array)).sum())} values that are not finite"
    return None


def _inconsistent(block: SegmentBlock, layout: Layout) -> str | None:
    if block.action.min() < 0 or block.action.max() >= layout.n_actions:
        return f"actions {block.action.min()} to {block.action.max()}, where 0 to {layout.n_actions - 1} exist"
    if block.logp.max() > MAX_LOGP:
        return f"a log-probability of {block.logp.max():g}"
    if (block.valid == block.episode_start[1:]).any():
        return "rows whose valid and episode_start contradict each other"
    if (block.terminated & block.truncated).any():
        return "rows that are both terminated and truncated"
    if block.burn_in_env_steps < 0 or (block.episode_lengths < 0).any():
        return "a negative number of env steps"
    return None
