"""One rollout at the learner: the frames of all blocks in one tensor, rows addressed by r = (t W + w) N + n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rl_gns.learn.returns import gae
from rl_gns.segments import SegmentBlock


@dataclass(frozen=True)
class Rows:
    """Some rows of a rollout, ready for the loss; R rows."""

    observation: torch.Tensor
    """[R, stack, H, W] uint8, or [R, d] float32."""
    action: torch.Tensor
    """[R] int64."""
    logp: torch.Tensor
    """[R] float32, nats, of the collecting policy."""
    value: torch.Tensor
    """[R] float32, of the collecting network."""
    advantage: torch.Tensor
    """[R] float32, scaled."""
    target: torch.Tensor
    """[R] float32: the value target, unscaled advantage + value."""
    control: torch.Tensor
    """[R, D] float32: synthetic gradients, which no loss reads (`control_channel.py`)."""


@dataclass(frozen=True)
class Batch:
    """T x W x N rows: N columns, in the order of their collectors' ids, gave W segments (waves) each."""

    frames: torch.Tensor
    """[(T + stack) W N, *frame_shape]: frame (i, w, n) at (i W + w) N + n."""
    oldest: torch.Tensor
    """[T W N] int64: index i of the oldest frame that belongs to the row's episode (-1: no reset in this block)."""
    stack: int
    n_columns: int
    segment_steps: int
    valid: np.ndarray
    """[T W N] bool."""
    generation: np.ndarray
    """[W N] int64, of each segment: between two waves a column may have been seeded anew."""
    columns: dict[str, torch.Tensor]
    """action, logp, value, advantage, target: [T W N] each; advantage as GAE gave it. control: [T W N, D]."""
    waves: int = 1
    """W: segments of a column are correlated, so groups and minibatches of columns hold all of them."""
    normaliser: str = "none"
    """Whose statistics scale the advantages: `ewma`, `rollout` or `none`."""
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def from_blocks(cls, blocks: Sequence[SegmentBlock], gamma: float, gae_lambda: float, device: str) -> Batch:
        """Put blocks, ordered by wave, side by side; every segment has its own last value. Advantages are not scaled
        yet."""
        wide = {name: np.concatenate([getattr(b, name) for b in blocks], axis=1) for name in _STEPWISE}
        last_value = np.concatenate([b.last_value for b in blocks])
        ended = (wide["terminated"], wide["truncated"])
        advantage = gae(wide["reward"], wide["value"], last_value, *ended, gamma, gae_lambda)
        (steps, n_segments), waves = advantage.shape, 1 + max(b.wave for b in blocks)
        stack = len(blocks[0].frames) - steps
        start = np.concatenate([b.episode_start for b in blocks], axis=1)[:steps]
        columns = {name: wide[name] for name in ("action", "logp", "value", "control")}
        columns |= {"advantage": advantage, "target": advantage + wide["value"]}
        return cls(
            frames=torch.from_numpy(_frames(blocks, n_segments)).flatten(0, 1).to(device),
            oldest=torch.from_numpy(_oldest_frame(start, stack).reshape(-1)).to(device),
            stack=stack,
            n_columns=n_segments // waves,
            segment_steps=steps,
            valid=wide["valid"].reshape(-1),
            generation=np.repeat([b.generation for b in blocks], [len(b.last_value) for b in blocks]),
            columns={
                name: torch.from_numpy(np.ascontiguousarray(c).reshape(steps * n_segments, *c.shape[2:])).to(device)
                for name, c in columns.items()
            },
            waves=waves,
        )

    def scaled(self, normaliser: str, mean: float, std: float) -> Batch:
        """The same rows with advantages to be scaled as (A - mean) / std."""
        return replace(self, normaliser=normaliser, mean=mean, std=std)

    @property
    def env_steps(self) -> int:
        """Valid env steps."""
        return int(self.valid.sum())

    @property
    def column_env_steps(self) -> np.ndarray:
        """[G, N] int64: valid env steps of each column in each of the G generations that are in this rollout."""
        by_segment = self.valid.reshape(self.segment_steps, -1).sum(axis=0)
        stretches = [np.where(self.generation == g, by_segment, 0) for g in np.unique(self.generation)]
        return np.stack(stretches).reshape(len(stretches), self.waves, self.n_columns).sum(axis=1)

    def advantages(self) -> np.ndarray:
        """[env_steps] unscaled advantages of the valid rows."""
        return self.columns["advantage"].cpu().numpy()[self.valid]

    def valid_rows(self) -> np.ndarray:
        """[env_steps] row numbers, by time, then wave, then column."""
        return np.flatnonzero(self.valid)

    def rows_of_columns(self, columns: np.ndarray) -> np.ndarray:
        """Valid row numbers of some columns, all waves of each."""
        member = np.zeros(self.n_columns, bool)
        member[columns] = True
        return np.flatnonzero(self.valid.reshape(-1, self.n_columns) & member)

    def rows(self, index: np.ndarray) -> Rows:
        """The rows of that index, in its order, with advantages (A - mean) / std."""
        at = torch.from_numpy(index).to(self.frames.device)
        column = {name: c[at] for name, c in self.columns.items()}
        column["advantage"] = (column["advantage"] - self.mean) / (self.std + 1e-8)
        return Rows(observation=self._observation(at), **column)

    def _observation(self, at: torch.Tensor) -> torch.Tensor:
        """Rebuild the stacks by index: frames older than the episode are zero, as ale-py pads them."""
        if self.stack == 1:
            return self.frames[at]
        offset, n_segments = torch.arange(self.stack, device=at.device), self.waves * self.n_columns
        wanted = (at[:, None] + offset * n_segments).reshape(-1)
        stacks = self.frames.index_select(0, wanted).view(len(at), self.stack, *self.frames.shape[1:])
        keep = (at // n_segments)[:, None] + offset >= self.oldest[at][:, None]
        return stacks.mul_(keep[:, :, None, None]) if not bool(keep.all()) else stacks


_STEPWISE = ("action", "logp", "value", "reward", "terminated", "truncated", "valid", "control")


def _frames(blocks: Sequence[SegmentBlock], n_segments: int) -> np.ndarray:
    """[T + stack, W N, *frame_shape]: the array that these blocks fill side by side, if there is one (a source's
    blocks do), else a copy."""
    length, _, *shape = blocks[0].frames.shape
    whole = blocks[0].frames.base
    if isinstance(whole, np.ndarray) and whole.shape == (length, n_segments, *shape):
        ends = np.cumsum([b.frames.shape[1] for b in blocks])
        places = np.split(whole, ends[:-1], axis=1)
        if all(_same_memory(b.frames, place) for b, place in zip(blocks, places, strict=True)):
            return whole
    return np.concatenate([b.frames for b in blocks], axis=1)


def _same_memory(a: np.ndarray, b: np.ndarray) -> bool:
    return a.__array_interface__ == b.__array_interface__


def _oldest_frame(episode_start: np.ndarray, stack: int) -> np.ndarray:
    """[T, N] index of the oldest frame of the episode; the first observation's own stack is already padded."""
    steps = np.arange(len(episode_start))[:, None]
    last_start = np.maximum.accumulate(np.where(episode_start & (steps > 0), steps, -stack), axis=0)
    return np.maximum(last_start + stack - 1, -1)
