"""What a collector hands over: whole segments of its columns.

Time runs over t = 0 .. T-1, columns over n = 0 .. N-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class SegmentBlock:
    """T consecutive env steps of the N columns of one collector, under one policy version.

    Row (t, n): the agent saw `obs_t`, took `action`, received `reward`, and then saw `obs_{t+1}`.
    `obs_t` is the stack of `frames[t : t + stack]` with the frames older than the episode zeroed.
    """

    frames: np.ndarray
    """[T + stack, N, *frame_shape]: single frames (uint8 pixels, float32 vectors); the first `stack` are the
    first observation's own stack, the last is the bootstrap observation."""
    episode_start: np.ndarray
    """[T + 1, N] bool: `obs_t` is the first observation of an episode (after a reset)."""
    action: np.ndarray
    """[T, N] int64."""
    logp: np.ndarray
    """[T, N] float32, nats: log-probability of `action` under the collecting policy."""
    value: np.ndarray
    """[T, N] float32: the collecting network's V(obs_t), in units of discounted clipped reward."""
    last_value: np.ndarray
    """[N] float32: V(obs_T), the bootstrap value."""
    reward: np.ndarray
    """[T, N] float32: what the learner learns from (clipped where the protocol clips)."""
    raw_reward: np.ndarray
    """[T, N] float32: the game's own score."""
    terminated: np.ndarray
    """[T, N] bool: the episode (or life, where the protocol ends on it) ended: no bootstrap."""
    truncated: np.ndarray
    """[T, N] bool: a time limit cut the episode: bootstrap from `obs_{t+1}`."""
    valid: np.ndarray
    """[T, N] bool: False on the autoreset row, whose action was ignored."""
    control: np.ndarray
    """[T, N, D] float32: synthetic gradients of known noise scale (`control_channel.py`); D = 0: none."""
    episode_returns: np.ndarray
    """[n_episodes] float32: raw returns of the episodes that finished in this block."""
    episode_lengths: np.ndarray
    """[n_episodes] int64, env steps."""
    policy_version: int
    """The version of the weights that collected every row."""
    collector_id: int
    """Which collector; blocks are combined in this order, never in order of arrival."""
    generation: int
    """How often this collector was re-seeded."""
    wave: int
    """0 .. W - 1: which of the W consecutive segments that these columns give to the rollout."""
    burn_in_env_steps: int
    """Env steps spent on desynchronising the columns since the last block; not in the batch."""
