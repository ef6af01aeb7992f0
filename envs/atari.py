"""Atari games: ale-py's own vector environment, with every option given, in one thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from envs import world
from envs.options import AtariOptions


class AtariWorld:
    """N copies of one game. It cannot save itself: ale-py's vector environment has no way to.

    Of one column only the reset's no-op count is random (and the sticky actions, where there are any).
    """

    def __init__(self, rom: str, n_columns: int, options: AtariOptions, seeds: Sequence[int]) -> None:
        self._seeds = world.checked_seeds(seeds, n_columns)
        self._env = _make_env(rom, n_columns, options)
        self._clip_rewards = options.clip_rewards
        self._frames_before_episode = np.zeros(n_columns, dtype=np.int64)
        self.n_columns = n_columns
        self.n_actions = int(self._env.single_action_space.n)
        self.frame_shape = (options.frame_size, options.frame_size)
        self.frame_dtype = np.dtype(np.uint8)
        self.frame_stack = options.frame_stack
        self.episode_start = np.zeros(n_columns, dtype=bool)

    def reset(self) -> np.ndarray:
        """Load the ROM anew with the seeds; see `World`."""
        observation, info = self._env.reset(seed=self._seeds)
        self._frames_before_episode = _frames_before_episode(info)
        self.episode_start = np.ones(self.n_columns, dtype=bool)
        return observation

    def step(self, action: np.ndarray) -> world.Transition:
        """One env step of `frameskip` emulator frames in every column; see `World`."""
        action = world.checked_actions(action, self.n_columns, self.n_actions)
        observation, points, terminated, truncated, info = self._env.step(action)
        self.episode_start = self._noted_resets(info)
        raw_reward = points.astype(np.float32)
        reward = np.clip(raw_reward, -1.0, 1.0) if self._clip_rewards else raw_reward.copy()
        started = self.episode_start.copy()
        return world.Transition(observation, reward, raw_reward, terminated, truncated, ~started, started)

    def scatter(self, rng: np.random.Generator, max_steps: int) -> tuple[np.ndarray, int]:
        """Desynchronise the columns by partial resets; see `World`."""
        return world.scatter(self, self._restart, rng, max_steps)

    def state(self) -> None:
        """None: the emulators cannot be saved."""
        return None

    def restore(self, state: dict[str, Any]) -> None:
        """Always an error; see `state`."""
        raise NotImplementedError("an Atari world cannot be restored: ale-py's vector environment saves no state")

    def close(self) -> None:
        """Let go of the emulators and their thread, which end with the object."""
        del self._env

    def _restart(self, columns: np.ndarray) -> np.ndarray:
        observation, info = self._env.reset(options={"reset_mask": columns})
        self.episode_start = self.episode_start | columns
        self._frames_before_episode = _frames_before_episode(info)
        return observation

    def _noted_resets(self, info: dict[str, np.ndarray]) -> np.ndarray:
        """[N] bool: columns that were reset since the last look, told by the emulator's two frame counters.

        The row after `terminated` will not do: after a lost life the game goes on.
        """
        before, self._frames_before_episode = self._frames_before_episode, _frames_before_episode(info)
        return self._frames_before_episode != before


def _frames_before_episode(info: dict[str, np.ndarray]) -> np.ndarray:
    """[N] emulator frames played before the current episode: constant within it, and larger in the next one."""
    return info["frame_number"] - info["episode_frame_number"]


def _make_env(rom: str, n_columns: int, options: AtariOptions) -> AtariVectorEnv:
    return AtariVectorEnv(
        rom,
        n_columns,
        batch_size=0,
        num_threads=1,
        thread_affinity_offset=-1,
        max_num_frames_per_episode=options.max_episode_frames,
        repeat_action_probability=options.sticky_action_probability,
        full_action_space=options.full_action_space,
        continuous=False,
        continuous_action_threshold=0.5,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        img_height=options.frame_size,
        img_width=options.frame_size,
        grayscale=True,
        stack_num=options.frame_stack,
        frameskip=options.frameskip,
        maxpool=True,
        noop_max=options.noop_max,
        episodic_life=False,
        life_loss_info=options.life_loss_terminal,
        reward_clipping=False,
        use_fire_reset=options.fire_reset,
    )
